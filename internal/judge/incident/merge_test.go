package incident

import (
	"fmt"
	"testing"
	"testing/fstest"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/runbook"
)

func blank(t *testing.T) *Mind {
	t.Helper()
	m, err := New(Options{Books: func(env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
		return runbook.Load(fstest.MapFS{}, env, cats)
	}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

var (
	mergedAt = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	mended   = fettle.ConditionKey{Code: "a.b", Subject: "unit:h1/a.service"}
)

// went is what an agent went through alone: an incident with so many events, whose rung
// was begun so often.
func went(host fettle.Subject, events, attempts int) *Merged {
	r := Record{Incident: fettle.Incident{Schema: 1, ID: "i1", State: fettle.Held, Cause: mended, Opened: mergedAt}}
	for i := range events {
		r.Story = append(r.Story, fettle.Event{At: mergedAt, Kind: fettle.EvIntent, Text: fmt.Sprint(i)})
	}
	for i := range attempts {
		r.Progress.Attempts = append(r.Progress.Attempts, guard.Attempt{At: mergedAt.Add(time.Duration(i) * time.Second), Cause: mended, Rung: "a/b"})
	}
	r.Progress.Done = []DoneStep{{ID: "s"}} // without a plan it cannot be taken back
	return &Merged{Alone: fettle.Alone{Host: host, Chain: "c"}, Records: []Record{r}}
}

// TestMerge: what an agent tried alone counts for the ladder (S10), once, however often
// it is told; its incident is ended, is replaced only by more of its own story, and by
// nobody else's.
func TestMerge(t *testing.T) {
	m := blank(t)
	for _, c := range []struct {
		in       *Merged
		events   int // of the incident, with the note that closes it
		attempts int
	}{
		{went("host:h1", 2, 1), 3, 1},
		{went("host:h1", 2, 1), 3, 1},
		{went("host:h2", 9, 3), 3, 1},
		{went("host:h1", 3, 2), 4, 2},
	} {
		decided := m.Take(Input{At: mergedAt.Add(time.Minute), Merged: c.in})
		in, ok := m.Incident("i1")
		if !ok || in.State != fettle.Closed || in.Alone == nil || in.Alone.Host != "host:h1" || len(in.Story) != c.events {
			t.Errorf("the incident is %+v", in)
		}
		if got := m.tried(mended, "a/b"); got != c.attempts {
			t.Errorf("%d attempts count, want %d", got, c.attempts)
		}
		for _, d := range decided {
			if d.Kind != Save {
				t.Errorf("it decides to %s", d.Kind)
			}
		}
	}
	if err := m.CheckAnswer(Answer{Incident: "i1", Say: SayUndo, By: "ann"}); err == nil {
		t.Error("without a plan it could be taken back")
	}
	// Kept, and read back by the next leader, it counts as well.
	next := blank(t)
	next.Restore([]Record{*m.records["i1"]}, nil)
	next.Take(Input{At: mergedAt.Add(time.Minute)})
	if got := next.tried(mended, "a/b"); got != 2 {
		t.Errorf("after a restart %d attempts count", got)
	}
}
