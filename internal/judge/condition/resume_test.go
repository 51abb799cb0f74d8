package condition_test

import (
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/world"
)

// restarted is the story as a new judge goes on with it, that knows what was raised.
func (s *story) restarted(at int, keepSince bool, conditions ...fettle.ConditionSpec) *story {
	s.t.Helper()
	raised := s.w.Raised()
	if len(raised) == 0 {
		s.t.Fatal("nothing is raised: the test tests nothing")
	}
	for i := range raised {
		if !keepSince {
			raised[i].Since = time.Time{}
		}
	}
	next := &story{s.t, world.New(), newEvaluator(s.t, catalogue(conditions...))}
	next.e.Resume(next.w, raised, sec(at))
	return next
}

// TestResumedBetweenItsRules: what was raised stays raised between its two rules
// through a restart, and since when it was. Without Resume it is clear, which
// nobody has seen.
func TestResumedBetweenItsRules(t *testing.T) {
	spec := fettle.ConditionSpec{Raise: "self.level > 90", Clear: "self.level < 80", Delay: 30e9, ClearHold: 20e9}
	level := func(s *story, at int, n int64) {
		s.see(at, fettle.Observation{Facts: fettle.Facts{"level": n}})
	}
	s := newStory(t, spec)
	level(s, 10, 95)
	s.tick(40)
	wantTimes(t, "since", s.is("raised", fettle.Yes).Since, 40)

	forgetful := newStory(t, spec)
	level(forgetful, 100, 85)
	forgetful.is("a judge that knows nothing of before", fettle.No)

	next := s.restarted(99, true, spec)
	wantTimes(t, "not known since", next.is("not seen yet", fettle.Unknown).Since, 99)
	level(next, 100, 85)
	c := next.is("between the rules", fettle.Yes)
	wantTimes(t, "since", c.Since, 40)
	wantTimes(t, "first seen", c.FirstSeen, 10)
	level(next, 110, 70)
	next.is("its clear hold", fettle.Yes)
	next.tick(130)
	next.is("seen clear for long enough", fettle.No)

	booted := s.restarted(99, false, spec)
	level(booted, 100, 85)
	c = booted.is("after too much happened", fettle.Yes)
	wantTimes(t, "since it is seen again", c.Since, 100)
	wantTimes(t, "first seen", c.FirstSeen, 10)

	blind := s.restarted(99, true, spec)
	blind.blind(100, "h1", fettle.TimedOut)
	blind.is("the first look fails", fettle.Unknown)
	level(blind, 101, 85)
	wantTimes(t, "since it is seen again", blind.is("the second does not", fettle.Yes).Since, 101)

	back := s.restarted(5, true, spec) // the clock was set back beyond all of it
	level(back, 6, 85)
	c = back.is("after the clock was set back", fettle.Yes)
	wantTimes(t, "first seen", c.FirstSeen, 5)
	wantTimes(t, "since", c.Since, 6)
}

// TestResumedAndGone: what was raised and is gone when its subject is touched ends
// with it; what nobody has looked at is not known.
func TestResumedAndGone(t *testing.T) {
	spec := fettle.ConditionSpec{Raise: "self.bad"}
	s := newStory(t, spec)
	s.bad(10, "h1", true)
	next := s.restarted(20, true, spec)
	next.is("not seen yet", fettle.Unknown)
	got := next.see(30, fettle.Observation{Gone: true})
	if len(got) != 1 || got[0].After.State != fettle.No {
		t.Errorf("gone: %+v", got)
	}
	next.bad(40, "h1", true)
	wantTimes(t, "a new episode", next.is("it is back", fettle.Yes).Since, 40)
}
