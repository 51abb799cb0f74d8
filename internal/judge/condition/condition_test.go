package condition_test

import (
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/condition"
)

func TestRaiseAndClear(t *testing.T) {
	s := newStory(t, fettle.ConditionSpec{Raise: "self.bad"})
	if got := s.bad(10, "h1", false); len(got) != 1 || got[0].After.State != fettle.No || got[0].Before.State != fettle.Unknown {
		t.Fatalf("first judgement: %+v", got)
	}
	c := s.is("clear", fettle.No)
	wantTimes(t, "last clear", c.LastClear, 10)
	wantTimes(t, "first seen", c.FirstSeen, -1)

	if got := s.bad(20, "h1", false); len(got) != 0 {
		t.Errorf("still clear: %+v", got)
	}
	got := s.bad(30, "h1", true)
	if len(got) != 1 || got[0].Before.State != fettle.No || got[0].After.State != fettle.Yes {
		t.Fatalf("raised: %+v", got)
	}
	c = s.is("raised", fettle.Yes)
	wantTimes(t, "since", c.Since, 30)
	wantTimes(t, "last clear", c.LastClear, 20)
	wantTimes(t, "first seen", c.FirstSeen, 30)

	s.bad(40, "h1", true)
	c = s.is("still raised", fettle.Yes)
	wantTimes(t, "since", c.Since, 30)
	wantTimes(t, "first seen", c.FirstSeen, 30)
	wantTimes(t, "evidence", c.Evidence[0].Asked, 40)

	s.bad(50, "h1", false)
	c = s.is("clear again", fettle.No)
	wantTimes(t, "since", c.Since, 50)
	wantTimes(t, "first seen", c.FirstSeen, -1)
	s.next("nothing is due", -1)
}

func TestNotToKnowIsUnknown(t *testing.T) {
	for _, why := range []fettle.Reason{fettle.Unreachable, fettle.TimedOut, fettle.PermissionDenied, fettle.NotSupported, fettle.Failed} {
		s := newStory(t, fettle.ConditionSpec{Raise: "self.bad"})
		if got := s.blind(1, "h1", why); len(got) != 0 {
			t.Errorf("%s: never known: %+v", why, got)
		}
		c := s.is(string(why), fettle.Unknown)
		wantEqual(t, "reason", c.Evidence[0].Reason, why)
		s.bad(2, "h1", true)
		s.blind(3, "h1", why)
		c = s.is("lost sight", fettle.Unknown)
		wantTimes(t, "since", c.Since, 3)
		wantTimes(t, "the episode goes on", c.FirstSeen, 2)
		s.bad(4, "h1", true)
		c = s.is("the same episode", fettle.Yes)
		wantTimes(t, "first seen", c.FirstSeen, 2)
	}
}

func TestAbsentFactIsUnknownWithItsReason(t *testing.T) {
	s := newStory(t, fettle.ConditionSpec{Raise: "self.level > 3"})
	s.bad(1, "h1", true)
	c := s.is("no level", fettle.Unknown)
	if !strings.Contains(string(c.Evidence[0].Reason), `"level" is not known`) {
		t.Errorf("reason %q", c.Evidence[0].Reason)
	}
}

func TestHysteresis(t *testing.T) {
	s := newStory(t, fettle.ConditionSpec{Raise: "self.level > 90", Clear: "self.level < 80"})
	for _, step := range []struct {
		level int64
		want  fettle.Tri
	}{{85, fettle.No}, {95, fettle.Yes}, {85, fettle.Yes}, {79, fettle.No}, {85, fettle.No}, {91, fettle.Yes}} {
		at := 10 + int(s.count())
		s.see(at, fettle.Observation{Facts: fettle.Facts{"level": step.level}})
		s.is("level", step.want)
	}
	// Between the rules, what was lost sight of comes back as what it was.
	s.blind(100, "h1", fettle.TimedOut)
	s.is("lost", fettle.Unknown)
	s.see(101, fettle.Observation{Facts: fettle.Facts{"level": int64(85)}})
	s.is("between, after a gap", fettle.Yes)
}

// What is not raised, and was not seen clear either, may have begun already: a step
// between the two rules does not narrow the onset.
func TestOnsetOfWhatWasBetweenTheRules(t *testing.T) {
	s := newStory(t, fettle.ConditionSpec{Raise: "self.level > 90", Clear: "self.level < 80"})
	for at, level := range []int64{85, 79, 85, 89, 95} {
		s.see(at, fettle.Observation{Facts: fettle.Facts{"level": level}})
		if at == 0 {
			wantTimes(t, "never seen clear, last clear", s.is("between", fettle.No).LastClear, -1)
		}
	}
	c := s.is("raised", fettle.Yes)
	wantTimes(t, "last clear", c.LastClear, 1)
	wantTimes(t, "first seen", c.FirstSeen, 4)
}

// count is how often the thing was looked at, for ever later times.
func (s *story) count() time.Duration {
	obs := s.w.Observations(thing)
	if len(obs) == 0 {
		return 0
	}
	return obs[0].Asked.Sub(sec(9)) / time.Second
}

func TestClearRuleThatCannotBeDecided(t *testing.T) {
	s := newStory(t, fettle.ConditionSpec{Raise: "self.bad", Clear: "self.level < 80"})
	s.bad(1, "h1", false)
	s.is("not raised before, and not now", fettle.No)
	s.bad(2, "h1", true)
	s.is("raised", fettle.Yes)
	s.bad(3, "h1", false)
	s.is("neither raised nor known to be clear", fettle.Unknown)
	s.see(4, fettle.Observation{Facts: fettle.Facts{"level": int64(1)}})
	s.is("known to be clear, whatever the raise rule", fettle.No)
}

func TestDelay(t *testing.T) {
	s := newStory(t, fettle.ConditionSpec{Raise: "self.bad", Delay: 30 * time.Second})
	s.bad(0, "h1", false)
	s.bad(10, "h1", true)
	s.is("not yet", fettle.No)
	s.next("delay", 40)
	if got := s.tick(39); len(got) != 0 {
		t.Errorf("early tick: %+v", got)
	}
	if got := s.tick(40); len(got) != 1 || got[0].After.State != fettle.Yes {
		t.Errorf("tick: %+v", got)
	}
	c := s.is("held", fettle.Yes)
	wantTimes(t, "first seen", c.FirstSeen, 10)
	wantTimes(t, "last clear", c.LastClear, 0)
	s.next("raised", -1)

	s.bad(50, "h1", false)
	s.bad(60, "h1", true)
	s.bad(80, "h1", false)
	s.bad(85, "h1", true)
	s.tick(100)
	s.is("interrupted, counted anew", fettle.No)
	s.tick(115)
	s.is("held for all of the delay", fettle.Yes)
	s.blind(120, "h1", fettle.TimedOut)
	s.bad(121, "h1", true)
	s.is("the same episode needs no delay", fettle.Yes)
}

func TestDelayCountsFromWhenItWasAskedAndOnlyWhatIsKnown(t *testing.T) {
	s := newStory(t, fettle.ConditionSpec{Raise: "self.bad", Delay: 30 * time.Second})
	s.see(25, fettle.Observation{Asked: sec(10), Facts: fettle.Facts{"bad": true}})
	s.next("from asked", 40)
	s.blind(30, "h1", fettle.TimedOut)
	s.bad(35, "h1", true)
	s.tick(40)
	s.is("a gap in what is known", fettle.Unknown)
	s.next("from the new beginning", 65)
	s.tick(65)
	c := s.is("held", fettle.Yes)
	wantTimes(t, "first seen, before the gap", c.FirstSeen, 10)

	ahead := newStory(t, fettle.ConditionSpec{Raise: "self.bad", Delay: 30 * time.Second})
	ahead.see(0, fettle.Observation{Asked: sec(600), Facts: fettle.Facts{"bad": true}})
	ahead.next("an observer whose clock is ahead", 30)
}

func TestClearHold(t *testing.T) {
	s := newStory(t, fettle.ConditionSpec{Raise: "self.bad", ClearHold: 20 * time.Second})
	s.bad(0, "h1", false)
	s.is("was never raised", fettle.No)
	s.bad(10, "h1", true)
	s.bad(20, "h1", false)
	c := s.is("holding", fettle.Yes)
	wantTimes(t, "last clear, while raised", c.LastClear, 0)
	s.next("hold", 40)
	s.bad(30, "h1", true)
	s.next("ill again", -1)
	s.bad(35, "h1", false)
	s.blind(40, "h1", fettle.TimedOut)
	s.is("lost sight", fettle.Unknown)
	s.bad(45, "h1", false)
	s.is("must be seen clear for all of the hold", fettle.Unknown)
	s.next("hold", 65)
	s.tick(65)
	c = s.is("held", fettle.No)
	wantTimes(t, "last clear", c.LastClear, 45)
}

func TestExpiry(t *testing.T) {
	for _, before := range []bool{true, false} {
		s := newStory(t, fettle.ConditionSpec{Raise: "self.bad", Expiry: time.Minute})
		s.bad(10, "h1", before)
		s.next("expiry", 70)
		if got := s.tick(69); len(got) != 0 {
			t.Errorf("early: %+v", got)
		}
		got := s.tick(70)
		if !equalStates(states(got), []fettle.Tri{fettle.Unknown}) {
			t.Errorf("tick: %+v", got)
		}
		c := s.is("expired", fettle.Unknown)
		wantEqual(t, "reason", c.Evidence[0].Reason, condition.TooOld)
		if c.Evidence[0].Facts != nil {
			t.Error("facts that are no longer known are given as evidence")
		}
		s.next("nothing more", -1)
		s.bad(80, "h1", before)
		s.is("seen again", fettle.TriOf(before))
		s.next("expiry again", 140)
	}
}
