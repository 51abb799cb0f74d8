package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"fettle/internal/act/probe"
	"fettle/internal/fettle"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/condition"
	"fettle/internal/judge/expr"
	"fettle/internal/machine/memmachine"
)

func newTestPicture(t *testing.T) *picture {
	t.Helper()
	cats := []fettle.Catalogue{(&lamp{}).Catalogue()}
	env, err := expr.New(cats)
	if err != nil {
		t.Fatal(err)
	}
	judge, err := condition.New(cats, env, fettle.HostScope)
	if err != nil {
		t.Fatal(err)
	}
	return newPicture(memmachine.New(memmachine.Options{}).Ports().Clock, judge)
}

func shines(name string, on bool, at time.Time) fettle.Observation {
	return fettle.Observation{Subject: fettle.NewSubject("lamp", "h1", name), Host: "host:h1", Probe: "lamp.state", Asked: at, Facts: fettle.Facts{"on": on}}
}

// TestFlickerIsTold: what came and went between two messages is told, all of it
// and in order; flap damping rests on that.
func TestFlickerIsTold(t *testing.T) {
	p := newTestPicture(t)
	p.link()
	at := time.Now()
	for i := range 5 {
		p.take(probe.Batch{Changed: []fettle.Observation{shines("a", i%2 == 0, at.Add(time.Duration(i)))}})
	}
	got := p.pending()
	var states []fettle.Tri
	for _, c := range got.conditions {
		states = append(states, c.State)
	}
	if len(got.observations) != 5 || !slices.Equal(states, []fettle.Tri{fettle.No, fettle.Yes, fettle.No, fettle.Yes, fettle.No}) {
		t.Errorf("%d observations, conditions %v", len(got.observations), states)
	}
	if again := p.pending(); len(again.observations)+len(again.conditions)+len(again.alive) != 0 {
		t.Errorf("told twice: %+v", again)
	}
}

// TestTooMuchIsFolded: a flood keeps the latest of each, and not more.
func TestTooMuchIsFolded(t *testing.T) {
	p := newTestPicture(t)
	p.link()
	at := time.Now()
	for i := range 3 * foldAt {
		p.take(probe.Batch{Changed: []fettle.Observation{shines(fmt.Sprint("l", i%10), i/10%2 == 0, at.Add(time.Duration(i)))}})
	}
	p.take(probe.Batch{Changed: []fettle.Observation{shines("l3", true, at.Add(time.Hour))}})
	got := p.pending()
	if len(got.observations) > foldAt || len(got.conditions) > foldAt {
		t.Errorf("%d observations and %d conditions wait", len(got.observations), len(got.conditions))
	}
	last := map[fettle.Subject]fettle.Observation{}
	for _, o := range got.observations {
		last[o.Subject] = o
	}
	if len(last) != 10 || last["lamp:h1/l3"].Facts["on"] != true {
		t.Errorf("the latest are %v", last)
	}
}

// TestALinkBeginsWithAll: a new session is told everything that is, once, and
// nothing of what is gone.
func TestALinkBeginsWithAll(t *testing.T) {
	p := newTestPicture(t)
	at := time.Now()
	gone := shines("c", false, at.Add(2))
	gone.Gone = true
	p.take(probe.Batch{Changed: []fettle.Observation{shines("a", true, at), shines("b", false, at), shines("c", false, at), shines("a", false, at.Add(1)), gone}})
	p.take(probe.Batch{Alive: []probe.Alive{{Subject: "lamp:h1/b", Probe: "lamp.state", Asked: at.Add(time.Second)}, {Subject: "lamp:h1/nobody", Probe: "lamp.state", Asked: at}}})
	if got := p.pending(); len(got.observations)+len(got.conditions)+len(got.alive) != 0 {
		t.Errorf("without a session something waits: %+v", got)
	}
	p.link()
	got := p.pending()
	if len(got.observations) != 2 || got.observations[0].Facts["on"] != false || !got.observations[1].Asked.Equal(at.Add(time.Second)) {
		t.Errorf("observations %+v", got.observations)
	}
	if len(got.conditions) != 2 || !got.conditions[0].Raised() || !got.conditions[1].Raised() {
		t.Errorf("conditions %+v", got.conditions)
	}
	p.take(probe.Batch{Alive: []probe.Alive{{Subject: "lamp:h1/b", Probe: "lamp.state", Asked: at.Add(2 * time.Second)}}})
	if got := p.pending(); len(got.alive) != 1 || len(got.observations) != 0 {
		t.Errorf("a confirmation is %+v", got)
	}
	p.take(probe.Batch{Alive: []probe.Alive{{Subject: "lamp:h1/b", Probe: "lamp.state", Asked: at}}})
	p.link()
	if got := p.pending(); !got.observations[1].Asked.Equal(at.Add(2 * time.Second)) {
		t.Errorf("a late confirmation made it older: %+v", got.observations[1])
	}
}

// TestTooLargeToTell: an observation that no message takes becomes one that says
// so, and is unknown.
func TestTooLargeToTell(t *testing.T) {
	now := time.Now()
	o := shines("a", true, now.Add(-time.Second))
	o.Facts["text"] = strings.Repeat("x", wire.MaxItem)
	w := packed(o, now)
	got, err := wire.Unpack[fettle.Observation](w.GetJson())
	if err != nil || got.Known() || got.Subject != o.Subject || w.GetAgeNs() != int64(time.Second) {
		t.Errorf("it became %+v of age %d, %v", got, w.GetAgeNs(), err)
	}
}
