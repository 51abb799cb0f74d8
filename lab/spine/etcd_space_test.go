//go:build lab

package spine_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/fettle"
	"fettle/lab/spine"
)

// roomMade are the steps that make room: a defragmentation for each member, the
// leader's last.
var roomMade = []string{"snapshot", "compact", "defrag1", "defrag2", "defrag_leader"}

// overwrite overwrites one key again and again, until enough says so of what came
// of it and how large the leader's database is. A database grows when what was
// written is committed to it, a while after it was acknowledged: each time that
// is waited for, so that no more is written than enough wants.
func (c *etcdCluster) overwrite(enough func(error, int64) bool) {
	c.t.Helper()
	leader := c.leader()
	cl := c.client(leader)
	defer cl.Close()
	value := strings.Repeat("0123456789abcdef", 16<<10)
	var size int64
	for range 4096 {
		ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
		_, err := cl.Put(ctx, "fill", value)
		cancel()
		spine.Until(c.t, "a write to be in the database", func() bool {
			s, err2 := c.status(leader)
			if err2 != nil {
				c.t.Fatal(err2)
			}
			grown := s.DbSize > size
			size = s.DbSize
			return grown || err != nil
		})
		if enough(err, size) {
			return
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
	c.t.Fatal("4096 overwrites were not enough")
}

// The quota is used up by one key's history: no write is taken any more, until
// room was made and the alarm lifted.
func TestLabEtcdNoSpace(t *testing.T) {
	const quota = 24 << 20
	c := startEtcd(t, etcdOptions{quota: quota})
	ids := c.identities()
	c.overwrite(func(err error, _ int64) bool { return errors.Is(err, rpctypes.ErrNoSpace) })
	in := c.WaitFor(noSpace, c.cluster(), fettle.Resolved)
	c.CheckMended(in, "make-room", append(roomMade, "disarm")...)
	c.CheckOnly(in.Cause)
	c.checkRoom(quota)
	r, err := ask(c, c.leader(), func(ctx context.Context, cl *clientv3.Client) (*clientv3.AlarmResponse, error) {
		return cl.AlarmList(ctx)
	})
	if err != nil || len(r.Alarms) != 0 {
		t.Errorf("alarms: %v, %v", r, err)
	}
	c.checkIdentities(ids)
	c.checkWhole()
}

// The database nears its quota: room is made while writes are still taken.
func TestLabEtcdQuotaNear(t *testing.T) {
	const quota = 24 << 20
	c := startEtcd(t, etcdOptions{quota: quota})
	ids := c.identities()
	c.overwrite(func(_ error, size int64) bool { return size*100 >= quota*83 })
	in := c.WaitFor(quotaNear, c.cluster(), fettle.Resolved)
	c.CheckMended(in, "make-room", roomMade...)
	c.CheckOnly(in.Cause)
	c.checkRoom(quota)
	c.checkIdentities(ids)
	c.checkWhole()
}

// checkRoom fails the test unless every database takes less than half of the
// quota, and a snapshot of what it was is kept on a host.
func (c *etcdCluster) checkRoom(quota int64) {
	c.t.Helper()
	snapshots := 0
	for _, h := range c.Hosts() {
		s, err := c.status(h)
		if err != nil {
			c.t.Fatal(err)
		}
		if s.DbSize*2 > quota {
			c.t.Errorf("%s: the database takes %d bytes of %d", h.Name(), s.DbSize, quota)
		}
		if c.Try(h, "ls /var/lib/etcd/fettle-snapshots/* && ETCDCTL_API=3 etcdctl snapshot status $(ls /var/lib/etcd/fettle-snapshots/*.db | tail -1)") {
			snapshots++
		}
	}
	if snapshots != 1 {
		c.t.Errorf("%d hosts have a snapshot, want 1", snapshots)
	}
}
