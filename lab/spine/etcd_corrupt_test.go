//go:build lab

package spine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

const corruptAlarm fettle.Code = "etcd.corrupt_alarm"

// etcd's own check finds a member that differs and raises the alarm CORRUPT: from
// then on no member takes a write. The member that differs is the cause and is
// replaced, which takes no write; the alarm is left to a person, who lifts it.
func TestLabEtcdCorruptAlarm(t *testing.T) {
	c := startEtcd(t, etcdOptions{prepare: func(l *lab.Lab) {
		for _, h := range l.Hosts() {
			if err := h.WriteFile("/etc/systemd/system/etcd.service.d/check.conf", []byte("[Service]\nEnvironment=ETCD_EXPERIMENTAL_CORRUPT_CHECK_TIME=5s\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}})
	h := c.follower()
	ids := c.identities()
	put := func(key, value string) error {
		_, err := ask(c, c.leader(), func(ctx context.Context, cl *clientv3.Client) (*clientv3.PutResponse, error) {
			return cl.Put(ctx, key, value)
		})
		return err
	}
	value := "the value of which four bytes are changed " + strings.Repeat("z", 64)
	if err := put("flipped/key", value); err != nil {
		t.Fatal(err)
	}
	c.load.waitMore(100) // it is in the database, and not only in the log
	c.Write(h, "/srv/flip.py", flip)
	if n := c.Shell(h, fmt.Sprintf("systemctl stop %s; python3 /srv/flip.py %s/member/snap/db '%s'; systemctl start %s", etcdUnit, c.data, value, etcdUnit)); n == "0" {
		t.Fatal("the value is not in the database")
	}
	spine.Until(t, "etcd to refuse writes", func() bool { return errors.Is(put("refused", "x"), rpctypes.ErrCorrupt) })

	in := c.WaitFor(hashDiffers, c.member(h), fettle.Resolved)
	c.CheckMended(in, "replace", replaced[0], "stop", "remove", "aside", "add", "configure", "start", "promote", "settle")
	if !slices.Contains(in.Conditions, key(corruptAlarm, c.cluster())) {
		t.Errorf("the alarm is not among what the member that differs brought about: %v", in.Conditions)
	}
	c.aside(in)
	c.checkIdentities(ids, h)

	left := c.WaitFor(corruptAlarm, c.cluster(), fettle.Escalated)
	t.Logf("the alarm: %s", left.Why)
	c.checkHashes()
	if err := put("refused", "x"); !errors.Is(err, rpctypes.ErrCorrupt) {
		t.Errorf("somebody lifted the alarm: %v", err)
	}
	c.Shell(c.Host(1), "ETCDCTL_API=3 etcdctl --endpoints="+clientURL(c.Host(1))+" alarm disarm") // a person who has seen it
	c.CheckUntouched(c.WaitFor(corruptAlarm, c.cluster(), fettle.Resolved))
	c.checkWhole()
}
