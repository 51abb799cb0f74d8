package condition_test

import (
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/condition"
)

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
