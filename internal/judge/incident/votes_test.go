package incident_test

import (
	"testing"

	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
)

// clusterOf is what one host sees of three etcd members: who of them serves.
func clusterOf(host fettle.Subject, serving ...fettle.Tri) fettle.Observation {
	const group = fettle.Subject("etcd:sys")
	o := fettle.Observation{Subject: group, Host: host, Probe: "etcd.cluster", Asked: start, Facts: fettle.Facts{"has_leader": true, "leader": "a", "revision": int64(500)}, Quorum: &fettle.QuorumGroup{}}
	for i, name := range []string{"a", "b", "c"} {
		member := fettle.NewSubject("etcd-member", "sys", name)
		o.Quorum.Members = append(o.Quorum.Members, fettle.QuorumMember{Subject: member, ID: name + "1", Voter: true, Serving: serving[i], Leader: name == "a"})
		o.Edges = append(o.Edges, fettle.Edge{From: member, Rel: fettle.PartOf, To: group})
	}
	return o
}

// A plan that would stop one of the last two members that serve is not begun,
// although two of three observers, who looked before the other went down and are
// away since, say that three serve (S2).
func TestVotesOfThoseWhoLookedEarlierDoNotCount(t *testing.T) {
	const member = fettle.Subject("etcd-member:sys/c")
	damaged := fettle.Observation{
		Subject: member, Host: "host:h3", Probe: "etcd.local", Asked: start,
		Facts: fettle.Facts{
			"unit_active": true, "unit_state": "active", "log_state": "damaged", "log_lost": false, "damage": "checksum 1, want 2", "standing": "voter",
			"data_present": true, "data_dir": "/var/lib/etcd", "data_bytes": int64(1), "data_filesystem": "/", "configured_state": "new",
		},
		Edges: []fettle.Edge{{From: member, Rel: fettle.PartOf, To: "etcd:sys"}, {From: member, Rel: fettle.RunsOn, To: "host:h3"}, {From: member, Rel: fettle.Uses, To: "unit:h3/etcd.service"}},
	}
	here := fettle.Observation{Subject: member, Host: "host:h3", Probe: "etcd.member", Asked: start, Facts: fettle.Facts{"answers": true, "listed": true, "member_id": "c1", "learner": false, "leader": false, "health": true}}
	for _, c := range []struct {
		name string
		b    fettle.Tri // serves, says the one who looked since
		want bool
	}{{"the third serves", fettle.Yes, true}, {"the third went down", fettle.No, false}} {
		t.Run(c.name, func(t *testing.T) {
			now := clusterOf("host:h3", fettle.Yes, c.b, fettle.Yes)
			d := newDoing(t, damaged, here, now)
			before := []fettle.Observation{clusterOf("host:h1", fettle.Yes, fettle.Yes, fettle.Yes), clusterOf("host:h2", fettle.Yes, fettle.Yes, fettle.Yes)}
			for i := range before {
				before[i].Asked = start.Add(-30e9)
			}
			d.take(0, incident.Input{Observations: append(before, damaged, here, now)})
			if got := len(d.intents) > 0; got != c.want {
				t.Errorf("begun: %v, want %v: %+v%s", got, c.want, d.intents, d.story(d.only()))
			}
		})
	}
}
