package incident_test

import (
	"slices"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/incident"
)

// Where people work nothing begins, nobody is called about that, and at the end of
// the window what is still ill is mended at once: nobody needs to look again.
func TestMaintenanceWaits(t *testing.T) {
	for name, ends := range map[string]func(l *lone, at time.Duration){
		"by itself":   func(*lone, time.Duration) {},
		"by somebody": func(l *lone, at time.Duration) { l.take(at, incident.Input{EndWindow: "m-1", EndedBy: "ann"}) },
	} {
		l := newLone(t, fettle.Automatic, failedUnit()...)
		window := guard.Window{ID: "m-1", By: "ann", Hosts: []fettle.Subject{"host:h1"}, From: start, Until: start.Add(10 * time.Minute)}
		l.take(0, incident.Input{Window: &window})
		l.take(time.Second, incident.Input{Observations: l.seen(time.Second)})
		const over = 10 * time.Minute
		for at := 2 * time.Second; at < over; at += time.Second {
			l.take(at, incident.Input{Observations: l.seen(at)})
		}
		in := l.only()
		if slices.ContainsFunc(in.Story, func(e fettle.Event) bool { return e.Kind == fettle.EvIntent }) || len(l.calls) > 0 {
			t.Fatalf("%s: while people work there: %s (%s), calls %q", name, in.State, in.Why, l.calls)
		}
		if next, ok := l.Next(); !ok || next.After(start.Add(over)) {
			t.Errorf("%s: it wakes up at %v, after the window's end", name, next)
		}
		ends(l, over)
		l.take(over, incident.Input{})
		in = l.only()
		if !slices.ContainsFunc(in.Story, func(e fettle.Event) bool { return e.Kind == fettle.EvIntent }) {
			t.Errorf("%s: the window is over, and nothing is done: %s (%s)", name, in.State, in.Why)
		}
		if len(l.Windows()) > 0 {
			t.Errorf("%s: a window that is over is still there: %v", name, l.Windows())
		}
	}
}
