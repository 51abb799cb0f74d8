package incident_test

import (
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
)

// What a rung did that failed half-way stands when the next one is tried, and a
// person can have it taken back, also after the next one failed too.
func TestUndoOfAnEarlierRung(t *testing.T) {
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
	in := d.only()
	if in.State != fettle.Escalated || in.Plan != nil && in.Plan.Rung == "start" {
		t.Fatalf("it is %s (%s):%s", in.State, in.Why, d.story(in))
	}
	before := len(d.intents)
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
