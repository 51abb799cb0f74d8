package world_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"fettle/internal/fettle"
	"fettle/internal/judge/world"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func sec(n int) time.Time { return epoch.Add(time.Duration(n) * time.Second) }

const (
	unit   = fettle.Subject("unit:h1/a")
	host1  = fettle.Subject("host:h1")
	host2  = fettle.Subject("host:h2")
	group  = fettle.Subject("etcd:c")
	member = fettle.Subject("etcd-member:c/1")
)

func saw(s, host fettle.Subject, at int, facts fettle.Facts, edges ...fettle.Edge) fettle.Observation {
	return fettle.Observation{Subject: s, Host: host, Probe: "p", Asked: sec(at), Facts: facts, Edges: edges}
}

func runsOn(s, host fettle.Subject) fettle.Edge {
	return fettle.Edge{From: s, Rel: fettle.RunsOn, To: host}
}

func TestFactsAreTheNewestOfEachName(t *testing.T) {
	w := world.New()
	w.Observe(saw(unit, host1, 1, fettle.Facts{"a": int64(1), "b": int64(1)}))
	o := saw(unit, host2, 2, fettle.Facts{"a": int64(2)})
	o.Probe = "q"
	w.Observe(o)
	if got := w.Facts(unit); !got.Equal(fettle.Facts{"a": int64(2), "b": int64(1)}) {
		t.Errorf("facts %v", got)
	}
	if got := w.FactsBy(unit, "p"); !got.Equal(fettle.Facts{"a": int64(1), "b": int64(1)}) {
		t.Errorf("facts by p %v", got)
	}
	for _, tc := range []struct {
		names []string
		want  int
	}{{[]string{"a"}, 2}, {[]string{"b"}, 1}, {[]string{"a", "b"}, 1}, {[]string{"a", "none"}, -1}, {nil, -1}} {
		at, ok := w.Asked(unit, tc.names...)
		if ok != (tc.want >= 0) || ok && !at.Equal(sec(tc.want)) {
			t.Errorf("asked %v: %v, %v; want %ds", tc.names, at, ok, tc.want)
		}
	}
	w.Observe(fettle.Observation{Subject: unit, Host: host2, Probe: "q", Asked: sec(3), Reason: fettle.TimedOut, Facts: fettle.Facts{"a": int64(9)}})
	if at, ok := w.Asked(unit, "a"); !ok || !at.Equal(sec(1)) {
		t.Errorf("asked, when the newer observer no longer knows: %v, %v", at, ok)
	}
	if got := w.Facts(unit); !got.Equal(fettle.Facts{"a": int64(1), "b": int64(1)}) {
		t.Errorf("facts, when the newer observer no longer knows: %v", got)
	}
}

func TestLateObservationsAreDropped(t *testing.T) {
	w := world.New()
	w.Observe(saw(unit, host1, 10, fettle.Facts{"a": int64(1)}))
	if w.Observe(saw(unit, host1, 9, fettle.Facts{"a": int64(2)})) {
		t.Error("an older observation was taken")
	}
	if !w.Observe(saw(unit, host1, 10, fettle.Facts{"a": int64(3)})) {
		t.Error("one of the same time was dropped")
	}
	w.Observe(fettle.Observation{Subject: unit, Host: host1, Probe: "p", Asked: sec(20), Gone: true})
	if w.Observe(saw(unit, host1, 15, fettle.Facts{"a": int64(4)})) || w.Known(unit) {
		t.Error("an older observation brought back what is gone")
	}
	if !w.Observe(saw(unit, host2, 15, fettle.Facts{"a": int64(4)})) || !w.Known(unit) {
		t.Error("another observer's word was dropped")
	}
	if !w.Observe(saw(unit, host1, 21, fettle.Facts{"a": int64(5)})) {
		t.Error("what came back later was dropped")
	}
}

func TestGraveIsForgottenInTime(t *testing.T) {
	w := world.New()
	gone := func(s fettle.Subject, at int) {
		w.Observe(fettle.Observation{Subject: s, Host: host1, Probe: "p", Asked: sec(at), Gone: true})
	}
	gone(unit, 0)
	gone("unit:h1/b", 0)
	gone(unit, 500) // buried again
	gone("unit:h1/c", 700)
	if !w.Observe(saw("unit:h1/b", host1, -1, nil)) {
		t.Error("a grave of twelve minutes ago is still there")
	}
	if w.Observe(saw(unit, host1, 499, nil)) {
		t.Error("a grave of three minutes ago is forgotten")
	}
}

func TestEdges(t *testing.T) {
	w := world.New()
	related := func(s fettle.Subject, p fettle.Path, want ...fettle.Subject) {
		t.Helper()
		if got := w.Related(s, p); !slices.Equal(got, want) {
			t.Errorf("%s %s: %v, want %v", s, p, got, want)
		}
	}
	other := fettle.Subject("unit:h1/b")
	w.Observe(saw(unit, host1, 1, nil, runsOn(unit, host1), fettle.Edge{From: unit, Rel: fettle.PartOf, To: group}))
	w.Observe(saw(unit, host2, 1, nil, runsOn(unit, host1)))
	w.Observe(saw(other, host1, 1, nil, runsOn(other, host1)))
	related(unit, ">runs-on", host1)
	related(host1, "<runs-on", unit, other)
	related(other, ">runs-on <runs-on >part-of", group)
	related(unit, fettle.Self, unit)
	related(unit, "runs-on")
	related(unit, ">in")

	w.Observe(fettle.Observation{Subject: unit, Host: host1, Probe: "p", Asked: sec(2), Reason: fettle.TimedOut})
	related(unit, ">part-of", group) // not to see is not to see that it is gone
	w.Observe(saw(unit, host1, 3, nil))
	related(unit, ">part-of")
	related(unit, ">runs-on", host1) // host2 still sees it
	w.Observe(fettle.Observation{Subject: unit, Host: host2, Probe: "p", Asked: sec(4), Gone: true})
	related(host1, "<runs-on", other)
}

func TestForgottenIsWhatNobodySpeaksOf(t *testing.T) {
	w := world.New()
	key := fettle.ConditionKey{Code: "x.y", Subject: unit}
	w.Observe(saw(unit, host1, 1, nil, runsOn(unit, host1)))
	if !slices.Equal(w.Subjects(fettle.KindHost), []fettle.Subject{host1}) || w.Known(host1) || !w.Known(unit) {
		t.Errorf("hosts %v", w.Subjects(fettle.KindHost))
	}
	w.SetCondition(fettle.Condition{ConditionKey: key, State: fettle.Yes})
	w.Observe(fettle.Observation{Subject: unit, Host: host1, Probe: "p", Asked: sec(2), Gone: true})
	if len(w.Subjects(fettle.KindHost)) != 0 {
		t.Error("the host is still there, and nothing points to it")
	}
	if len(w.Subjects(fettle.KindUnit)) != 1 || len(w.Raised()) != 1 || len(w.ConditionsOf(unit)) != 1 {
		t.Error("a subject with a condition was forgotten")
	}
	w.DropCondition(key)
	if len(w.Subjects(fettle.KindUnit)) != 0 || len(w.Raised()) != 0 || len(w.ConditionsOf(unit)) != 0 {
		t.Error("it is remembered although nobody speaks of it")
	}
	w.DropCondition(key)
}

func quorum(at int, host fettle.Subject, members ...fettle.QuorumMember) fettle.Observation {
	return fettle.Observation{Subject: group, Host: host, Probe: "p", Asked: sec(at), Quorum: &fettle.QuorumGroup{Members: members}}
}

func TestQuorumMerge(t *testing.T) {
	m := func(n string, serving fettle.Tri, leader bool) fettle.QuorumMember {
		return fettle.QuorumMember{Subject: fettle.NewSubject("etcd-member", "c", n), ID: n, Voter: true, Serving: serving, Leader: leader}
	}
	w := world.New()
	if _, ok := w.Quorum(group, time.Time{}); ok {
		t.Error("a group that nobody saw")
	}
	w.Observe(quorum(1, "host:h1", m("1", fettle.Yes, true), m("2", fettle.Yes, false), m("3", fettle.No, false), m("4", fettle.Yes, false)))
	w.Observe(quorum(3, "host:h2", m("1", fettle.Yes, false), m("2", fettle.No, true), m("3", fettle.No, false)))
	w.Observe(quorum(2, "host:h3", m("1", fettle.No, false), m("2", fettle.Unknown, false), m("3", fettle.Unknown, false)))
	g, ok := w.Quorum(group, time.Time{})
	if !ok || len(g.Members) != 3 {
		t.Fatalf("membership is not the newest: %+v", g)
	}
	for i, want := range []fettle.QuorumMember{m("1", fettle.Yes, false), m("2", fettle.Unknown, true), m("3", fettle.No, false)} {
		if g.Members[i] != want {
			t.Errorf("member %d: %+v, want %+v", i, g.Members[i], want)
		}
	}
	w.Observe(quorum(3, "host:h4", m("1", fettle.Yes, false), m("2", fettle.No, false), m("3", fettle.No, false)))
	if g, _ := w.Quorum(group, time.Time{}); g.Members[1].Serving != fettle.No || !g.Members[1].Disputed || g.Members[0].Disputed || g.Members[2].Disputed {
		t.Errorf("who is outvoted and says that it serves: %+v", g)
	}
	w.Observe(fettle.Observation{Subject: group, Host: "host:h4", Probe: "p", Asked: sec(3), Gone: true})
	g, _ = w.Quorum(group, sec(2))
	if g.Members[0].Serving != fettle.Unknown || g.Members[1].Serving != fettle.No {
		t.Errorf("since 2: %+v", g)
	}
	if _, ok := w.Quorum(group, sec(4)); ok {
		t.Error("known since a time at which nobody looked")
	}
	g.Members[0].ID = "changed"
	if again, _ := w.Quorum(group, sec(2)); again.Members[0].ID != "1" {
		t.Error("a caller can change the world")
	}
	w.Observe(fettle.Observation{Subject: group, Host: "host:h2", Probe: "p", Asked: sec(5), Reason: fettle.Unreachable})
	if g, _ := w.Quorum(group, time.Time{}); g.Members[1].Leader {
		t.Error("the word of one who no longer knows still counts")
	}
}

func TestReplicasAreTheWorst(t *testing.T) {
	w := world.New()
	for i, r := range []fettle.ReplicaSet{{Copies: 3, InSync: 2, Minimum: 1}, {Copies: 2, InSync: 3, Minimum: 2}} {
		w.Observe(fettle.Observation{Subject: group, Host: fettle.HostSubject(fmt.Sprint(i)), Probe: "p", Asked: sec(i), Replicas: &r})
	}
	if r, ok := w.Replicas(group, time.Time{}); !ok || r != (fettle.ReplicaSet{Copies: 2, InSync: 2, Minimum: 2}) {
		t.Errorf("got %+v", r)
	}
	if r, ok := w.Replicas(group, sec(1)); !ok || r != (fettle.ReplicaSet{Copies: 2, InSync: 3, Minimum: 2}) {
		t.Errorf("since 1: %+v", r)
	}
	if _, ok := w.Replicas(unit, time.Time{}); ok {
		t.Error("replicas of what has none")
	}
}

func TestSince(t *testing.T) {
	w := world.New()
	w.Observe(saw(unit, host1, 1, fettle.Facts{"a": int64(1), "b": int64(1)}))
	w.Observe(saw(unit, host2, 2, fettle.Facts{"a": int64(2)}))
	w.Observe(quorum(1, host1))
	v := w.Since(sec(2))
	if got := v.Facts(unit); !got.Equal(fettle.Facts{"a": int64(2)}) || !v.FactsBy(unit, "p").Equal(got) {
		t.Errorf("facts %v", got)
	}
	if _, ok := v.Asked(unit, "b"); ok || len(v.Observations(unit)) != 1 {
		t.Error("an older observation is known")
	}
	if _, ok := v.Quorum(group, time.Time{}); ok {
		t.Error("an older quorum is known")
	}
	if _, ok := v.Replicas(group, time.Time{}); ok {
		t.Error("replicas are known")
	}
	if got := w.Since(sec(1)).Facts(unit); !got.Equal(w.Facts(unit)) {
		t.Errorf("asked for at that very time: %v", got)
	}
}

// Votes and copies are counted from those who looked lately; where nobody did, what
// is remembered is better than nothing.
func TestCounting(t *testing.T) {
	is := func(s fettle.Tri) fettle.QuorumMember { return fettle.QuorumMember{Subject: member, Serving: s} }
	w := world.New()
	for at, s := range []fettle.Tri{fettle.Yes, fettle.Yes, fettle.No} {
		o := quorum(at, fettle.HostSubject(fmt.Sprint(at)), is(s))
		o.Replicas = &fettle.ReplicaSet{Copies: 3, InSync: at}
		w.Observe(o)
	}
	for since, want := range map[int]fettle.Tri{0: fettle.Yes, 2: fettle.No, 3: fettle.Yes} {
		g, ok := world.Counting(w, sec(since)).Quorum(group, time.Time{})
		if !ok || g.Members[0].Serving != want {
			t.Errorf("since %d: %+v, want %v", since, g, want)
		}
	}
	for since, want := range map[int]int{0: 0, 1: 1, 3: 0} {
		if r, ok := world.Counting(w, sec(since)).Replicas(group, time.Time{}); !ok || r.InSync != want {
			t.Errorf("copies since %d: %+v, want %d in sync", since, r, want)
		}
	}
	if _, ok := world.Counting(w, sec(2)).Quorum(group, sec(3)); ok {
		t.Error("who asks for what is later than all that is known gets none")
	}
}

func TestOverlayPredictsAndLeavesTheWorldAlone(t *testing.T) {
	w := world.New()
	w.Observe(saw(unit, host1, 1, fettle.Facts{"a": int64(1), "l": []string{"x"}}))
	w.Observe(quorum(1, host1, fettle.QuorumMember{Subject: member, ID: "1", Voter: true, Serving: fettle.Yes}))
	w.Hold("k", []fettle.Claim{{What: fettle.TakesVotes, Of: group}})
	o := world.Over(w)
	o.SetFact(unit, "a", int64(2))
	o.SetFact(unit, "new", true)
	o.HideFact(unit, "l")
	o.SetQuorum(group, fettle.QuorumGroup{})
	o.Claim(fettle.Claim{What: fettle.TakesCapacity})
	want := fettle.Facts{"a": int64(2), "new": true}
	if got := o.Facts(unit); !got.Equal(want) {
		t.Errorf("facts %v", got)
	}
	if got := o.FactsBy(unit, "p"); !got.Equal(want) {
		t.Errorf("facts by p %v", got)
	}
	if _, ok := o.Asked(unit, "l"); ok {
		t.Error("a hidden fact is known")
	}
	if g, ok := o.Quorum(group, sec(99)); !ok || len(g.Members) != 0 {
		t.Errorf("predicted group %+v", g)
	}
	if got := o.Claims(); len(got) != 2 || got[0].What != fettle.TakesVotes {
		t.Errorf("claims %v", got)
	}
	o.HideFact(unit, "a")
	if got := o.FactsBy(unit, "p"); !got.Equal(fettle.Facts{"new": true}) {
		t.Errorf("set, then hidden: %v", got)
	}
	second := world.Over(o)
	second.SetFact(unit, "l", []string{"y"})
	if got := second.Facts(unit); !got.Equal(fettle.Facts{"new": true, "l": []string{"y"}}) || len(second.Claims()) != 2 {
		t.Errorf("over an overlay: %v", got)
	}

	if got := w.Facts(unit); !got.Equal(fettle.Facts{"a": int64(1), "l": []string{"x"}}) {
		t.Errorf("the world was changed: %v", got)
	}
	if g, _ := w.Quorum(group, time.Time{}); len(g.Members) != 1 || len(w.Claims()) != 1 {
		t.Error("the world's group or claims were changed")
	}
	w.Release("k")
	if len(o.Claims()) != 1 {
		t.Errorf("claims after the release: %v", o.Claims())
	}
}

// The property tests' subjects: few, so that they meet.
var (
	subjects = []fettle.Subject{unit, "unit:h1/b", host1, host2, group, member}
	paths    = []fettle.Path{">runs-on", "<runs-on", ">part-of", "<part-of", ">runs-on <runs-on", "<part-of >runs-on"}
)

func anyObservation(t *rapid.T, at int, unknown bool) fettle.Observation {
	o := fettle.Observation{
		Subject: rapid.SampledFrom(subjects).Draw(t, "subject"),
		Host:    rapid.SampledFrom([]fettle.Subject{host1, host2}).Draw(t, "host"),
		Probe:   rapid.SampledFrom([]string{"p", "q"}).Draw(t, "probe"),
		Asked:   sec(at),
	}
	switch n := rapid.IntRange(0, 7).Draw(t, "outcome"); {
	case n == 0:
		o.Gone = true
		return o
	case n == 1 && unknown:
		o.Reason = fettle.TimedOut
		return o
	}
	o.Facts = fettle.Facts{}
	for _, name := range []string{"a", "b"} {
		if rapid.Bool().Draw(t, "has") {
			o.Facts[name] = rapid.Int64Range(0, 9).Draw(t, name)
		}
	}
	for range rapid.IntRange(0, 2).Draw(t, "edges") {
		o.Edges = append(o.Edges, fettle.Edge{
			From: rapid.SampledFrom(subjects).Draw(t, "from"), To: rapid.SampledFrom(subjects).Draw(t, "to"),
			Rel: rapid.SampledFrom([]fettle.Relation{fettle.RunsOn, fettle.PartOf}).Draw(t, "rel"),
		})
	}
	if o.Subject == group && rapid.Bool().Draw(t, "quorum") {
		o.Quorum = &fettle.QuorumGroup{Members: []fettle.QuorumMember{{Subject: member, ID: "1", Voter: true, Serving: fettle.Tri(rapid.IntRange(-1, 1).Draw(t, "serving"))}}}
	}
	return o
}

// answers is all that a world says, in a form that can be compared.
func answers(w *world.World) map[string]any {
	all := map[string]any{}
	for _, s := range subjects {
		at, known := w.Asked(s, "a")
		all[string(s)] = []any{w.Known(s), w.Observations(s), w.Facts(s), w.FactsBy(s, "p"), at, known}
		for _, p := range paths {
			all[string(s)+string(p)] = w.Related(s, p)
		}
		all["kind "+string(s)] = w.Subjects(s.Kind())
	}
	g, ok := w.Quorum(group, time.Time{})
	all["quorum"] = []any{g, ok}
	return all
}

func compare(t *rapid.T, got, want map[string]any) {
	t.Helper()
	for key, v := range want {
		if !reflect.DeepEqual(got[key], v) {
			t.Fatalf("%s:\n got %+v\nwant %+v", key, got[key], v)
		}
	}
}

// TestOrderDoesNotMatter: the same observations in any order, also one observer's
// own in the wrong order, and also where some say Gone.
func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []fettle.Observation
		for i := range rapid.IntRange(1, 20).Draw(t, "observations") {
			list = append(list, anyObservation(t, i, false))
		}
		observe := func(order []fettle.Observation) *world.World {
			w := world.New()
			for _, o := range order {
				w.Observe(o)
			}
			return w
		}
		compare(t, answers(observe(rapid.Permutation(list).Draw(t, "order"))), answers(observe(list)))
	})
}

// TestAgainstTheLatestOnly: a world that saw everything answers like one that saw
// only the latest of each observer.
func TestAgainstTheLatestOnly(t *testing.T) {
	type place struct {
		fettle.Subject
		fettle.Observer
	}
	rapid.Check(t, func(t *rapid.T) {
		w := world.New()
		latest := map[place]fettle.Observation{}
		for range rapid.IntRange(1, 30).Draw(t, "observations") {
			o := anyObservation(t, rapid.IntRange(0, 10).Draw(t, "asked"), true)
			p := place{o.Subject, o.Observer()}
			before, had := latest[p]
			late := had && o.Asked.Before(before.Asked)
			if w.Observe(o) == late {
				t.Fatalf("late %v: %+v after %+v", late, o, before)
			}
			if late {
				continue
			}
			if !o.Known() && had {
				o.Edges = before.Edges
			}
			latest[p] = o
		}
		fresh := world.New()
		for _, o := range latest {
			if !o.Gone {
				fresh.Observe(o)
			}
		}
		compare(t, answers(w), answers(fresh))
	})
}
