//go:build lab

package spine_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/fettle"
	"fettle/lab"
)

// damage overwrites 64 bytes in the middle of what was written to a log, and
// prints where.
const damage = `import sys
with open(sys.argv[1], "r+b") as f:
    at = len(f.read().rstrip(b"\0")) // 2
    f.seek(at)
    old = f.read(64)
    f.seek(at)
    f.write(bytes(b ^ 0x5a for b in old))
print(at)
`

// replaced are the steps that give a member a new identity when there is data
// that must give way.
var replaced = []string{"snapshot", "remove", "aside", "add", "configure", "start", "promote", "settle"}

// A member's write-ahead log is damaged where it is only read at a start, and the
// member killed. The damaged data is kept, and the receipt's command puts it back.
func TestLabEtcdLogDamaged(t *testing.T) {
	c := startEtcd(t, etcdOptions{})
	h := c.follower()
	ids := c.identities()
	c.load.waitMore(100)
	c.Write(h, "/srv/damage.py", damage)
	at := c.Shell(h, "python3 /srv/damage.py $(ls "+c.data+"/member/wal/*.wal | tail -1); systemctl kill -s KILL "+etcdUnit)
	in := c.WaitFor(dataDamaged, c.member(h), fettle.Resolved)
	c.CheckMended(in, "replace", replaced...)
	c.checkIdentities(ids, h)
	c.checkWhole()

	r := c.aside(in)
	bytes := func(dir string) string {
		return c.Shell(h, fmt.Sprintf("tail -c +%s $(ls %s/wal/*.wal | head -1) | head -c 65 | sha256sum", at, dir))
	}
	damaged := bytes(r.Where)
	c.Shell(h, fmt.Sprintf("systemctl stop %s; mv %s/member /srv/new; %s", etcdUnit, c.data, r.Back))
	if bytes(c.data+"/member") != damaged {
		t.Errorf("what was put back is not what was set aside")
	}
	if c.Try(h, "test -e "+r.Where) {
		t.Errorf("%s is still there", r.Where)
	}
	// It is damaged again, and not replaced again: its owner stopped the service.
	c.CheckUntouched(c.WaitIncident("the damage to be reported and left alone", func(x fettle.Incident) bool {
		return x.ID != in.ID && x.Cause == in.Cause && x.State == fettle.Held && strings.Contains(x.Why, "on purpose")
	}))
}

// aside is the receipt of the member's data that was set aside.
func (c *etcdCluster) aside(in fettle.Incident) fettle.Receipt {
	c.t.Helper()
	i := slices.IndexFunc(in.Receipts, func(r fettle.Receipt) bool { return r.What == c.data+"/member" && r.Where != "" && r.Back != "" })
	if i < 0 {
		c.t.Fatalf("no receipt says where %s/member is: %+v", c.data, in.Receipts)
	}
	return in.Receipts[i]
}

// flip changes four bytes inside a value, wherever the database has it: pages
// that were freed may hold it too.
const flip = `import sys
path, value = sys.argv[1], sys.argv[2].encode()
with open(path, "r+b") as f:
    data = f.read()
    at, n = data.find(value), 0
    while at >= 0:
        f.seek(at + 8)
        f.write(bytes(b ^ 0x15 for b in data[at + 8:at + 12]))
        n += 1
        at = data.find(value, at + 1)
print(n)
`

// Four bytes inside a value of one member's database are changed. Nothing but a
// comparison of hashes shows it.
func TestLabEtcdValueFlipped(t *testing.T) {
	c := startEtcd(t, etcdOptions{})
	h := c.follower()
	ids := c.identities()
	const key = "flipped/key"
	value := "the value of which four bytes are changed " + strings.Repeat("z", 64)
	if _, err := ask(c, c.leader(), func(ctx context.Context, cl *clientv3.Client) (*clientv3.PutResponse, error) {
		return cl.Put(ctx, key, value)
	}); err != nil {
		t.Fatal(err)
	}
	c.load.waitMore(100) // it is in the database, and not only in the log
	c.Write(h, "/srv/flip.py", flip)
	if n := c.Shell(h, fmt.Sprintf("systemctl stop %s; python3 /srv/flip.py %s/member/snap/db '%s'; systemctl start %s", etcdUnit, c.data, value, etcdUnit)); n == "0" {
		t.Fatal("the value is not in the database")
	}
	read := func(h *lab.Host) string {
		r, err := ask(c, h, func(ctx context.Context, cl *clientv3.Client) (*clientv3.GetResponse, error) {
			return cl.Get(ctx, key, clientv3.WithSerializable())
		})
		if err != nil || len(r.Kvs) != 1 {
			t.Fatalf("%s: read %s: %v", h.Name(), key, err)
		}
		return string(r.Kvs[0].Value)
	}
	if read(h) == value {
		t.Fatal("the member still has the value as it was")
	}
	// Everything else calls it healthy.
	if state := c.Property(h, etcdUnit, "ActiveState"); state != "active" {
		t.Errorf("its unit is %s", state)
	}
	if out, err := h.Shell(t.Context(), "ETCDCTL_API=3 etcdctl --endpoints="+clientURL(h)+" endpoint health 2>&1"); err != nil || !strings.Contains(out, "is healthy") {
		t.Errorf("endpoint health: %v: %s", err, out)
	}
	if !c.healthy(h) {
		t.Error("its /health is not true")
	}
	in := c.WaitFor(hashDiffers, c.member(h), fettle.Resolved)
	c.CheckMended(in, "replace", replaced[0], "stop", "remove", "aside", "add", "configure", "start", "promote", "settle")
	c.aside(in)
	for _, h := range c.Hosts() {
		if got := read(h); got != value {
			t.Errorf("%s: the value is %q", h.Name(), got)
		}
	}
	c.checkIdentities(ids, h)
	c.checkWhole()
}
