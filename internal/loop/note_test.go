package loop_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"fettle/internal/fleet/store"
	"fettle/internal/loop"
)

// broken is a store that cannot commit while it is told so.
type broken struct {
	loop.Store
	err error
}

func (b *broken) Commit(ctx context.Context, t loop.Txn) error {
	if b.err != nil {
		return b.err
	}
	return b.Store.Commit(ctx, t)
}

// TestRecord: what a person does past the mind is in the log, durable, when Record
// returns; where that fails it says so, and the entry does not come later.
func TestRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, s := t.Context(), &broken{Store: store.NewMemory("f")}
		l, stop := leading(t, s)
		if err := l.Record(ctx, "run", "ann: runs uptime", map[string]int{"count": 3}); err != nil {
			t.Fatal(err)
		}
		texts := func() string {
			var all []string
			if err := s.Log(t.Context(), 0, func(e loop.Entry) error {
				all = append(all, e.Kind+" "+e.Text+" "+string(e.Data))
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			return strings.Join(all, "\n")
		}
		if !strings.Contains(texts(), `run ann: runs uptime {"count":3}`) {
			t.Errorf("the log has\n%s", texts())
		}
		s.err = errors.New("no room")
		if err := l.Record(ctx, "run", "ann: runs reboot", nil); err == nil || !strings.Contains(err.Error(), "no room") {
			t.Errorf("without room: %v", err)
		}
		s.err = nil
		if err := l.Record(ctx, "run", "ann: runs date", nil); err != nil {
			t.Error(err)
		}
		if strings.Contains(texts(), "reboot") || !strings.Contains(texts(), "date") {
			t.Errorf("the log has\n%s", texts())
		}
		if err := l.Record(ctx, "run", "x", func() {}); err == nil {
			t.Error("what cannot be written was recorded")
		}
		stop()
		if err := l.Record(t.Context(), "run", "too late", nil); !errors.Is(err, loop.ErrStopped) {
			t.Errorf("after the end: %v", err)
		}
	})
}
