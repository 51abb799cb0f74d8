package loop_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"fettle/internal/fettle"
	"fettle/internal/fleet/store"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

// full is a store that keeps no text while it is full, and only the smallest of what is
// urgent.
type full struct {
	loop.Store
	is bool
}

func (f *full) Commit(ctx context.Context, t loop.Txn) error {
	urgent := t.Freeze != nil || t.Thaw || t.Windows != nil
	switch {
	case f.is && !urgent:
		return loop.ErrFull
	case f.is && len(t.Log) > 1:
		return fmt.Errorf("commit: %w", loop.ErrTooLarge)
	}
	return f.Store.Commit(ctx, t)
}

// TestFullStore: a freeze and a thaw are kept while nothing else is; what waits is
// bounded, and the log says how much of it is missing.
func TestFullStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, memory := t.Context(), store.NewMemory("f")
		s := &full{Store: memory}
		l, stop := leading(t, s)
		synctest.Wait()
		s.is = true

		if err := l.Record(ctx, "run", "ann: runs uptime", nil); !errors.Is(err, loop.ErrFull) {
			t.Errorf("what a person does past the mind is not refused: %v", err)
		}
		const many = 10_000
		story := loop.Story{Alone: fettle.Alone{Host: "host:h1", Chain: "c"}}
		for i := range int64(many) {
			story.Lines = append(story.Lines, loop.Line{Head: loop.Head{Entries: i + 1, Hash: fmt.Sprint(i)}, Entry: loop.Entry{Kind: "note", Text: fmt.Sprint("line ", i)}})
		}
		if _, err := l.Merge(ctx, story); !errors.Is(err, loop.ErrFull) {
			t.Errorf("a story: %v", err)
		}
		l.Feed(incident.Input{Freeze: &guard.Freeze{By: "ann", Why: "full"}})
		synctest.Wait()
		log := func() (texts []string) {
			if err := memory.Log(t.Context(), 1, func(e loop.Entry) error { texts = append(texts, e.Kind+" "+e.Text); return nil }); err != nil {
				t.Fatal(err)
			}
			return texts
		}
		if got := log(); len(got) != 1 || got[0] != "freeze ann: full" {
			t.Errorf("with the freeze: %q", got)
		}
		l.Feed(incident.Input{Thaw: true, ThawBy: "ann"})
		synctest.Wait()
		if got := log(); len(got) != 2 || got[1] != "thaw ann: thawed" {
			t.Errorf("with the thaw: %q", got)
		}

		s.is = false
		synctest.Wait()
		l.Feed(incident.Input{Freeze: &guard.Freeze{By: "bob"}})
		synctest.Wait()
		got := log()
		kept, missing := 0, 0
		for _, text := range got {
			if strings.HasPrefix(text, "note line") {
				kept++
			}
			if rest, ok := strings.CutPrefix(text, "left out "); ok {
				if _, err := fmt.Sscan(rest, &missing); err != nil {
					t.Fatal(err)
				}
			}
		}
		if kept+missing != many || kept > 4096 || missing == 0 {
			t.Errorf("%d lines are kept and %d are said to be missing, of %d", kept, missing, many)
		}
		if _, err := l.Merge(ctx, story); err != nil {
			t.Errorf("the story again: %v", err)
		}
		stop()
	})
}
