package incident

import (
	"fmt"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/runbook"
)

// TestForget: only what has ended, is old enough and is not among the newest goes; what
// the ladder remembers stays, whatever it is told.
func TestForget(t *testing.T) {
	m, err := New(Options{Books: func(env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
		return runbook.Load(fstest.MapFS{}, env, cats)
	}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0).UTC()
	window := guard.Rate(fettle.Policy{}).Window
	var records []Record
	add := func(id string, ended time.Duration, state fettle.IncidentState) {
		r := Record{Incident: fettle.Incident{ID: id, State: state, Opened: now.Add(-ended - time.Hour), Ended: now.Add(-ended)}}
		r.Progress.Attempts = []guard.Attempt{{At: now.Add(-ended)}}
		records = append(records, r)
	}
	for i := range 5 {
		add(fmt.Sprint("old", i), 100*24*time.Hour-time.Duration(i)*time.Minute, fettle.Resolved)
	}
	add("recent", window, fettle.Closed)
	add("open", 200*24*time.Hour, fettle.Held)
	m.Restore(records, nil)
	m.Take(Input{At: now})
	if got := m.Forgettable(3, now.Add(-30*24*time.Hour)); !slices.Equal(got, []string{"old0", "old1", "old2"}) {
		t.Errorf("beyond the newest three: %v", got)
	}
	if got := m.Forgettable(3, now.Add(-200*24*time.Hour)); len(got) != 0 {
		t.Errorf("none is that old: %v", got)
	}
	if got := m.Forgettable(0, now); len(got) != 5 {
		t.Errorf("the ladder's memory is forgettable: %v", got)
	}
	m.Take(Input{At: now, Forget: []string{"old1", "recent", "open", "never"}})
	for id, want := range map[string]bool{"old0": true, "old1": false, "recent": true, "open": true} {
		if _, ok := m.Incident(id); ok != want {
			t.Errorf("%s is remembered: %v", id, ok)
		}
	}
	if len(m.attempts) != 1 || !m.attempts[0].At.Equal(now.Add(-window)) {
		t.Errorf("the ladder remembers %v", m.attempts)
	}
	// Whoever asks what was there before, or a moment ago, asks no more of what is forgotten.
	r := m.records["open"]
	m.fought(r)
	m.aftermath(r)
	if slices.Contains(m.past[r.Cause], "old1") || !slices.Contains(m.past[r.Cause], "old0") {
		t.Errorf("of this cause there were %v", m.past[r.Cause])
	}
}
