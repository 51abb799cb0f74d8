package condition_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/condition"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/world"
)

// thing is the subject of most stories; h1 to h3 observe it.
const (
	thing  = fettle.Subject("thing:s/1")
	system = fettle.Subject("system:s")
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func sec(n int) time.Time { return epoch.Add(time.Duration(n) * time.Second) }

// catalogue has one probe of things, one of the system that they are part of and
// one of hosts, and the conditions of a test.
func catalogue(conditions ...fettle.ConditionSpec) []fettle.Catalogue {
	for i := range conditions {
		c := &conditions[i]
		if c.Kind == "" {
			c.Kind, c.Probe = "thing", "t.thing"
		}
		if c.Code == "" {
			c.Code = fettle.Code(fmt.Sprintf("t.c%d", i))
		}
	}
	return []fettle.Catalogue{{
		Adapter: "t",
		Probes: []fettle.ProbeSpec{
			{Name: "t.thing", Kind: "thing", Facts: []fettle.FactSpec{
				{Name: "bad", Type: fettle.BoolFact}, {Name: "level", Type: fettle.IntFact}, {Name: "label", Type: fettle.StringFact},
			}},
			{Name: "t.other", Kind: "thing", Facts: []fettle.FactSpec{{Name: "extra", Type: fettle.IntFact}}},
			{Name: "t.system", Kind: "system", Facts: []fettle.FactSpec{{Name: "size", Type: fettle.IntFact}}},
			{Name: "t.host", Kind: fettle.KindHost, Facts: []fettle.FactSpec{{Name: "load", Type: fettle.IntFact}}},
		},
		Conditions: conditions,
	}}
}

func newEvaluator(t testing.TB, cats []fettle.Catalogue, scopes ...fettle.Scope) *condition.Evaluator {
	t.Helper()
	env, err := expr.New(cats)
	if err != nil {
		t.Fatal(err)
	}
	e, err := condition.New(cats, env, scopes...)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// story is a world, its evaluator and what they are told.
type story struct {
	t *testing.T
	w *world.World
	e *condition.Evaluator
}

func newStory(t *testing.T, conditions ...fettle.ConditionSpec) *story {
	return &story{t, world.New(), newEvaluator(t, catalogue(conditions...))}
}

// see observes, and touches the subject at the time it was asked.
func (s *story) see(at int, o fettle.Observation) []condition.Change {
	s.t.Helper()
	if o.Subject == "" {
		o.Subject = thing
	}
	if o.Host == "" {
		o.Host = fettle.HostSubject("h1")
	}
	if o.Probe == "" {
		o.Probe = "t.thing"
	}
	if o.Asked.IsZero() {
		o.Asked = sec(at)
	}
	if !s.w.Observe(o) {
		s.t.Fatalf("at %d: observation of %s dropped as late", at, o.Subject)
	}
	return s.e.Touch(s.w, sec(at), o.Subject)
}

// bad observes the fact `bad` from a host.
func (s *story) bad(at int, host string, is bool) []condition.Change {
	s.t.Helper()
	return s.see(at, fettle.Observation{Host: fettle.HostSubject(host), Facts: fettle.Facts{"bad": is}})
}

// blind observes that a host could not tell, and why.
func (s *story) blind(at int, host string, why fettle.Reason) []condition.Change {
	s.t.Helper()
	return s.see(at, fettle.Observation{Host: fettle.HostSubject(host), Reason: why})
}

func (s *story) tick(at int) []condition.Change { return s.e.Tick(s.w, sec(at)) }

// is checks the state of the first condition of the thing.
func (s *story) is(when string, want fettle.Tri) fettle.Condition {
	s.t.Helper()
	c, ok := s.w.Condition(fettle.ConditionKey{Code: "t.c0", Subject: thing})
	if !ok {
		s.t.Fatalf("%s: never judged, want %v", when, want)
	}
	if c.State != want {
		s.t.Errorf("%s: %v, want %v; evidence %+v", when, c.State, want, c.Evidence)
	}
	return c
}

// next checks when the evaluator wants to be ticked.
func (s *story) next(when string, want int) {
	s.t.Helper()
	at, ok := s.e.Next()
	switch {
	case want < 0 && ok:
		s.t.Errorf("%s: next at %v, want never", when, at.Sub(epoch))
	case want >= 0 && (!ok || !at.Equal(sec(want))):
		s.t.Errorf("%s: next at %v (%v), want %ds", when, at.Sub(epoch), ok, want)
	}
}

func states(changes []condition.Change) []fettle.Tri {
	var list []fettle.Tri
	for _, c := range changes {
		list = append(list, c.After.State)
	}
	return list
}

func says(c fettle.Condition) []fettle.Tri {
	var list []fettle.Tri
	for _, e := range c.Evidence {
		list = append(list, e.Says)
	}
	return list
}

func wantEqual[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func wantTimes(t *testing.T, what string, got time.Time, want int) {
	t.Helper()
	if want < 0 && !got.IsZero() || want >= 0 && !got.Equal(sec(want)) {
		t.Errorf("%s: %v, want %ds", what, got.Sub(epoch), want)
	}
}

func equalStates(a, b []fettle.Tri) bool { return slices.Equal(a, b) }
