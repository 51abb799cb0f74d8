package loop_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/store"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
	"fettle/internal/loop"
	"fettle/internal/machine/memmachine"
)

// leading is a loop that runs over a store, with a mind that knows nothing.
func leading(t *testing.T, st loop.Store) (*loop.Loop, func()) {
	t.Helper()
	mind, err := incident.New(incident.Options{Books: func(env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
		return runbook.Load(fstest.MapFS{}, env, cats)
	}})
	if err != nil {
		t.Fatal(err)
	}
	l := loop.New(loop.Options{Mind: mind, Store: st, Hands: loop.Local{}, Clock: memmachine.New(memmachine.Options{}).Ports().Clock})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	return l, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("loop: %v", err)
		}
	}
}

var hostAlone = fettle.Alone{Host: "host:h1", Chain: "c1", Permit: "p1"}

// told is the story of n entries after another number of them, and of an incident with
// that many events in all.
func told(after, n int) loop.Story {
	s := loop.Story{Alone: hostAlone, Before: at(after)}
	for i := after + 1; i <= after+n; i++ {
		s.Lines = append(s.Lines, loop.Line{Head: at(i), Entry: loop.Entry{At: time.Unix(int64(i), 0), Kind: "alone", Incident: "i1", Text: fmt.Sprint("line ", i), Data: json.RawMessage(`{}`)}})
	}
	cause := fettle.ConditionKey{Code: "a.b", Subject: "unit:h1/a.service"}
	r := incident.Record{Incident: fettle.Incident{Schema: 1, ID: "i1", Opened: time.Unix(1, 0), State: fettle.Held, Cause: cause}}
	for i := range after + n {
		r.Story = append(r.Story, fettle.Event{At: time.Unix(int64(i), 0), Kind: fettle.EvNote, Text: fmt.Sprint("event ", i)})
	}
	r.Progress.Attempts = []guard.Attempt{{At: time.Unix(1, 0), Cause: cause, Rung: "b/r"}}
	s.Records = []incident.Record{r}
	return s
}

func at(n int) loop.Head {
	if n == 0 {
		return loop.Head{}
	}
	return loop.Head{Entries: int64(n), Hash: fmt.Sprint("hash", n)}
}

func logOf(t *testing.T, st loop.Store) (lines []string, all int) {
	t.Helper()
	if err := st.Log(t.Context(), 0, func(e loop.Entry) error {
		all++
		if e.Kind == "alone" {
			lines = append(lines, e.Text)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return lines, all
}

// TestStoryIsTakenOnce: told again, in the same parts or others, by the same leader or
// the next, nothing stands twice in the log; the incident is ended and stays.
func TestStoryIsTakenOnce(t *testing.T) {
	st := store.NewMemory("f")
	l, stop := leading(t, st)
	merge := func(s loop.Story, want int) {
		t.Helper()
		head, err := l.Merge(t.Context(), s)
		if err != nil || head != at(want) {
			t.Fatalf("taken to %+v, %v; want %+v", head, err, at(want))
		}
	}
	merge(told(0, 3), 3)
	merge(told(0, 3), 3)
	merge(told(0, 2), 3)
	merge(told(1, 4), 5)
	stop()
	l, stop = leading(t, st)
	defer stop()
	merge(told(0, 5), 5)
	merge(told(5, 1), 6)
	lines, _ := logOf(t, st)
	if want := []string{"line 1", "line 2", "line 3", "line 4", "line 5", "line 6"}; !slices.Equal(lines, want) {
		t.Errorf("the log has %v", lines)
	}
	if _, err := st.Check(t.Context()); err != nil {
		t.Error(err)
	}
	var list []fettle.Incident
	if err := l.Ask(t.Context(), func(m *incident.Mind) { list = m.Incidents() }); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].State != fettle.Closed || !list[0].Alone.Same(hostAlone) || list[0].Alone.Events != 6 || len(list[0].Story) != 7 {
		t.Errorf("incidents: %+v", list)
	}
	state, err := st.Load(t.Context())
	if err != nil || len(state.Records) != 1 || len(state.Records[0].Progress.Attempts) != 1 || len(state.Merged) != 1 {
		t.Errorf("kept: %+v, %v", state, err)
	}
}

// TestStoryThatDoesNotFit: what contradicts what was told, or leaves something out, is
// refused, and nothing of it is kept; and nobody's incident is replaced by an agent's.
func TestStoryThatDoesNotFit(t *testing.T) {
	st := store.NewMemory("f")
	l, stop := leading(t, st)
	defer stop()
	if _, err := l.Merge(t.Context(), told(0, 3)); err != nil {
		t.Fatal(err)
	}
	_, before := logOf(t, st)
	fork, rewritten, gap := told(3, 1), told(0, 4), told(4, 1)
	fork.Before.Hash = "other"
	rewritten.Lines[2].Head.Hash = "other"
	for name, s := range map[string]loop.Story{"fork": fork, "rewritten": rewritten, "gap": gap} {
		if head, err := l.Merge(t.Context(), s); err == nil || (name == "gap") == errors.Is(err, loop.ErrFork) {
			t.Errorf("%s: %+v, %v", name, head, err)
		}
	}
	other := told(0, 9)
	other.Alone.Host, other.Lines = "host:h2", nil
	if _, err := l.Merge(t.Context(), other); err != nil {
		t.Error(err)
	}
	if _, after := logOf(t, st); after != before {
		t.Errorf("the log had %d entries and has %d", before, after)
	}
	if err := l.Ask(t.Context(), func(m *incident.Mind) {
		if in, ok := m.Incident("i1"); !ok || in.Alone.Host != "host:h1" {
			t.Errorf("the incident is %+v", in)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// failing is a store of which a Commit fails, once.
type failing struct {
	*store.Memory
	fail bool
}

func (f *failing) Commit(ctx context.Context, t loop.Txn) error {
	if f.fail && len(t.Merged) > 0 {
		f.fail = false
		return errors.New("the disk is full")
	}
	return f.Memory.Commit(ctx, t)
}

// TestStoryIsDurableWhenTaken: what could not be kept is not said to be taken; told
// again, it stands once in the log.
func TestStoryIsDurableWhenTaken(t *testing.T) {
	st := &failing{Memory: store.NewMemory("f"), fail: true}
	l, stop := leading(t, st)
	defer stop()
	if head, err := l.Merge(t.Context(), told(0, 3)); err == nil {
		t.Errorf("taken to %+v", head)
	}
	if head, err := l.Merge(t.Context(), told(0, 3)); err != nil || head != at(3) {
		t.Errorf("told again: %+v, %v", head, err)
	}
	if lines, _ := logOf(t, st); len(lines) != 3 {
		t.Errorf("the log has %v", lines)
	}
}
