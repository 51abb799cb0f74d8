//go:build lab

package spine_test

import (
	"slices"
	"testing"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

// The network is cut, between Fettle's server and two of three members, or
// between everybody and one: under a policy that lets Fettle do anything. Those on
// the other side are well, and who cannot be reached is neither dead nor lost.
// Nothing is touched, and when the network is back it is over by itself.
func TestLabEtcdPartitioned(t *testing.T) {
	for name, alone := range map[string]int{"server": 1, "member": 3} {
		t.Run(name, func(t *testing.T) {
			c := startEtcd(t, etcdOptions{})
			ids, before := c.identities(), c.Snapshot()
			var others []*lab.Host
			for _, h := range c.Hosts() {
				if h != c.Host(alone) {
					others = append(others, h)
				}
			}
			if err := c.Partition(t.Context(), []*lab.Host{c.Host(alone)}, others); err != nil {
				t.Fatal(err)
			}
			// Seen, and thought through: what it comes to is held, or put to a person.
			c.WaitIncident("the cut to be seen", func(in fettle.Incident) bool {
				return slices.Contains([]fettle.IncidentState{fettle.Held, fettle.Escalated, fettle.Proposed}, in.State)
			})
			other := goOn(c.Fleet, c.Host(1), "other.service")
			if err := c.Heal(t.Context()); err != nil {
				t.Fatal(err)
			}
			spine.Until(t, "every incident to end", func() bool {
				return !slices.ContainsFunc(c.Incidents(), func(in fettle.Incident) bool { return !in.State.Ended() && in.Cause.Code != slowDisk })
			})
			for _, in := range c.Incidents() {
				t.Logf("%s: %s (%s)", in.Cause, in.State, in.Why)
				if in.Cause != other {
					c.CheckUntouched(in)
				}
			}
			c.CheckUnchanged(before, "h1 other.service")
			for _, h := range c.Hosts() {
				c.CheckStarts(h, etcdUnit, 1)
			}
			c.checkIdentities(ids)
			c.checkWhole()
		})
	}
}
