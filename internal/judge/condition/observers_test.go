package condition_test

import (
	"testing"
	"time"

	"fettle/internal/fettle"
)

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

func TestLastClearNeverGoesBack(t *testing.T) {
	s := newStory(t, fettle.ConditionSpec{Raise: "self.bad"})
	s.bad(10, "h1", false)
	s.see(11, fettle.Observation{Host: "host:h2", Asked: sec(5), Facts: fettle.Facts{"bad": false}})
	wantTimes(t, "last clear", s.is("clear", fettle.No).LastClear, 10)
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
