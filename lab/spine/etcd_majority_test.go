//go:build lab

package spine_test

import (
	"testing"

	"fettle/internal/fettle"
	"fettle/lab"
)

// Two of three lose their data at the same time. What they had agreed on cannot
// be told from the third alone: nothing is touched, and a person is asked, who is
// told what would be lost.
func TestLabEtcdMajorityLost(t *testing.T) {
	c := startEtcd(t, etcdOptions{})
	survivor := c.leader()
	var lost []*lab.Host
	for _, h := range c.Hosts() {
		if h != survivor {
			lost = append(lost, h)
		}
	}
	kept := func() string {
		all := ""
		for _, h := range c.Hosts() {
			all += h.Name() + "\n" + c.Shell(h, "sha256sum "+etcdEnv+"; ls -lA --full-time "+c.data+" /var/lib/etcd 2>&1 || true; cd "+c.data+" 2>/dev/null && find . -type f | sort || true") + "\n"
		}
		return all
	}
	// Frozen, so that it is both at once that Fettle has to do with: hosts are not
	// killed within the milliseconds in which it begins to mend a first one.
	c.fettle("freeze", "--why", "both are to be lost at once")
	c.wipe(lost...)
	before := kept()
	c.WaitFor(majorityLost, c.cluster(), fettle.Open, fettle.Held, fettle.Proposed)
	c.fettle("thaw")
	in := c.WaitFor(majorityLost, c.cluster(), fettle.Proposed)
	if in.Plan == nil || in.Plan.Rung != "restore" || in.Plan.Loses == "" {
		t.Fatalf("the plan is %+v, want restore, with what it loses", in.Plan)
	}
	t.Logf("what would be lost: %s", in.Plan.Loses)
	other := goOn(c.Fleet, survivor, "other.service")
	for _, x := range c.Incidents() {
		if x.Cause != other {
			c.CheckUntouched(c.Incident(x.ID))
		}
	}
	if after := kept(); after != before {
		t.Errorf("it was\n%s\nand is\n%s", before, after)
	}

	// A person, who has read what it loses, approves it. Here the survivor led, so
	// that no acknowledged write is lost.
	c.Approve(in.ID)
	restored := c.WaitIncident("the cluster to be made anew", func(x fettle.Incident) bool { return x.ID == in.ID && x.State.Ended() })
	c.CheckMended(restored, "restore", "restore")
	for _, h := range lost {
		c.WaitFor(dataLost, c.member(h), fettle.Resolved)
	}
	c.checkWhole()
}
