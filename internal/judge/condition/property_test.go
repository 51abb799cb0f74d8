package condition_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"fettle/internal/fettle"
	"fettle/internal/judge/condition"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/world"
)

// without are conditions whose state rests on the present observations alone.
func without() []fettle.ConditionSpec {
	return []fettle.ConditionSpec{
		{Code: "p.all", Raise: "self.bad", Observers: fettle.AllObservers},
		{Code: "p.most", Raise: "self.bad", Observers: fettle.MostHosts, Expiry: 20 * time.Second},
		{Code: "p.peers", Raise: "self.bad && peers.all(p, !p.bad)", Observers: fettle.AllObservers},
		{Code: "p.host", Raise: "host.load > 1 || self.level > 3", Observers: fettle.MostHosts, Expiry: 30 * time.Second},
		{Code: "p.whole", Raise: "whole.size == 2 && self.bad", Observers: fettle.AllObservers},
		{Code: "p.count", Raise: "unreachable >= 2 && unreachable == observers", Observers: fettle.AllObservers, Expiry: 25 * time.Second},
		{Code: "p.parts", Kind: "system", Probe: "t.system", Raise: "parts.exists(p, p.bad && p.level > 1)", Observers: fettle.AllObservers, Expiry: 15 * time.Second},
	}
}

// with are conditions that need the past.
func with() []fettle.ConditionSpec {
	return append(without(),
		fettle.ConditionSpec{Code: "q.any", Raise: "self.bad", Expiry: 20 * time.Second, Flap: fettle.Flap{Changes: 3, Window: 30 * time.Second}},
		fettle.ConditionSpec{Code: "q.delay", Raise: "self.bad", Delay: 12 * time.Second, Expiry: 30 * time.Second},
		fettle.ConditionSpec{Code: "q.hold", Raise: "self.bad", ClearHold: 9 * time.Second},
		fettle.ConditionSpec{Code: "q.both", Raise: "self.level > 3", Clear: "self.level < 2", Delay: 5 * time.Second, ClearHold: 7 * time.Second,
			Expiry: 40 * time.Second, Observers: fettle.MostHosts, Flap: fettle.Flap{Changes: 2, Window: 20 * time.Second}},
		fettle.ConditionSpec{Code: "q.band", Raise: "self.level > 3", Clear: "self.level < 2 && peers.exists(p, p.bad)"},
	)
}

var (
	hosts  = []fettle.Subject{"host:h1", "host:h2", "host:h3"}
	things = []fettle.Subject{"thing:s/1", "thing:s/2", "thing:s/3"}
	every  = slices.Concat(hosts, things, []fettle.Subject{system, "system:other"})
)

// anyObservation draws one that is asked at most four seconds before now.
func anyObservation(t *rapid.T, now time.Time) fettle.Observation {
	o := fettle.Observation{
		Subject: rapid.SampledFrom(every).Draw(t, "subject"),
		Host:    rapid.SampledFrom(hosts).Draw(t, "host"),
		Asked:   now.Add(-time.Duration(rapid.IntRange(0, 4).Draw(t, "late")) * time.Second),
	}
	switch o.Subject.Kind() {
	case "thing":
		o.Probe = rapid.SampledFrom([]string{"t.thing", "t.thing", "t.thing", "t.other"}).Draw(t, "probe")
	case "system":
		o.Probe = "t.system"
	default:
		o.Probe = "t.host"
	}
	switch rapid.IntRange(0, 9).Draw(t, "outcome") {
	case 0:
		o.Gone = true
		return o
	case 1, 2:
		o.Reason = rapid.SampledFrom([]fettle.Reason{fettle.Unreachable, fettle.Unreachable, fettle.TimedOut, fettle.PermissionDenied}).Draw(t, "reason")
		return o
	}
	o.Facts = fettle.Facts{}
	maybe := func(name string, v fettle.Value) {
		if rapid.IntRange(0, 5).Draw(t, "has "+name) > 0 {
			o.Facts[name] = v
		}
	}
	switch o.Probe {
	case "t.thing":
		maybe("bad", rapid.Bool().Draw(t, "bad"))
		maybe("level", rapid.Int64Range(0, 5).Draw(t, "level"))
	case "t.system":
		maybe("size", rapid.Int64Range(1, 3).Draw(t, "size"))
	case "t.host":
		maybe("load", rapid.Int64Range(0, 3).Draw(t, "load"))
	}
	for range rapid.IntRange(0, 2).Draw(t, "edges") {
		from := rapid.SampledFrom(things).Draw(t, "from")
		if rapid.Bool().Draw(t, "place") {
			o.Edges = append(o.Edges, fettle.Edge{From: from, Rel: fettle.RunsOn, To: rapid.SampledFrom(hosts).Draw(t, "on")})
		} else {
			o.Edges = append(o.Edges, fettle.Edge{From: from, Rel: fettle.PartOf, To: rapid.SampledFrom([]fettle.Subject{system, system, "system:other"}).Draw(t, "of")})
		}
	}
	return o
}

// make compiles conditions once and gives as many evaluators as are wanted.
func maker(t testing.TB, conditions []fettle.ConditionSpec) func(*rapid.T) *condition.Evaluator {
	cats := catalogue(conditions...)
	env, err := expr.New(cats)
	if err != nil {
		t.Fatal(err)
	}
	return func(t *rapid.T) *condition.Evaluator {
		e, err := condition.New(cats, env)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
}

// all returns every condition of a world, by key.
func all(w *world.World) map[fettle.ConditionKey]fettle.Condition {
	m := map[fettle.ConditionKey]fettle.Condition{}
	for _, s := range every {
		for _, c := range w.ConditionsOf(s) {
			m[c.ConditionKey] = c
		}
	}
	return m
}

func same(t *rapid.T, what string, got, want map[fettle.ConditionKey]fettle.Condition) {
	t.Helper()
	for key, c := range want {
		if g, ok := got[key]; !ok || !reflect.DeepEqual(g, c) {
			t.Fatalf("%s: %s:\n got %+v\nwant %+v", what, key, g, c)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d conditions, want %d", what, len(got), len(want))
	}
}

// TestLazyEqualsEager: to judge only what was touched, and to tick only when
// something is due, gives what judging everything every second gives: the whole
// condition, with its times, evidence and flapping.
func TestLazyEqualsEager(t *testing.T) {
	evaluator := maker(t, with())
	rapid.Check(t, func(t *rapid.T) {
		lazy, eager := evaluator(t), evaluator(t)
		lw, ew := world.New(), world.New()
		now := epoch
		for range rapid.IntRange(1, 25).Draw(t, "events") {
			// Up to the event the lazy one wakes when it wants to, the eager one always.
			until := now.Add(time.Duration(rapid.IntRange(1, 30).Draw(t, "gap")) * time.Second)
			for ; now.Before(until); now = now.Add(time.Second) {
				if due, ok := lazy.Next(); ok && !now.Before(due) {
					if now.After(due) {
						t.Fatalf("due at %v, which is past at %v", due.Sub(epoch), now.Sub(epoch))
					}
					lazy.Tick(lw, now)
				}
				eager.Touch(ew, now, every...)
				eager.Tick(ew, now)
				same(t, "between events", all(lw), all(ew))
			}
			var touched []fettle.Subject
			for range rapid.IntRange(1, 3).Draw(t, "batch") {
				o := anyObservation(t, now)
				lw.Observe(o)
				ew.Observe(o)
				touched = append(touched, o.Subject)
			}
			check(t, now, lazy.Touch(lw, now, touched...))
			check(t, now, lazy.Tick(lw, now))
			eager.Touch(ew, now, every...)
			eager.Tick(ew, now)
			same(t, "after an event", all(lw), all(ew))
			if due, ok := lazy.Next(); ok && !due.After(now) {
				t.Fatalf("still due at %v after a tick at %v", due.Sub(epoch), now.Sub(epoch))
			}
		}
	})
}

// check is what must be true of every change.
func check(t *rapid.T, now time.Time, changes []condition.Change) {
	t.Helper()
	for i, c := range changes {
		a := c.After
		if i > 0 && changes[i-1].After.Compare(a.ConditionKey) >= 0 {
			t.Fatalf("changes are not sorted: %s, %s", changes[i-1].After.ConditionKey, a.ConditionKey)
		}
		if c.Before.State == a.State && c.Before.Flapping == a.Flapping && (len(a.Evidence) == 0 || a.Evidence[0].Reason != condition.GoneReason) {
			t.Fatalf("no change: %+v", c)
		}
		witness := slices.ContainsFunc(a.Evidence, func(e fettle.Evidence) bool { return e.Says == a.State })
		if a.State != fettle.Unknown && !witness {
			t.Fatalf("%v and nobody says so: %+v", a.State, a)
		}
		if a.State != c.Before.State && !a.Since.Equal(now) {
			t.Fatalf("changed at %v, says %v", now.Sub(epoch), a.Since.Sub(epoch))
		}
		if a.Raised() && (a.FirstSeen.IsZero() || a.FirstSeen.After(now) || a.FirstSeen.Before(a.LastClear)) {
			t.Fatalf("raised, first seen %v, last clear %v", a.FirstSeen.Sub(epoch), a.LastClear.Sub(epoch))
		}
	}
}

// TestOrderDoesNotMatter: observations of different observers or subjects, put in
// in any order before they are judged.
func TestOrderDoesNotMatter(t *testing.T) {
	evaluator := maker(t, with())
	rapid.Check(t, func(t *rapid.T) {
		type place struct {
			fettle.Subject
			fettle.Observer
		}
		taken := map[place]bool{}
		var list []fettle.Observation
		for range rapid.IntRange(1, 12).Draw(t, "observations") {
			o := anyObservation(t, epoch)
			if p := (place{o.Subject, o.Observer()}); !taken[p] {
				taken[p] = true
				list = append(list, o)
			}
		}
		judged := func(order []fettle.Observation) map[fettle.ConditionKey]fettle.Condition {
			w, e := world.New(), evaluator(t)
			var touched []fettle.Subject
			for _, o := range order {
				w.Observe(o)
				touched = append(touched, o.Subject)
			}
			e.Touch(w, epoch, touched...)
			return all(w)
		}
		same(t, "another order", judged(rapid.Permutation(list).Draw(t, "order")), judged(list))
	})
}

// TestIncrementalEqualsFromScratch: where the past does not matter, a new
// evaluator that sees only the last observations agrees on states and evidence.
func TestIncrementalEqualsFromScratch(t *testing.T) {
	evaluator := maker(t, without())
	rapid.Check(t, func(t *rapid.T) {
		w, e := world.New(), evaluator(t)
		now := epoch
		for range rapid.IntRange(1, 30).Draw(t, "events") {
			now = now.Add(time.Duration(rapid.IntRange(0, 8).Draw(t, "gap")) * time.Second)
			o := anyObservation(t, now)
			w.Observe(o)
			e.Touch(w, now, o.Subject)
			e.Tick(w, now)
		}
		fresh, scratch := world.New(), evaluator(t)
		for _, s := range every {
			for _, o := range w.Observations(s) {
				fresh.Observe(o)
			}
		}
		scratch.Touch(fresh, now, every...)
		got, want := all(w), all(fresh)
		for _, m := range []map[fettle.ConditionKey]fettle.Condition{got, want} {
			for key, c := range m { // what is left of the past
				c.Since, c.LastClear, c.FirstSeen, c.Flapping = time.Time{}, time.Time{}, time.Time{}, false
				m[key] = c
			}
		}
		same(t, "from scratch", got, want)
	})
}

// TestNothingKnownIsUnknown: whatever went before, once every observer of a
// subject is cut off, or all that it saw is too old, nothing is clear or raised.
func TestNothingKnownIsUnknown(t *testing.T) {
	evaluator := maker(t, with())
	rapid.Check(t, func(t *rapid.T) {
		w, e := world.New(), evaluator(t)
		now := epoch
		for range rapid.IntRange(1, 15).Draw(t, "events") {
			now = now.Add(time.Duration(rapid.IntRange(0, 8).Draw(t, "gap")) * time.Second)
			o := anyObservation(t, now)
			w.Observe(o)
			e.Touch(w, now, o.Subject)
			e.Tick(w, now)
		}
		now = now.Add(5 * time.Second)
		blind := rapid.Bool().Draw(t, "cut off, not only silent")
		for _, s := range every {
			for _, o := range w.Observations(s) {
				if blind {
					o.Asked, o.Reason, o.Facts = now, fettle.TimedOut, nil
					w.Observe(o)
				}
			}
		}
		if !blind {
			now = now.Add(time.Hour)
		}
		e.Touch(w, now, every...)
		e.Tick(w, now)
		expires := map[fettle.Code]bool{}
		for _, c := range with() {
			expires[c.Code] = c.Expiry > 0
		}
		for key, c := range all(w) {
			if (blind || expires[key.Code]) && c.State != fettle.Unknown {
				t.Fatalf("%s is %v and nobody knows: %+v", key, c.State, c.Evidence)
			}
		}
	})
}
