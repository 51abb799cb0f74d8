//go:build lab

package spine_test

import (
	"testing"

	"fettle/internal/fettle"
	"fettle/lab"
)

const (
	memberDown   fettle.Code = "etcd.member_down"
	dataLost     fettle.Code = "etcd.data_lost"
	dataDamaged  fettle.Code = "etcd.data_damaged"
	hashDiffers  fettle.Code = "etcd.hash_differs"
	noSpace      fettle.Code = "etcd.nospace"
	quotaNear    fettle.Code = "etcd.quota_near"
	majorityLost fettle.Code = "etcd.majority_lost"
)

// A member is killed, and its service with it: its data is whole, so it is
// started. Once by its service, which failed; once by the member itself, whose
// service ended as if somebody had wanted it to.
func TestLabEtcdKilled(t *testing.T) {
	c := startEtcd(t, etcdOptions{})
	h := c.Host(2)
	before, ids := c.Snapshot(), c.identities()
	c.Shell(h, "systemctl kill -s KILL "+etcdUnit)
	in := c.WaitFor(failed, c.Unit(h, etcdUnit), fettle.Resolved)
	c.CheckMended(in, "start", "start")
	c.CheckStarts(h, etcdUnit, 2) // mine and the repair's
	c.CheckUnchanged(before, "h2 "+etcdUnit)
	c.CheckOnly(in.Cause)

	// Ended by SIGTERM its service is content: only the member tells.
	h = c.Host(3)
	before = c.Snapshot()
	c.Shell(h, "systemctl kill -s TERM "+etcdUnit)
	ended := c.WaitFor(memberDown, c.member(h), fettle.Resolved)
	c.CheckMended(ended, "start", "start")
	c.CheckStarts(h, etcdUnit, 2)
	c.CheckUnchanged(before, "h3 "+etcdUnit)
	c.CheckOnly(in.Cause, ended.Cause)
	c.checkIdentities(ids)
	c.checkWhole()
}

// A member's data directory is gone. It comes back under a new identity, and
// never under the old one.
func TestLabEtcdDataWiped(t *testing.T) {
	c := startEtcd(t, etcdOptions{})
	h := c.follower()
	ids := c.identities()
	c.wipe(h)
	in := c.WaitFor(dataLost, c.member(h), fettle.Resolved)
	c.CheckMended(in, "replace", "snapshot", "remove", "add", "configure", "start", "promote", "settle")
	c.checkIdentities(ids, h)
	c.checkWhole()
}

// wipe takes the data from under running members and ends them, all at once. The
// data is moved away, as far as nobody finds it by chance. What runs without its data is
// another fault, which would be seen if the one came long before the other.
func (c *etcdCluster) wipe(hosts ...*lab.Host) {
	c.t.Helper()
	move, end := "mv "+c.data+" /srv/lost", "kill -KILL $pid"
	find := "pid=$(systemctl show -P MainPID " + etcdUnit + ")"
	if len(hosts) == 1 {
		c.each(hosts, find+" && "+move+" && "+end)
		return
	}
	c.each(hosts, move)
	c.each(hosts, find+" && "+end)
}
