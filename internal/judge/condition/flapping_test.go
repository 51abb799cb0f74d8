package condition_test

import (
	"testing"
	"time"

	"fettle/internal/fettle"
)

func TestFlapping(t *testing.T) {
	s := newStory(t, fettle.ConditionSpec{Raise: "self.bad", Flap: fettle.Flap{Changes: 4, Window: time.Minute}})
	s.bad(0, "h1", false)
	for i := range 3 {
		s.bad(10+i, "h1", i%2 == 0)
		if c := s.is("three changes", fettle.TriOf(i%2 == 0)); c.Flapping {
			t.Errorf("flaps after %d changes", i+1)
		}
	}
	s.bad(20, "h1", false)
	if c := s.is("reporting goes on", fettle.No); !c.Flapping {
		t.Error("four changes in a minute are not called flapping")
	}
	s.next("quiet", 80)
	s.bad(30, "h1", true)
	s.bad(40, "h1", true) // no change
	s.next("the quiet begins anew", 90)
	s.blind(50, "h1", fettle.TimedOut)
	s.bad(51, "h1", true)
	s.next("not to know is not a change", 90)
	if c := s.is("still", fettle.Yes); !c.Flapping {
		t.Error("flapping ended early")
	}
	got := s.tick(90)
	if len(got) != 1 || got[0].After.Flapping || !got[0].Before.Flapping || got[0].After.State != fettle.Yes {
		t.Errorf("end of flapping: %+v", got)
	}
	s.next("all quiet", -1)
	s.bad(95, "h1", false)
	if c := s.is("one change", fettle.No); c.Flapping {
		t.Error("one change after the quiet flaps")
	}
}

func TestFlappingThatEndedUnnoticedIsOver(t *testing.T) {
	s := newStory(t, fettle.ConditionSpec{Raise: "self.bad", Flap: fettle.Flap{Changes: 2, Window: 20 * time.Second}})
	s.bad(0, "h1", true)
	s.bad(1, "h1", false)
	if c := s.is("two changes", fettle.No); !c.Flapping {
		t.Fatal("does not flap")
	}
	s.bad(30, "h1", true) // nobody ticked at 21
	if c := s.is("one change since", fettle.Yes); c.Flapping {
		t.Error("flaps after a quiet time")
	}
}

func TestSlowChangesDoNotFlap(t *testing.T) {
	s := newStory(t, fettle.ConditionSpec{Raise: "self.bad", Flap: fettle.Flap{Changes: 3, Window: 20 * time.Second}})
	for i := range 20 {
		s.bad(11*i, "h1", i%2 == 0)
		if c := s.is("every eleven seconds", fettle.TriOf(i%2 == 0)); c.Flapping {
			t.Fatalf("flaps at change %d", i)
		}
	}
}

func TestTitleAndEvidence(t *testing.T) {
	s := newStory(t, fettle.ConditionSpec{Raise: "self.level > 3", Title: "{label} is at {level}", Observers: fettle.AnyObserver})
	s.see(1, fettle.Observation{Facts: fettle.Facts{"level": int64(1), "label": "a", "bad": true}})
	s.see(2, fettle.Observation{Host: "host:h2", Facts: fettle.Facts{"level": int64(9), "label": "b"}})
	c := s.is("raised", fettle.Yes)
	wantEqual(t, "title, by the one who says so", c.Title, "b is at 9")
	if len(c.Evidence) != 2 || !c.Evidence[0].Facts.Equal(fettle.Facts{"level": int64(1)}) || c.Evidence[1].Observer != (fettle.Observer{Host: "host:h2", Probe: "t.thing"}) {
		t.Errorf("evidence %+v", c.Evidence)
	}
	s.blind(3, "h1", fettle.TimedOut)
	s.blind(4, "h2", fettle.TimedOut)
	wantEqual(t, "title, when nobody knows any more", s.is("unknown", fettle.Unknown).Title, "b is at 9")

	s = newStory(t, fettle.ConditionSpec{Raise: "unreachable > 0", Title: "{label} does not answer"})
	s.blind(1, "h1", fettle.Unreachable)
	wantEqual(t, "title without facts", s.is("raised", fettle.Yes).Title, "? does not answer")
}

func TestRestoredConditionsGoOn(t *testing.T) {
	spec := fettle.ConditionSpec{Raise: "self.bad", Delay: time.Minute, ClearHold: 30 * time.Second}
	s := newStory(t, spec)
	past := fettle.Condition{
		ConditionKey: fettle.ConditionKey{Code: "t.c0", Subject: thing}, State: fettle.Yes,
		Since: sec(1), FirstSeen: sec(0), LastClear: sec(-5), Flapping: true,
	}
	s.w.SetCondition(past)
	s.see(99, partOf("2", fettle.Facts{"bad": false}))
	s.is("not yet looked at since the restart", fettle.Yes)
	s.bad(100, "h1", true)
	c := s.is("the same episode, without a new delay", fettle.Yes)
	wantTimes(t, "since", c.Since, 1)
	wantTimes(t, "first seen", c.FirstSeen, 0)
	if !c.Flapping {
		t.Error("flapping is forgotten")
	}
	s.bad(110, "h1", false)
	s.is("clear hold", fettle.Yes)
	s.tick(140)
	s.is("clear", fettle.No)

	reads := fettle.ConditionSpec{Raise: "self.bad && !peers.exists(p, p.bad)"}
	beside := newStory(t, reads)
	beside.w.SetCondition(past)
	beside.see(50, fettle.Observation{Subject: system, Probe: "t.system", Edges: []fettle.Edge{{From: thing, Rel: fettle.PartOf, To: system}}})
	if got := beside.see(51, partOf("2", fettle.Facts{"bad": false})); len(got) != 1 || got[0].After.Subject == thing {
		t.Errorf("a peer was looked at first: %+v", got)
	}
	beside.is("not yet looked at itself", fettle.Yes)

	gone := newStory(t, spec)
	gone.w.SetCondition(past)
	if got := gone.e.Touch(gone.w, sec(50), thing); len(got) != 1 || got[0].After.State != fettle.No {
		t.Errorf("restored, then gone: %+v", got)
	}
}
