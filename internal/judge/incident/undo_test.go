package incident_test

import (
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
)

// What a rung did that failed half-way stands when the next one is tried, and a
// person can have it taken back, also after the next one failed too.
func TestUndoOfAnEarlierRung(t *testing.T) {
	d, at := failedTwice(t)
	in, before := d.only(), len(d.intents)
	d.take(at, incident.Input{Answer: &incident.Answer{Incident: in.ID, Say: incident.SayUndo, By: "anna"}})
	if len(d.intents) != before+1 || !d.intents[before].Undo || d.intents[before].Step.Action != "systemd.start" {
		t.Fatalf("after the undo intended: %+v:%s", d.intents[before:], d.story(d.only()))
	}
	d.answer(at+time.Second, fettle.Done)
	undone := 0
	for _, e := range d.only().Story {
		if e.Kind == fettle.EvUndone {
			undone++
		}
	}
	if in := d.only(); undone != 1 || in.State != fettle.Escalated {
		t.Errorf("it is %s (%s), and %d steps were taken back:%s", in.State, in.Why, undone, d.story(in))
	}
	if err := d.CheckAnswer(incident.Answer{Incident: in.ID, Say: incident.SayUndo, By: "anna"}); err == nil {
		t.Error("it can be taken back twice")
	}
}

// failedTwice is a trouble whose first rung failed half-way, and the others altogether.
func failedTwice(t *testing.T) (*doing, time.Duration) {
	t.Helper()
	d := newDoing(t, failedUnit()...)
	d.take(0, incident.Input{Observations: d.seen(0)})
	d.answer(time.Second, fettle.Done) // it was started, and has failed again
	at := time.Second
	for ; at < time.Hour && d.only().State != fettle.Escalated; at += time.Second {
		d.take(at, incident.Input{Observations: d.seen(at)})
		if n := len(d.intents); n > 1 {
			d.take(at, incident.Input{Outcome: &fettle.Outcome{Schema: 1, Key: d.intents[n-1].Key, Fate: fettle.NeverWillBe}})
		}
	}
	if in := d.only(); in.State != fettle.Escalated || in.Plan != nil && in.Plan.Rung == "start" {
		t.Fatalf("it is %s (%s):%s", in.State, in.Why, d.story(in))
	}
	return d, at
}

// What is to be taken back and cannot be judged, since what is known of it is too old, is
// looked at again, for a minute; only then a person is called.
func TestUndoLooksAgain(t *testing.T) {
	for _, c := range []struct {
		name  string
		blind time.Duration
		taken int
	}{{"seen again", 10 * time.Second, 1}, {"never seen again", time.Hour, 0}} {
		t.Run(c.name, func(t *testing.T) {
			d, at := failedTwice(t)
			before := len(d.intents)
			d.blind = true
			at += time.Hour
			d.take(at, incident.Input{Answer: &incident.Answer{Incident: d.only().ID, Say: incident.SayUndo, By: "anna"}})
			for s := time.Duration(0); s < 5*time.Minute; s += time.Second {
				d.blind = s < c.blind
				d.take(at+s, incident.Input{})
			}
			in := d.only()
			if taken := len(d.intents) - before; taken != c.taken || taken == 0 && (in.State != fettle.Escalated || !strings.Contains(in.Why, "could not be taken back")) {
				t.Errorf("it is %s (%s), intended: %+v:%s", in.State, in.Why, d.intents[before:], d.story(in))
			}
		})
	}
}

// An ended incident is not taken back while the same trouble is looked after in
// another: there would be two plans for one thing.
func TestNoUndoBesideAnOpenIncident(t *testing.T) {
	d := newDoing(t, failedUnit()...)
	d.take(0, incident.Input{Observations: d.seen(0)})
	first := d.only()
	d.answer(time.Second, fettle.Done)
	becomes(d.sees, "active")
	at := 2 * time.Second
	for ; at < time.Minute && !d.only().State.Ended(); at += time.Second {
		d.take(at, incident.Input{Observations: d.seen(at)})
	}
	undo := incident.Answer{Incident: first.ID, Say: incident.SayUndo, By: "anna"}
	if err := d.CheckAnswer(undo); d.only().State != fettle.Resolved || err != nil {
		t.Fatalf("it is %s, and its undo: %v:%s", d.only().State, err, d.story(d.only()))
	}
	becomes(d.sees, "failed")
	d.take(at+time.Second, incident.Input{Observations: d.seen(at + time.Second)})
	if err := d.CheckAnswer(undo); len(d.Incidents()) != 2 || err == nil {
		t.Errorf("%d incidents, and the undo of the first: %v", len(d.Incidents()), err)
	}
}
