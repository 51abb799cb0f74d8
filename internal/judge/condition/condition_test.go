package condition_test

import (
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/condition"
	"fettle/internal/judge/expr"
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

func TestRaisedConditionDoesNotClearBecauseItsOnlyWitnessFellSilent(t *testing.T) {
	s := newStory(t, fettle.ConditionSpec{Raise: "self.bad", Expiry: time.Minute})
	s.bad(0, "h1", true)
	s.bad(50, "h2", false)
	s.is("one says yes", fettle.Yes)
	s.tick(60)
	s.is("the one is silent", fettle.Unknown)
	s.bad(70, "h2", false)
	s.is("the other has looked again", fettle.No)

	s = newStory(t, fettle.ConditionSpec{Raise: "self.bad", Expiry: time.Minute})
	s.bad(0, "h1", true)
	s.bad(1, "h2", false)
	s.blind(2, "h1", fettle.TimedOut)
	s.bad(3, "h2", false)
	s.is("the one that saw it still tries, in vain", fettle.Unknown)
	s.bad(4, "h1", false)
	s.is("it sees that it is over", fettle.No)
}

func TestAgreement(t *testing.T) {
	const y, n, u = 'y', 'n', 'u'
	for _, tc := range []struct {
		words          string
		any, all, most fettle.Tri
	}{
		{"y", fettle.Yes, fettle.Yes, fettle.Yes},
		{"n", fettle.No, fettle.No, fettle.No},
		{"u", fettle.Unknown, fettle.Unknown, fettle.Unknown},
		{"yn", fettle.Yes, fettle.No, fettle.Unknown},
		{"yyn", fettle.Yes, fettle.No, fettle.Yes},
		{"ynn", fettle.Yes, fettle.No, fettle.No},
		{"yu", fettle.Yes, fettle.Yes, fettle.Unknown},
		{"nu", fettle.No, fettle.No, fettle.Unknown},
		{"yyu", fettle.Yes, fettle.Yes, fettle.Yes},
		{"nnu", fettle.No, fettle.No, fettle.No},
		{"yuu", fettle.Yes, fettle.Yes, fettle.Unknown},
		{"uu", fettle.Unknown, fettle.Unknown, fettle.Unknown},
		{"ynu", fettle.Yes, fettle.No, fettle.Unknown},
	} {
		for how, want := range map[fettle.Agreement]fettle.Tri{
			"": tc.any, fettle.AnyObserver: tc.any, fettle.AllObservers: tc.all, fettle.MostHosts: tc.most,
		} {
			s := newStory(t, fettle.ConditionSpec{Raise: "self.bad", Observers: how})
			for i, w := range tc.words {
				host := "h" + string(rune('1'+i))
				if w == u {
					s.blind(1, host, fettle.TimedOut)
				} else {
					s.bad(1, host, w == y)
				}
			}
			s.is(tc.words+" "+string(how), want)
		}
	}
}

func TestOnsetOverSeveralObservers(t *testing.T) {
	for how, want := range map[fettle.Agreement]struct{ firstSeen, lastClear int }{
		fettle.AnyObserver:  {10, 1}, // the first that says yes; all had said no at 1
		fettle.AllObservers: {30, 3}, // the last that says yes; one had said no at 3
		fettle.MostHosts:    {20, 2},
	} {
		s := newStory(t, fettle.ConditionSpec{Raise: "self.bad", Observers: how})
		for i, host := range []string{"h1", "h2", "h3"} {
			s.w.Observe(fettle.Observation{Subject: thing, Probe: "t.thing", Host: fettle.HostSubject(host), Asked: sec(i + 1), Facts: fettle.Facts{"bad": false}})
		}
		s.e.Touch(s.w, sec(5), thing)
		for i, host := range []string{"h1", "h2", "h3"} {
			s.w.Observe(fettle.Observation{Subject: thing, Probe: "t.thing", Host: fettle.HostSubject(host), Asked: sec(10 * (i + 1)), Facts: fettle.Facts{"bad": true}})
		}
		s.e.Touch(s.w, sec(35), thing)
		c := s.is(string(how), fettle.Yes)
		wantTimes(t, string(how)+": first seen", c.FirstSeen, want.firstSeen)
		wantTimes(t, string(how)+": last clear", c.LastClear, want.lastClear)
	}
}

func TestUnreachableIsAFactOnlyAsANumber(t *testing.T) {
	s := newStory(t, fettle.ConditionSpec{Raise: "unreachable >= 2 && unreachable == observers", Expiry: time.Minute})
	s.blind(0, "h1", fettle.Unreachable)
	s.is("one", fettle.No)
	s.blind(1, "h2", fettle.TimedOut)
	s.is("an observer that was cut off asked nothing", fettle.No)
	s.blind(10, "h3", fettle.Unreachable)
	c := s.is("two independent hosts", fettle.Yes)
	if !equalStates(says(c), []fettle.Tri{fettle.Yes, fettle.Unknown, fettle.Yes}) {
		t.Errorf("says %v", says(c))
	}
	s.tick(60)
	s.is("only one of them still knows", fettle.Unknown)
	s.tick(70)
	s.is("nobody knows", fettle.Unknown)
	s.bad(71, "h2", false)
	s.is("one got an answer, after both fell silent", fettle.No)

	alone := newStory(t, fettle.ConditionSpec{Raise: "unreachable >= 2"})
	alone.blind(0, "h1", fettle.PermissionDenied)
	alone.is("never clear because nobody could ask", fettle.Unknown)
}

func TestHostFactsAreTheSameObservers(t *testing.T) {
	s := newStory(t, fettle.ConditionSpec{Raise: "self.bad && host.load > 5"})
	h1, h2 := fettle.HostSubject("h1"), fettle.HostSubject("h2")
	s.see(1, fettle.Observation{Facts: fettle.Facts{"bad": true}, Edges: []fettle.Edge{{From: thing, Rel: fettle.RunsOn, To: h1}}})
	s.is("the host is not known", fettle.Unknown)
	s.see(2, fettle.Observation{Subject: h1, Host: h2, Probe: "t.host", Facts: fettle.Facts{"load": int64(9)}})
	s.is("only another observer knows the host", fettle.Unknown)
	got := s.see(3, fettle.Observation{Subject: h1, Host: h1, Probe: "t.host", Facts: fettle.Facts{"load": int64(9)}})
	if !equalStates(states(got), []fettle.Tri{fettle.Yes}) {
		t.Errorf("touching the host: %+v", got)
	}
	s.see(4, fettle.Observation{Subject: h1, Host: h1, Probe: "t.host", Facts: fettle.Facts{"load": int64(1)}})
	s.is("the host has recovered", fettle.No)
}

// partOf is an observation of another thing of the system.
func partOf(name string, facts fettle.Facts) fettle.Observation {
	of := fettle.NewSubject("thing", "s", name)
	return fettle.Observation{Subject: of, Facts: facts, Edges: []fettle.Edge{{From: of, Rel: fettle.PartOf, To: system}}}
}

func TestNeighboursAreJudgedAgain(t *testing.T) {
	odd := fettle.ConditionSpec{Raise: "self.level != 0 && peers.all(p, p.level == 0)"}
	most := fettle.ConditionSpec{Code: "t.most", Kind: "system", Probe: "t.system", Raise: "parts.filter(p, has(p.bad) && p.bad).size() * 2 > self.size"}
	grown := fettle.ConditionSpec{Code: "t.grown", Kind: "thing", Probe: "t.thing", Raise: "whole.size > 3"}
	s := newStory(t, odd, most, grown)
	state := func(code fettle.Code, of fettle.Subject) fettle.Tri {
		c, _ := s.w.Condition(fettle.ConditionKey{Code: code, Subject: of})
		return c.State
	}
	s.see(1, fettle.Observation{Subject: system, Probe: "t.system", Facts: fettle.Facts{"size": int64(3)}})
	s.see(2, partOf("1", fettle.Facts{"bad": true, "level": int64(7)}))
	wantEqual(t, "alone it is the odd one", state("t.c0", thing), fettle.Yes)
	s.see(3, partOf("2", nil))
	wantEqual(t, "a peer that is not known", state("t.c0", thing), fettle.Unknown)
	s.see(4, partOf("2", fettle.Facts{"bad": false, "level": int64(7)}))
	wantEqual(t, "a peer is like it", state("t.c0", thing), fettle.No)
	wantEqual(t, "one of three", state("t.most", system), fettle.No)
	got := s.see(5, partOf("2", fettle.Facts{"bad": true, "level": int64(0)}))
	wantEqual(t, "the peer is no longer like it", state("t.c0", thing), fettle.Yes)
	wantEqual(t, "two of three", state("t.most", system), fettle.Yes)
	if len(got) != 2 || got[0].After.Subject != system || got[1].After.Subject != thing {
		t.Errorf("changes not sorted by key: %+v", got)
	}
	wantEqual(t, "whole", state("t.grown", thing), fettle.No)
	s.see(6, fettle.Observation{Subject: system, Probe: "t.system", Facts: fettle.Facts{"size": int64(4)}})
	wantEqual(t, "the whole has grown", state("t.grown", thing), fettle.Yes)
	wantEqual(t, "two of four", state("t.most", system), fettle.No)

	// An edge that goes is as good as a fact that changes.
	s.see(7, partOf("2", fettle.Facts{"bad": true, "level": int64(7)}))
	wantEqual(t, "like it again", state("t.c0", thing), fettle.No)
	left := partOf("2", fettle.Facts{"bad": true, "level": int64(7)})
	left.Edges = nil
	s.see(8, left)
	wantEqual(t, "the peer has left the whole", state("t.c0", thing), fettle.Yes)

	// Edges may be seen by looking at a third subject.
	two := fettle.NewSubject("thing", "s", "2")
	s.see(9, fettle.Observation{Subject: "host:h9", Probe: "t.host", Edges: []fettle.Edge{{From: two, Rel: fettle.PartOf, To: system}}})
	wantEqual(t, "it joined again, as a third one sees", state("t.c0", thing), fettle.No)
	s.see(10, fettle.Observation{Subject: "host:h9", Probe: "t.host", Gone: true})
	wantEqual(t, "and left", state("t.c0", thing), fettle.Yes)
}

func TestFactsOfNeighboursExpireToo(t *testing.T) {
	s := newStory(t, fettle.ConditionSpec{Raise: "peers.exists(p, p.bad)", Expiry: time.Minute})
	s.see(1, partOf("2", fettle.Facts{"bad": true}))
	s.see(40, partOf("1", nil))
	s.is("a peer is bad", fettle.Yes)
	s.next("the peer's facts", 61)
	s.tick(61)
	s.is("no longer known", fettle.Unknown)
}

func TestGoneSubjectsEndTheirConditions(t *testing.T) {
	s := newStory(t, fettle.ConditionSpec{Raise: "self.bad", Expiry: time.Hour})
	s.bad(1, "h1", true)
	s.bad(2, "h2", true)
	s.see(3, fettle.Observation{Host: "host:h1", Gone: true})
	c := s.is("one still sees it", fettle.Yes)
	wantEqual(t, "observers", len(c.Evidence), 1)
	got := s.see(4, fettle.Observation{Host: "host:h2", Gone: true})
	if len(got) != 1 || got[0].Before.State != fettle.Yes || got[0].After.State != fettle.No || !got[0].After.Since.Equal(sec(4)) {
		t.Fatalf("gone: %+v", got)
	}
	e := got[0].After.Evidence
	if len(e) != 1 || e[0].Says != fettle.No || e[0].Reason != condition.GoneReason || e[0].Observer.Host != "host:h2" {
		t.Errorf("evidence %+v", e)
	}
	if _, ok := s.w.Condition(got[0].After.ConditionKey); ok {
		t.Error("the world still has the condition")
	}
	s.next("nothing is due any more", -1)
	if got := s.e.Touch(s.w, sec(5), thing); len(got) != 0 {
		t.Errorf("ended twice: %+v", got)
	}
	s.bad(6, "h1", true)
	c = s.is("it is a new one", fettle.Yes)
	wantTimes(t, "since", c.Since, 6)
}

func TestGoneForOneProbeIsNotGoneForAnother(t *testing.T) {
	s := newStory(t, fettle.ConditionSpec{Raise: "self.bad"})
	s.see(1, fettle.Observation{Probe: "t.other", Facts: fettle.Facts{"extra": int64(1)}})
	if _, ok := s.w.Condition(fettle.ConditionKey{Code: "t.c0", Subject: thing}); ok {
		t.Error("judged without an observation by its probe")
	}
	s.bad(2, "h1", true)
	s.see(3, fettle.Observation{Probe: "t.other", Gone: true})
	s.is("its own probe still sees it", fettle.Yes)
}

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

	gone := newStory(t, spec)
	gone.w.SetCondition(past)
	if got := gone.e.Touch(gone.w, sec(50), thing); len(got) != 1 || got[0].After.State != fettle.No {
		t.Errorf("restored, then gone: %+v", got)
	}
}

func TestScopes(t *testing.T) {
	host := fettle.ConditionSpec{Code: "t.h", Raise: "self.bad", Scope: fettle.HostScope}
	cluster := fettle.ConditionSpec{Code: "t.k", Raise: "self.bad", Scope: fettle.ClusterScope}
	for want, scopes := range map[string][]fettle.Scope{"t.h": {fettle.HostScope}, "t.k": {fettle.ClusterScope}, "t.h t.k": nil} {
		s := &story{t, newStory(t).w, newEvaluator(t, catalogue(host, cluster), scopes...)}
		var codes []string
		for _, c := range s.bad(1, "h1", true) {
			codes = append(codes, string(c.After.Code))
		}
		wantEqual(t, "codes", strings.Join(codes, " "), want)
	}
}

func TestNewNamesAllThatIsWrong(t *testing.T) {
	cats := catalogue(
		fettle.ConditionSpec{Code: "t.a", Raise: "self.bd"},
		fettle.ConditionSpec{Code: "t.b", Raise: "self.bad", Clear: "self.level"},
		fettle.ConditionSpec{Code: "t.c", Raise: "self.bad", Title: "{lable}"},
		fettle.ConditionSpec{Code: "t.d", Raise: "self.bad", Title: "{label"},
		fettle.ConditionSpec{Code: "t.e", Raise: "self.bad", Delay: -1},
		fettle.ConditionSpec{Code: "t.f", Raise: "self.bad", Flap: fettle.Flap{Changes: 3}},
		fettle.ConditionSpec{Code: "t.g", Raise: "self.bad", Observers: "some"},
		fettle.ConditionSpec{Code: "t.h", Kind: "system", Probe: "t.thing", Raise: "self.bad"},
		fettle.ConditionSpec{Code: "t.i", Kind: "thing", Probe: "t.thong", Raise: "self.bad"},
		fettle.ConditionSpec{Code: "t.i", Raise: "self.bad"},
	)
	env, err := expr.New(cats)
	if err != nil {
		t.Fatal(err)
	}
	_, err = condition.New(cats, env)
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{
		`t.a: raise: 1:5: facts of t.thing: no "bd" (did you mean "bad"?)`, "t.b: clear: 1:1: its value is int", "t.c: title", "t.d: title", "t.e: delay",
		"t.f: flap", "t.g: unknown agreement", `t.h: it is about kind "system"`, `t.i: no catalogue declares its probe "t.thong"`, `"t.i" is declared twice`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
}
