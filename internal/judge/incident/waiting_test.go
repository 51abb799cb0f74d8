package incident_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/incident"
)

// TestTakenOverIsNotAskedAgainAtOnce: after a restart an incident that a person has
// taken over is due at once, and there is nothing to do about it: the mind must not
// be asked again and again at the same moment. Found by the simulator.
func TestTakenOverIsNotAskedAgainAtOnce(t *testing.T) {
	d := newLone(t, fettle.Approve, failedUnit()...)
	d.take(0, incident.Input{Observations: d.seen(0)})
	d.take(time.Second, incident.Input{Answer: &incident.Answer{Incident: d.only().ID, Say: incident.SayRefuse, By: "anna"}})
	after := newLone(t, fettle.Approve, failedUnit()...)
	after.Restore(d.records, nil)
	now := time.Minute
	for range 5 {
		after.take(now, incident.Input{})
		if at, due := after.Next(); due && !at.After(start.Add(now)) {
			now = at.Sub(start) // it is asked again at once
			continue
		}
		return
	}
	t.Errorf("it is due again and again at the same moment: %v", after.only().State)
}

// TestRefusedForLong: a step that is refused for minutes has a person called about
// it, once, and is asked about as before; what a person froze has nobody called.
// Found by the simulator: two plans that waited for each other waited for ever.
func TestRefusedForLong(t *testing.T) {
	for _, c := range []struct {
		name   string
		freeze bool
		calls  int
	}{{"facts that stay too old", false, 1}, {"a freeze", true, 0}} {
		t.Run(c.name, func(t *testing.T) {
			d := newLone(t, fettle.Automatic, failedUnit()...)
			if c.freeze {
				d.take(0, incident.Input{Freeze: &guard.Freeze{By: "anna", Since: start}})
			}
			for at := time.Duration(0); at < 10*time.Minute; at += time.Second {
				// What is known is always a while old: no guard that asks for fresh facts is content.
				list := d.seen(at)
				for i := range list {
					list[i].Asked = list[i].Asked.Add(-30 * time.Second)
				}
				d.sees = nil
				d.take(at, incident.Input{Observations: list})
				d.sees = failedUnit()
			}
			n := 0
			for _, call := range d.calls {
				if strings.Contains(call, "has been refused for") {
					n++
				}
			}
			if n != c.calls {
				t.Errorf("called %d times, want %d: %q", n, c.calls, d.calls)
			}
		})
	}
}

// TestFateNeverKnown: of a step whose machine never comes back a person hears, once,
// although it is asked about for ever. Found by the simulator: a host that was imaged
// anew in the middle of a step kept everything else waiting.
func TestFateNeverKnown(t *testing.T) {
	d := newDoing(t, failedUnit()...)
	var calls []string
	var key string
	for at := time.Duration(0); at < 20*time.Minute; at += time.Second {
		in := incident.Input{At: start.Add(at), Observations: d.seen(at)}
		for queue := d.Take(in); len(queue) > 0; queue = queue[1:] {
			switch dec := queue[0]; dec.Kind {
			case incident.Call:
				calls = append(calls, dec.Text)
			case incident.Gather:
				queue = append(queue, d.Take(incident.Input{At: in.At, Observations: d.seen(at), Gathered: dec.Key})...)
			case incident.Intend, incident.Recover:
				key = dec.Key
				queue = append(queue, d.Take(incident.Input{At: in.At, Outcome: &fettle.Outcome{Schema: 1, Key: key, Fate: fettle.UnknownFate}})...)
			case incident.Save, incident.Look:
			}
		}
	}
	if n := len(slices.DeleteFunc(calls, func(s string) bool { return !strings.Contains(s, "not known what became of "+key) })); key == "" || n != 1 {
		t.Errorf("about %q a person was called %d times, want once", key, n)
	}
}

// An agent that refuses the step again and again (a freeze of its host that nobody
// lifts, another incarnation than was thought) is asked less and less often, and
// somebody is called; the refusals are no attempts that the ladder remembers.
func TestRefusedByTheAgentForLong(t *testing.T) {
	l := newLone(t, fettle.Automatic, failedUnit()...)
	l.take(0, incident.Input{Observations: l.seen(0)})
	asked := 0
	for at := time.Second; at < 4*time.Minute; at += time.Second {
		in := incident.Input{Observations: l.seen(at)}
		if r := l.records[0]; r.Progress.Phase == incident.PhaseIntent {
			asked++
			in.Outcome = &fettle.Outcome{Schema: 1, Key: r.Progress.Key, Fate: fettle.NeverWillBe, Class: fettle.Refused, Error: "it is frozen"}
		}
		l.take(at, in)
	}
	if len(l.calls) != 1 || !strings.Contains(l.calls[0], "it is frozen") {
		t.Errorf("calls %q, want one that says why the agent refuses", l.calls)
	}
	if asked < 5 || asked > 40 {
		t.Errorf("the agent was asked %d times in four minutes", asked)
	}
	if r := l.records[0]; r.Progress.Attempt != 0 {
		t.Errorf("%d attempts are remembered, and nothing was tried", r.Progress.Attempt)
	}
}

// TestRefusalSaysNothingOfTheFate: an agent that refuses to be asked (its executor has
// met no server since it started, it doubts the log, the leader is not its own) has not
// said that the step was never begun. It is asked again under the same key, what the step
// claims stays claimed, and nothing is begun beside it, until somebody knows.
func TestRefusalSaysNothingOfTheFate(t *testing.T) {
	refusal := fettle.Outcome{Schema: 1, Fate: fettle.UnknownFate, Class: fettle.Refused, Error: "no server was met since this executor started"}
	lost := fettle.Outcome{Schema: 1, Fate: fettle.UnknownFate, Class: fettle.NoAnswer, Error: "the agent did not answer in time"}
	for _, c := range []struct {
		name  string
		first fettle.Outcome // of the dispatch
		last  fettle.Fate    // what is found in the end
	}{
		{"its answer was lost, and it was done", lost, fettle.Done},
		{"refused, and it was done", refusal, fettle.Done},
		{"refused, and it never will be", refusal, fettle.NeverWillBe},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLone(t, fettle.Automatic, failedUnit()...)
			l.take(0, incident.Input{Observations: l.seen(0)})
			key, refused, known := "", 0, false
			for at := time.Second; at < 2*time.Minute && !known; at += time.Second {
				in := incident.Input{Observations: l.seen(at)}
				switch r := l.records[0]; {
				case r.Progress.Phase == incident.PhaseIntent && key == "":
					key = r.Progress.Key
					out := c.first
					out.Key = key
					in.Outcome = &out
				case key == "":
				case r.Progress.Key != key:
					t.Fatalf("%s was begun, and what became of %s is not known", r.Progress.Key, key)
				case refused < 4:
					refused++
					out := refusal
					out.Key = key
					in.Outcome = &out
				default:
					in.Outcome = &fettle.Outcome{Schema: 1, Key: key, Fate: c.last}
					known = true
				}
				l.take(at, in)
				if r := l.records[0]; key != "" && !known && !strings.Contains(r.Why, "no server was met") && refused > 0 {
					t.Errorf("after a refusal its reason is %q", r.Why)
				}
			}
			if !known {
				t.Fatal("nothing was ever begun")
			}
			if in := l.only(); c.last == fettle.Done && in.State != fettle.Verifying {
				t.Errorf("it was done, and the incident is %s (%s)", in.State, in.Why)
			}
			for at := 2 * time.Minute; at < 3*time.Minute; at += time.Second {
				l.take(at, incident.Input{Observations: l.seen(at)})
			}
			if again := l.records[0].Progress.Key != key; c.last == fettle.NeverWillBe && !again {
				t.Error("it never will be, and is not tried again under a new key")
			}
		})
	}
}
