package incident_test

import (
	"slices"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
)

// askedFor tells a mind what is seen, answers its looks, and returns them, and
// whether it came to a step.
func askedFor(t *testing.T, sees []fettle.Observation) (looks []fettle.Look, intended bool) {
	t.Helper()
	m := newLone(t, fettle.Automatic)
	take := func(in incident.Input) []incident.Decision {
		in.At = start
		return m.Take(in)
	}
	for decisions := take(incident.Input{Observations: sees}); len(decisions) > 0; {
		d := decisions[0]
		decisions = decisions[1:]
		switch d.Kind {
		case incident.Gather:
			looks = append(looks, d.Looks...)
			var fresh []fettle.Observation // of what was asked, no more
			for _, o := range sees {
				if slices.ContainsFunc(d.Looks, func(l fettle.Look) bool { return l.Subject == o.Subject && l.Probe == o.Probe }) {
					o.Asked = start
					fresh = append(fresh, o)
				}
			}
			decisions = append(decisions, take(incident.Input{Observations: fresh, Gathered: d.Key})...)
		case incident.Intend:
			intended = true
		case incident.Save, incident.Look, incident.Recover, incident.Call:
		}
	}
	return looks, intended
}

// What several observers are counted for is asked of all of them again as soon as
// one has not looked since the trouble began: those who looked before would outvote
// the one who looked since. Where one alone sees it, and has looked, nobody is
// asked again.
func TestOneFreshAnswerAmongOldIsNotEnough(t *testing.T) {
	const group, member = fettle.Subject("etcd:sys"), fettle.Subject("etcd-member:sys/a")
	view := fettle.Look{Subject: group, Probe: "etcd.cluster"}
	for _, c := range []struct {
		name  string
		asked map[fettle.Subject]time.Duration // of the group, by its observers, since the trouble began
		again bool
	}{
		{"one, and it looked", map[fettle.Subject]time.Duration{"host:h1": 0}, false},
		{"all looked", map[fettle.Subject]time.Duration{"host:h1": 0, "host:h2": 0, "host:h3": 0}, false},
		{"one looked, two did before", map[fettle.Subject]time.Duration{"host:h1": 0, "host:h2": -time.Second, "host:h3": -time.Second}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			sees := failedUnit()
			for i := range sees {
				sees[i].Asked = start
			}
			for _, host := range []fettle.Subject{"host:h1", "host:h2", "host:h3"} {
				after, looks := c.asked[host]
				if !looks {
					continue
				}
				sees = append(sees, fettle.Observation{
					Subject: group, Host: host, Probe: view.Probe, Asked: start.Add(after), Facts: fettle.Facts{"reachable": int64(1)},
					Quorum: &fettle.QuorumGroup{Members: []fettle.QuorumMember{{Subject: member, Voter: true, Serving: fettle.Yes}}},
					Edges:  []fettle.Edge{{From: member, Rel: fettle.PartOf, To: group}, {From: member, Rel: fettle.Uses, To: sees[0].Subject}},
				})
			}
			looks, intended := askedFor(t, sees)
			if got := slices.Contains(looks, view); got != c.again {
				t.Errorf("asked again: %v, want %v (asked: %v)", got, c.again, looks)
			}
			if !intended {
				t.Error("nothing was intended: the step never came so far")
			}
		})
	}
}
