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
			all += h.Name() + "\n" + c.Shell(h, "sha256sum "+etcdEnv+"; ls -A "+c.data+" /var/lib/etcd") + "\n"
		}
		return all
	}
	c.wipe(lost...)
	before := kept()
	in := c.WaitFor(majorityLost, c.cluster(), fettle.Proposed)
	if in.Plan == nil || in.Plan.Rung != "restore" || in.Plan.Loses == "" {
		t.Fatalf("the plan is %+v, want restore, with what it loses", in.Plan)
	}
	t.Logf("what would be lost: %s", in.Plan.Loses)
	goOn(c.Fleet, c.Host(1), "other.service")
	for _, x := range c.Incidents() {
		if x.Cause.Subject != c.Unit(c.Host(1), "other.service") {
			c.CheckUntouched(c.Incident(x.ID))
		}
	}
	if after := kept(); after != before {
		t.Errorf("it was\n%s\nand is\n%s", before, after)
	}
}
