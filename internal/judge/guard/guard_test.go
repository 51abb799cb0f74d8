package guard

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/world"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const (
	group = fettle.Subject("db:main")
	host  = fettle.Subject("host:h1")
)

func memberOf(n int) fettle.Subject {
	return fettle.NewSubject("db-member", "main", fmt.Sprint("m", n))
}
func unitOf(n int) fettle.Subject {
	return fettle.NewSubject(fettle.KindUnit, fmt.Sprint("h", n), "db.service")
}

// threeMembers is a quorum group of three, each on its own host and unit; the
// states are those of its members, in order.
func threeMembers(age time.Duration, members ...fettle.QuorumMember) *world.World {
	w := world.New()
	q := fettle.QuorumGroup{}
	for i, m := range members {
		m.Subject = memberOf(i + 1)
		m.ID = fmt.Sprint("id", i+1)
		q.Members = append(q.Members, m)
		h := fettle.HostSubject(fmt.Sprint("h", i+1))
		w.Observe(fettle.Observation{
			Subject: m.Subject, Host: h, Probe: "db.local", Asked: now.Add(-age),
			Facts: fettle.Facts{"generation": int64(7), "member_id": m.ID},
			Edges: []fettle.Edge{
				{From: m.Subject, Rel: fettle.PartOf, To: group}, {From: m.Subject, Rel: fettle.RunsOn, To: h},
				{From: m.Subject, Rel: fettle.Uses, To: unitOf(i + 1)}, {From: m.Subject, Rel: fettle.In, To: "rack:a"},
			},
		})
		w.Observe(fettle.Observation{Subject: unitOf(i + 1), Host: h, Probe: "systemd.unit", Asked: now.Add(-age), Facts: fettle.Facts{"active_state": "active"}})
		w.Observe(fettle.Observation{Subject: h, Host: h, Probe: "host", Asked: now.Add(-age), Facts: fettle.Facts{"boot_id": "boot-b"}})
	}
	w.Observe(fettle.Observation{Subject: group, Host: host, Probe: "db.group", Asked: now.Add(-age), Facts: fettle.Facts{}, Quorum: &q})
	return w
}

var (
	up    = fettle.QuorumMember{Voter: true, Serving: fettle.Yes, LogLost: fettle.No}
	down  = fettle.QuorumMember{Voter: true, Serving: fettle.No, LogLost: fettle.No}
	lost  = fettle.QuorumMember{Voter: true, Serving: fettle.No, LogLost: fettle.Yes}
	blind = fettle.QuorumMember{Voter: true, Serving: fettle.No, LogLost: fettle.Unknown}
)

// permitted is a step that every guard allows: stopping one of three serving
// members, reversibly, automatically, on fresh facts.
func permitted() Question {
	return on(threeMembers(time.Second, up, up, up))
}

func on(w *world.World) Question {
	step := fettle.Step{
		ID: "stop", Action: "db.stop", Version: 1, Target: memberOf(1), Host: host, Group: group,
		Fresh: 2 * time.Second, Undo: true, Risk: fettle.LowRisk,
		Takes:    []fettle.Taking{fettle.TakesVotes},
		Claims:   []fettle.Claim{{What: fettle.TakesVotes, Of: group, Member: memberOf(1)}},
		Effects:  []fettle.EffectSpec{{Quorum: fettle.QuorumStop}},
		Requires: []string{"true"},
	}
	q := Question{
		Plan: fettle.Plan{Hash: "plan-hash", Cause: fettle.ConditionKey{Code: "db.x", Subject: memberOf(1)}, Steps: []fettle.Step{step}},
		Step: step, View: w, Now: now, Level: fettle.Automatic, Leader: true,
		Requires: []Answer{{Says: fettle.Yes}},
		Policy:   fettle.Policy{Budgets: []fettle.Budget{{Kind: "db-member", Pool: ">in", MaxNumber: 1, MaxPermille: 340, Floor: 1, MinStay: 2}}},
		Ill:      func(fettle.Subject) bool { return false },
		Stopped:  func(fettle.Subject) (fettle.ConditionKey, bool) { return fettle.ConditionKey{}, false },
		Action:   &fettle.ActionSpec{Name: "db.stop", Version: 1, Takes: []fettle.Taking{fettle.TakesVotes}, Undo: true},
	}
	q.predict(fettle.No)
	return q
}

// predict sets what becomes of the target's vote.
func (q *Question) predict(serving fettle.Tri) {
	g, ok := q.View.Quorum(group, time.Time{})
	if !ok {
		q.Predicted = nil
		return
	}
	for i := range g.Members {
		if g.Members[i].Subject == q.Step.Target {
			g.Members[i].Serving = serving
		}
	}
	q.Predicted = &g
}

// starting makes the step start member 1.
func starting(w *world.World) Question {
	q := on(w)
	q.Step.Takes, q.Step.Claims = nil, nil
	q.Action = &fettle.ActionSpec{Name: "db.start", Version: 1, Undo: true}
	q.Step.Action = q.Action.Name
	q.Step.Effects = []fettle.EffectSpec{{Quorum: fettle.QuorumStart}}
	q.predict(fettle.Yes)
	return q
}

// cutOff is a question of an agent that is cut off and has a permit for everything.
func cutOff(q Question) Question {
	q.Permit = &fettle.Permit{Serial: "p1", Host: host, Until: now.Add(time.Hour), Grants: []fettle.Grant{{Action: "*", Subject: "*"}}}
	q.Action.Scope, q.Action.Risk = fettle.HostScope, fettle.LowRisk
	return q
}

// gift is one that every guard allows: it starts member 1, alone.
func gift() Question { return cutOff(starting(threeMembers(time.Second, down, up, up))) }

// onUnit makes the step work on the unit of member 1 and say nothing of votes.
func onUnit(w *world.World, takes ...fettle.Taking) Question {
	q := on(w)
	q.Step.Target, q.Step.Group, q.Predicted = unitOf(1), "", nil
	q.Step.Effects, q.Step.Takes = []fettle.EffectSpec{{Fact: "active_state", To: `"active"`}}, takes
	q.Step.Claims = nil
	for _, t := range takes {
		q.Step.Claims = append(q.Step.Claims, fettle.Claim{What: t, Of: unitOf(1), Member: unitOf(1)})
	}
	q.Action = &fettle.ActionSpec{Name: "systemd.x", Version: 1, Takes: takes, Undo: true}
	return q
}

// untold is a world in which the unit was looked at just now, and its group long ago.
func untold(members ...fettle.QuorumMember) *world.World {
	w := threeMembers(time.Minute, members...)
	w.Observe(fettle.Observation{Subject: unitOf(1), Host: host, Probe: "systemd.unit", Asked: now.Add(-time.Second), Facts: fettle.Facts{"active_state": "active"}})
	return w
}

// nameGroup has the group called by a name that it gave itself.
func nameGroup(w *world.World, id string) {
	g, _ := w.Quorum(group, time.Time{})
	g.ID = id
	w.Observe(fettle.Observation{Subject: group, Host: host, Probe: "db.group", Asked: now.Add(-time.Second), Facts: fettle.Facts{}, Quorum: &g})
}

// storeIn has a server say, long ago, that its store is in a group of that name, and the
// group be called by another.
func storeIn(w *world.World, said, id string) *world.World {
	w.Observe(fettle.Observation{Subject: "fettle-server:s", Host: "fettle-server:s", Probe: "fettle.store", Asked: now.Add(-week),
		Facts: fettle.StoreGroup{Kind: "db", ID: said}.Facts()})
	nameGroup(w, id)
	return w
}

const week = 7 * 24 * time.Hour

// attempts to get round each guard. Each is a question that must be refused, by
// that guard and by no other, so that the attempt succeeds when the guard is
// stubbed.
var attempts = []struct {
	guard, name string
	question    func() Question
}{
	{"leader", "a server that lost the lead goes on", func() Question { q := permitted(); q.Leader = false; return q }},
	{"permit", "cut off, what takes a vote is done", func() Question { return cutOff(permitted()) }},
	{"permit", "cut off, what is not granted is done", func() Question {
		q := gift()
		q.Permit.Grants[0].Subject = "db-member:main/m2"
		return q
	}},
	{"permit", "cut off, a permit that has ended is used", func() Question {
		q := gift()
		q.Permit.Until = now
		return q
	}},
	{"permit", "cut off, what was done is taken back", func() Question {
		q := gift()
		q.Undo = true
		return q
	}},
	{"permit", "cut off, something acts beyond its host", func() Question {
		q := gift()
		q.Action.Scope = fettle.ClusterScope
		return q
	}},
	{"freeze", "a new plan begins while frozen", func() Question {
		q := permitted()
		q.Freeze = &Freeze{By: "anna", Since: now.Add(-time.Minute)}
		return q
	}},
	{"freeze", "a plan goes on past its safe point while frozen", func() Question {
		q := permitted()
		q.Freeze, q.Begun = &Freeze{By: "anna"}, true
		q.Plan.Steps = []fettle.Step{{ID: "first", SafePoint: true}, q.Step}
		return q
	}},
	{"maintenance", "a plan begins on a host on which people work", func() Question {
		q := permitted()
		q.Windows = []Window{{ID: "m-1", By: "anna", Hosts: []fettle.Subject{host}, From: now.Add(-time.Minute), Until: now.Add(time.Second)}}
		return q
	}},
	{"maintenance", "a plan begins on a host on which people work once more this week", func() Question {
		q := permitted()
		q.Windows = []Window{{ID: "m-1", By: "anna", All: true, From: now.Add(-3*week - time.Minute), Until: now.Add(-3*week + time.Minute), Every: week}}
		return q
	}},
	{"maintenance", "a unit is stopped from another host", func() Question {
		q := permitted()
		q.Windows = []Window{{ID: "m-1", By: "anna", Hosts: []fettle.Subject{host}, From: now.Add(-time.Minute)}}
		q.Step.Host = fettle.HostSubject("h2")
		return q
	}},
	{"maintenance", "a plan goes on past its safe point where people work", func() Question {
		q := permitted()
		q.Windows, q.Begun = []Window{{ID: "m-1", By: "anna", All: true, From: now.Add(-time.Minute)}}, true
		q.Plan.Steps = []fettle.Step{{ID: "first", SafePoint: true}, q.Step}
		return q
	}},
	{"quorum", "a member is stopped while people work on another one's host", func() Question {
		q := permitted()
		o := world.Over(q.View)
		o.Claim(Withdrawn([]Window{{ID: "m-1", By: "anna", Hosts: []fettle.Subject{fettle.HostSubject("h2")}, From: now.Add(-time.Minute)}}, now)...)
		q.View = o
		return q
	}},
	{"person", "a unit that a person stopped is started", func() Question {
		q := permitted()
		q.Stopped = func(fettle.Subject) (fettle.ConditionKey, bool) {
			return fettle.ConditionKey{Code: "systemd.unit_stopped", Subject: unitOf(1)}, true
		}
		return q
	}},
	{"catalogued", "an action in another version than planned", func() Question { q := permitted(); q.Step.Version = 2; return q }},
	{"catalogued", "a step hides what its action takes", func() Question {
		q := permitted()
		q.Action = &fettle.ActionSpec{Name: "db.stop", Version: 1, Takes: []fettle.Taking{fettle.TakesVotes, fettle.TakesHistory}, Undo: true}
		return q
	}},
	{"settled", "a step on a host whose agent has just started and still looks", func() Question {
		w := threeMembers(time.Second, up, up, up)
		w.Observe(fettle.Observation{Subject: host, Host: "fettle-server:s", Probe: "fettle.agent", Asked: now, Facts: fettle.Facts{"connected": true, "settled": false}})
		return on(w)
	}},
	{"freshness", "a step that does not say how fresh", func() Question {
		q := permitted()
		q.Step.Fresh = 0
		q.Step.Takes, q.Step.Effects, q.Step.Claims = nil, nil, nil
		q.Action = &fettle.ActionSpec{Version: 1}
		return q
	}},
	{"freshness", "a look that nobody answered", func() Question {
		q := permitted()
		q.Step.Looks = []fettle.Look{{Subject: memberOf(2), Probe: "db.remote"}}
		return q
	}},
	{"freshness", "a look that the observer was not allowed to make", func() Question {
		w := threeMembers(time.Second, up, up, up)
		w.Observe(fettle.Observation{Subject: memberOf(2), Host: host, Probe: "db.remote", Asked: now, Reason: fettle.PermissionDenied})
		q := on(w)
		q.Step.Looks = []fettle.Look{{Subject: memberOf(2), Probe: "db.remote"}}
		return q
	}},
	{"freshness", "facts from before the trouble began", func() Question {
		q := permitted()
		q.Step.Takes, q.Step.Effects, q.Step.Claims = nil, nil, nil
		q.Action = &fettle.ActionSpec{Version: 1}
		q.Onset = now.Add(-time.Millisecond) // the facts are a second old
		return q
	}},
	{"identity", "what was known of a log before the trouble began", func() Question {
		w := threeMembers(time.Second, up, up, up) // one second ago all was well
		q := starting(w)
		q.Onset = now.Add(-time.Millisecond)
		w.Observe(fettle.Observation{Subject: memberOf(1), Host: host, Probe: "db.local", Asked: now, Facts: fettle.Facts{"generation": int64(7)}})
		g, _ := w.Quorum(group, time.Time{})
		g.Members[0].LogLost, g.Members[0].Serving = fettle.Unknown, fettle.No
		w.Observe(fettle.Observation{Subject: group, Host: host, Probe: "db.group", Asked: now, Facts: fettle.Facts{}, Quorum: &g})
		return q
	}},
	{"preconditions", "a precondition that does not hold", func() Question { q := permitted(); q.Requires[0].Says = fettle.No; return q }},
	{"preconditions", "a precondition that is not known", func() Question { q := permitted(); q.Requires[0].Says = fettle.Unknown; return q }},
	{"preconditions", "preconditions that were not asked", func() Question { q := permitted(); q.Requires = nil; return q }},
	{"generations", "the thing was replaced since the plan was made", func() Question {
		q := permitted()
		q.Step.Generations = []fettle.Generation{{Subject: memberOf(1), Fact: "generation", Value: int64(6)}}
		return q
	}},
	{"generations", "the pinned fact is not known any more", func() Question {
		q := permitted()
		q.Step.Generations = []fettle.Generation{{Subject: memberOf(1), Fact: "gone", Value: int64(6)}}
		return q
	}},
	{"own-store", "a member of the group that holds the servers' store is stopped", func() Question {
		return on(storeIn(threeMembers(time.Second, up, up, up), "g1", "g1"))
	}},
	{"own-store", "one that only half of those who look know for it", func() Question {
		w := storeIn(threeMembers(time.Second, up, up, up), "g1", "g1")
		g, _ := w.Quorum(group, time.Time{})
		g.ID = "g2"
		w.Observe(fettle.Observation{Subject: group, Host: "host:h2", Probe: "db.group", Asked: now.Add(-time.Second), Facts: fettle.Facts{}, Quorum: &g})
		return on(w)
	}},
	{"own-store", "a member of a group of that kind whose name nobody knows is started", func() Question {
		return starting(storeIn(threeMembers(time.Second, down, up, up), "g1", ""))
	}},
	{"own-store", "any of the kind is mended while the servers do not know the name of theirs", func() Question {
		return starting(storeIn(threeMembers(time.Second, down, up, up), "", "g1"))
	}},
	{"own-store", "its unit is started, and nothing is said of the group", func() Question {
		return onUnit(storeIn(threeMembers(time.Second, down, up, up), "g1", "g1"))
	}},
	{"own-store", "what was done to it is taken back", func() Question {
		q := on(storeIn(threeMembers(time.Second, up, up, up), "g1", "g1"))
		q.Undo = true
		return q
	}},
	{"own-store", "it is started under a permit, by a host that reaches no server", func() Question {
		w := threeMembers(time.Second, down, up, up)
		nameGroup(w, "g1")
		q := cutOff(starting(w))
		q.Permit.Store = &fettle.StoreGroup{Kind: "db", ID: "g1"}
		return q
	}},
	{"own-store", "a person approved what is done to it", func() Question {
		q := on(storeIn(threeMembers(time.Second, up, up, up), "g1", "g1"))
		q.Approval = &Approval{Plan: q.Plan.Hash, By: "anna", Until: now.Add(time.Hour)}
		return q
	}},
	{"quorum", "the second of three is stopped", func() Question {
		q := on(threeMembers(time.Second, up, up, down))
		q.Policy.Budgets = nil
		return q
	}},
	{"quorum", "a vote of an unknown member is counted on", func() Question {
		q := on(threeMembers(time.Second, up, up, blind))
		q.Policy.Budgets = nil
		return q
	}},
	{"quorum", "a learner is counted on", func() Question {
		return on(threeMembers(time.Second, up, up, fettle.QuorumMember{Serving: fettle.Yes, LogLost: fettle.No}))
	}},
	{"quorum", "another step in flight holds a vote already", func() Question {
		w := threeMembers(time.Second, up, up, up)
		w.Hold("other", []fettle.Claim{{What: fettle.TakesVotes, Of: group, Member: memberOf(2)}})
		q := on(w)
		q.Policy.Budgets = nil
		return q
	}},
	{"quorum", "the start of one of the two that serve is taken back", func() Question {
		q := starting(threeMembers(time.Second, up, up, down))
		q.Undo = true
		return q
	}},
	{"quorum", "a voter is stopped of which half of those who look say that it serves", func() Question {
		q := on(threeMembers(time.Second, fettle.QuorumMember{Voter: true, Serving: fettle.Unknown, LogLost: fettle.No}, up, down))
		q.Policy.Budgets = nil
		return q
	}},
	{"quorum", "a voter is stopped of which the fewer of those who look, behind a cut link, say that it serves", func() Question {
		w := threeMembers(time.Second, down, up, down)
		most, _ := w.Quorum(group, time.Time{})
		few := most.Clone()
		few.Members[0].Serving = fettle.Yes
		for h, g := range map[fettle.Subject]*fettle.QuorumGroup{"host:h2": &most, "host:h3": &few} {
			w.Observe(fettle.Observation{Subject: group, Host: h, Probe: "db.group", Asked: now.Add(-time.Second), Facts: fettle.Facts{}, Quorum: g})
		}
		q := on(w)
		q.Policy.Budgets = nil
		return q
	}},
	{"quorum", "another step in flight restarts the unit of a voter, which says nothing of its vote", func() Question {
		w := threeMembers(time.Second, up, up, up)
		w.Hold("other", []fettle.Claim{{What: fettle.TakesCapacity, Of: unitOf(2), Member: unitOf(2)}})
		q := on(w)
		q.Policy.Budgets = nil
		return q
	}},
	{"quorum", "the membership is changed without a quorum", func() Question {
		q := on(threeMembers(time.Second, lost, up, lost))
		g := *q.Predicted
		g.Members = g.Members[1:]
		q.Predicted = &g
		q.Step.Effects = []fettle.EffectSpec{{Quorum: fettle.QuorumRemove}}
		q.Policy.Budgets = nil
		return q
	}},
	{"quorum", "what becomes of the votes is not predicted", func() Question { q := permitted(); q.Predicted = nil; return q }},
	{"quorum", "votes without a group", func() Question {
		q := permitted()
		q.Step.Group = ""
		return q
	}},
	{"identity", "a voter that lost its log is started under its old identity", func() Question {
		return startingNamed(lost)
	}},
	{"identity", "a voter is started whose log nobody looked at", func() Question { return startingNamed(blind) }},
	{"implied-quorum", "the unit of a voter is restarted, saying nothing of the vote", func() Question {
		return onUnit(threeMembers(time.Second, up, up, down), fettle.TakesCapacity)
	}},
	{"implied-identity", "the unit of a voter with a lost log is started", func() Question {
		return onUnit(threeMembers(time.Second, lost, up, up))
	}},
	{"implied-identity", "the unit of a voter is started whose log nobody looked at", func() Question {
		return onUnit(threeMembers(time.Second, blind, up, up))
	}},
	{"identity", "the stop of a voter is taken back that has lost its log meanwhile", func() Question {
		q := on(threeMembers(time.Second, lost, up, up))
		q.Undo, q.Policy.Budgets = true, nil
		return q
	}},
	{"implied-identity", "the stop of a voter's unit is taken back that has lost its log meanwhile", func() Question {
		q := onUnit(threeMembers(time.Second, lost, up, up), fettle.TakesCapacity)
		q.Undo = true
		return q
	}},
	{"implied-quorum", "the start of a voter's unit is taken back", func() Question {
		q := onUnit(threeMembers(time.Second, up, up, down))
		q.Undo = true
		return q
	}},
	{"implied-quorum", "the unit of a voter is restarted while nobody tells of its group", func() Question {
		return onUnit(untold(up, up, up), fettle.TakesCapacity)
	}},
	{"implied-identity", "the unit of a member is started that the others have made themselves anew without", func() Question {
		w := threeMembers(time.Second, lost, up, up)
		g, _ := w.Quorum(group, time.Time{})
		g.Members = g.Members[1:]
		w.Observe(fettle.Observation{Subject: group, Host: host, Probe: "db.group", Asked: now.Add(-time.Second / 2), Facts: fettle.Facts{}, Quorum: &g})
		return onUnit(w)
	}},
	{"implied-identity", "the unit of a voter is started while nobody tells of its group", func() Question {
		return onUnit(untold(down, up, up))
	}},
	{"replicas", "a copy is taken below the minimum", func() Question {
		w := threeMembers(time.Second, up, up, up)
		w.Observe(fettle.Observation{Subject: "pg:1", Host: host, Probe: "ceph.pg", Asked: now, Facts: fettle.Facts{}, Replicas: &fettle.ReplicaSet{Copies: 3, InSync: 2, Minimum: 2}})
		q := on(w)
		q.Step.Claims = append(q.Step.Claims, fettle.Claim{What: fettle.TakesReplicas, Of: "pg:1", Member: "osd:1"})
		return q
	}},
	{"replicas", "copies of which nothing is known", func() Question {
		q := permitted()
		q.Step.Claims = append(q.Step.Claims, fettle.Claim{What: fettle.TakesReplicas, Of: "pg:2", Member: "osd:1"})
		return q
	}},
	{"budget", "one more of a rack than the budget", func() Question {
		q := permitted()
		q.Ill = func(s fettle.Subject) bool { return s == memberOf(2) }
		q.Policy.Budgets[0].MinStay = 0
		return q
	}},
	{"budget", "one more of a rack than the budget, of which one was ill when it was last seen", func() Question {
		q := permitted()
		q.Doubtful = func(s fettle.Subject) bool { return s == memberOf(2) }
		q.Policy.Budgets[0].MinStay = 0
		return q
	}},
	{"budget", "the floor overrides what must stay", func() Question {
		q := permitted()
		q.Policy.Budgets[0].Floor, q.Policy.Budgets[0].MinStay = 3, 3
		return q
	}},
	{"budget", "a claim on nothing", func() Question {
		q := permitted()
		q.Step.Claims = []fettle.Claim{{What: fettle.TakesVotes, Of: "", Member: memberOf(1)}}
		return q
	}},
	{"budget", "something is taken and nothing claimed", func() Question { q := permitted(); q.Step.Claims = nil; return q }},
	{"fencing", "a takeover on the strength of a timer", func() Question { q := permitted(); q.Step.Fences = "host:h2"; return q }},
	{"fencing", "all witnesses say that the host is dead", func() Question {
		w := threeMembers(time.Second, up, up, up)
		w.Observe(fettle.Observation{Subject: "host:h2", Host: "fettle-server:s", Probe: "fettle.witness", Asked: now, Facts: fettle.Facts{"life": "dead", "dead": true}})
		q := on(w)
		q.Step.Fences = "host:h2"
		return q
	}},
	{"fencing", "a proof for another boot", func() Question {
		q := permitted()
		q.Step.Fences = "host:h2"
		q.Proofs = []fettle.Proof{{Host: "host:h2", BootID: "boot-a", Kind: fettle.PowerOff, At: now.Add(-time.Second)}}
		return q
	}},
	{"fencing", "a proof for another host", func() Question {
		q := permitted()
		q.Step.Fences = "host:h2"
		q.Proofs = []fettle.Proof{{Host: "host:h3", BootID: "boot-b", Kind: fettle.PowerOff, At: now.Add(-time.Second)}}
		return q
	}},
	{"data", "data is destroyed", func() Question { return takingData(&fettle.ActionSpec{Version: 1, Takes: bothTakings}) }},
	{"data", "something is let go that the policy does not list", func() Question {
		return takingData(&fettle.ActionSpec{Version: 1, Takes: bothTakings, Disposes: "home-directories"})
	}},
	{"data", "the policy lists nothing as disposable", func() Question {
		q := takingData(&fettle.ActionSpec{Version: 1, Takes: bothTakings, Disposes: "package-cache"})
		q.Policy.Disposable = []string{}
		return q
	}},
	{"reachability", "the machine may be cut off", func() Question {
		q := permitted()
		q.Step.Takes = append(q.Step.Takes, fettle.TakesReachability)
		return q
	}},
	{"forward-only", "a risky step that cannot be taken back, unasked", func() Question {
		q := permitted()
		q.Step.Undo, q.Step.ForwardOnly, q.Step.Risk, q.Level = false, "it is gone", fettle.HighRisk, fettle.Approve
		q.Approval = nil
		return stubAutonomy(q)
	}},
	{"forward-only", "it does not say why it cannot be taken back", func() Question { q := permitted(); q.Step.Undo = false; return q }},
	{"ladder", "the same subject a fourth time", func() Question {
		q := permitted()
		for range 3 {
			q.Attempts = append(q.Attempts, Attempt{At: now.Add(-time.Minute), Cause: q.Plan.Cause})
		}
		return q
	}},
	{"ladder", "too much everywhere", func() Question {
		q := permitted()
		for i := range 20 {
			q.Attempts = append(q.Attempts, Attempt{At: now.Add(-time.Minute), Cause: fettle.ConditionKey{Subject: memberOf(100 + i)}})
		}
		return q
	}},
	{"flapping", "what comes and goes is repaired", func() Question { q := permitted(); q.Flapping = true; return q }},
	{"secrets", "a password among the parameters", func() Question {
		q := permitted()
		q.Step.Params = fettle.Facts{"dsn": "host=db password=hunter2"}
		return q
	}},
	{"secrets", "a private key among the parameters", func() Question {
		q := permitted()
		q.Step.Params = fettle.Facts{"files": []string{"-----BEGIN EC PRIVATE KEY-----"}}
		return q
	}},
	{"autonomy", "nobody was asked", func() Question { q := permitted(); q.Level = fettle.Approve; return q }},
	{"autonomy", "another plan was approved", func() Question {
		q := permitted()
		q.Level, q.Approval = fettle.Approve, &Approval{Plan: "other", By: "anna", Until: now.Add(time.Hour)}
		return q
	}},
	{"autonomy", "the approval has ended", func() Question {
		q := permitted()
		q.Level, q.Approval = fettle.Approve, &Approval{Plan: "plan-hash", By: "anna", Until: now}
		return q
	}},
	{"autonomy", "the policy only observes", func() Question { q := permitted(); q.Level = fettle.Observe; return q }},
}

var bothTakings = []fettle.Taking{fettle.TakesVotes, fettle.TakesData}

func takingData(a *fettle.ActionSpec) Question {
	q := permitted()
	q.Step.Takes, q.Action = bothTakings, a
	q.Step.Undo, q.Step.ForwardOnly = false, "it is gone"
	return q
}

// startingNamed starts a member whose QuorumStart effect names it, without the
// unit that implied-identity looks at.
func startingNamed(m fettle.QuorumMember) Question {
	return starting(threeMembers(time.Second, m, up, up))
}

// stubAutonomy leaves only the guard in question to object to a plan that
// nobody approved.
func stubAutonomy(q Question) Question {
	q.Begun = true
	q.Approval = nil
	q.Level = fettle.Approve
	return q
}

func TestPermittedIsAllowed(t *testing.T) {
	for _, v := range Refusals(Check(permitted())) {
		t.Errorf("%s refuses the step that all attempts start from: %s (%s)", v.Guard, v.Why, v.Arithmetic)
	}
}

// TestNobodyGetsRound: every attempt is refused by its guard, with a reason and,
// where the guard is stubbed to allow, nothing else stops it. The one exception
// is forward-only, which shares its last case with autonomy.
func TestNobodyGetsRound(t *testing.T) {
	covered := map[string]bool{}
	for _, a := range attempts {
		t.Run(a.guard+"/"+a.name, func(t *testing.T) {
			q := a.question()
			i := slices.IndexFunc(Check(q), func(v fettle.Verdict) bool { return v.Guard == a.guard })
			v := Check(q)[i]
			if v.Allow {
				t.Fatalf("%s allows it: %s", a.guard, v.Why)
			}
			if v.Why == "" || v.Invariant == "" {
				t.Errorf("the refusal does not say why, or by which invariant: %+v", v)
			}
			if Allowed(Check(q)) {
				t.Error("the step is allowed although a guard refuses")
			}
			stubbed := List()
			for j := range stubbed {
				if stubbed[j].Name == a.guard || shared[a.guard] == stubbed[j].Name {
					stubbed[j].judge = func(Question) fettle.Verdict { return allow("stubbed") }
				}
			}
			for _, r := range Refusals(check(stubbed, q)) {
				t.Errorf("with %s stubbed, %s still refuses (%s): the attempt does not prove that %s is needed", a.guard, r.Guard, r.Why, a.guard)
			}
		})
		covered[a.guard] = true
	}
	for _, g := range List() {
		if !covered[g.Name] {
			t.Errorf("nobody tries to get round %s (%s)", g.Name, g.Invariant)
		}
	}
}

// TestForesee: what would stop a later step is seen before the plan begins, by
// every guard that can answer then; only what is not known yet is left to the step.
func TestForesee(t *testing.T) {
	fine := permitted()
	fine.View = world.Over(fine.View)
	if no := Refusals(Foresee(fine)); len(no) > 0 {
		t.Errorf("a plan of nothing but permitted steps is refused: %+v", no)
	}
	stale := on(threeMembers(time.Hour, up, up, up))
	if no := Refusals(Foresee(stale)); len(no) > 0 {
		t.Errorf("facts are too old for a step that is not due yet: %+v", no)
	}
	asked := map[string]bool{}
	for _, g := range List() {
		asked[g.Name] = g.when == ahead
	}
	for _, a := range attempts {
		q := a.question()
		undecided := slices.ContainsFunc(q.Requires, func(r Answer) bool { return r.Says == fettle.Unknown }) ||
			strings.HasSuffix(a.name, "nobody tells of its group") // it will be asked before the step
		refused := slices.ContainsFunc(Refusals(Foresee(q)), func(v fettle.Verdict) bool { return v.Guard == a.guard })
		if want := asked[a.guard] && !undecided; refused != want {
			t.Errorf("%s, foreseen: refused is %v, want %v", a.name, refused, want)
		}
	}
}

// shared names the guard that refuses together with another, by design.
var shared = map[string]string{"forward-only": "autonomy"}

// TestArmedIsAllowed (S8): what can cut the machine off may be done by an action
// that arms a revert, also to take it back.
func TestArmedIsAllowed(t *testing.T) {
	q := permitted()
	armed := *q.Action
	armed.Armed, armed.Takes = true, append(slices.Clone(armed.Takes), fettle.TakesReachability)
	q.Action, q.Step.Takes = &armed, armed.Takes
	for _, undo := range []bool{false, true} {
		q.Undo = undo
		for _, v := range Refusals(Check(q)) {
			t.Errorf("undo %v: %s refuses: %s", undo, v.Guard, v.Why)
		}
	}
}

// TestReleases: taking back is free of freeze, budget, rate and autonomy, never
// of quorum and fencing.
func TestReleases(t *testing.T) {
	free := map[string]bool{"freeze": true, "maintenance": true, "person": true, "budget": true, "ladder": true, "flapping": true, "autonomy": true}
	never := map[string]bool{"quorum": true, "fencing": true, "leader": true}
	for _, a := range attempts {
		q := a.question()
		q.Undo = true
		for _, v := range Check(q) {
			if v.Guard != a.guard {
				continue
			}
			if free[a.guard] && !v.Allow {
				t.Errorf("%s refuses an undo (%s): %s", a.guard, a.name, v.Why)
			}
			if never[a.guard] && v.Allow {
				t.Errorf("%s allows an undo (%s)", a.guard, a.name)
			}
		}
	}
}

// TestGuardThatFailsRefuses: a panic in a guard is a refusal.
func TestGuardThatFailsRefuses(t *testing.T) {
	list := List()
	list[0].judge = func(Question) fettle.Verdict { panic("broken") }
	verdicts := check(list, permitted())
	if Allowed(verdicts) || verdicts[0].Allow || verdicts[0].Guard != list[0].Name {
		t.Errorf("a guard that panics must refuse, got %+v", verdicts[0])
	}
	if Allowed(nil) {
		t.Error("no verdict at all must not allow")
	}
}

// TestReceipts (S5).
func TestReceipts(t *testing.T) {
	takes := fettle.Step{Takes: []fettle.Taking{fettle.TakesData}}
	for _, c := range []struct {
		name     string
		step     fettle.Step
		receipts []fettle.Receipt
		allow    bool
	}{
		{"takes no data", fettle.Step{}, nil, true},
		{"no receipt", takes, nil, false},
		{"set aside without a way back", takes, []fettle.Receipt{{What: "/a", Where: "/b"}}, false},
		{"set aside with a way back", takes, []fettle.Receipt{{What: "/a", Where: "/b", Back: "mv /b /a"}}, true},
		{"let go", takes, []fettle.Receipt{{What: "/var/cache/x.deb"}}, true},
	} {
		if v := CheckReceipts(c.step, fettle.Result{Receipts: c.receipts}); v.Allow != c.allow {
			t.Errorf("%s: allow is %v, want %v (%s)", c.name, v.Allow, c.allow, v.Why)
		}
	}
}
