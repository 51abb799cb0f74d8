package executor

import (
	"context"
	"fmt"
	"time"

	"fettle/internal/act/armed"
	"fettle/internal/act/execute"
	"fettle/internal/fettle"
)

// Arming is what there is of changes that can cut this host off (act/armed).
type Arming struct {
	Able    bool          `json:"able"`      // false: none is made here
	Uptime  time.Duration `json:"uptime_ns"` // of the host, when it was asked
	Changes []armed.State `json:"changes,omitempty"`
}

// arms are execute.Options.Arms: nil is none.
func (o Options) arms() execute.Arms {
	if o.Arms == nil {
		return nil
	}
	return o.Arms
}

// Armed implements Hands.
func (e *Executor) Armed(ctx context.Context) (Arming, error) {
	if e.o.Arms == nil {
		return Arming{}, nil
	}
	list, err := e.o.Arms.List(ctx)
	if err != nil {
		return Arming{}, err
	}
	now, err := e.o.Arms.Uptime(ctx)
	return Arming{Able: true, Uptime: now, Changes: list}, err
}

// Confirm implements Hands.
func (e *Executor) Confirm(ctx context.Context, id string, since time.Duration) error {
	if e.o.Arms == nil {
		return fettle.ErrNotSupported
	}
	now, err := e.o.Arms.Uptime(ctx)
	if err != nil {
		return err
	}
	if since > now {
		return fmt.Errorf("armed change %.40s: the connection is to begin %v from now", id, since-now)
	}
	if err := e.o.Arms.Confirm(ctx, id, since); err != nil {
		return err
	}
	e.tidy(ctx)
	return nil
}

// tidy forgets the oldest changes that are over.
func (e *Executor) tidy(ctx context.Context) {
	if e.o.Arms == nil {
		return
	}
	if err := e.o.Arms.Tidy(ctx); err != nil {
		e.o.Log.Warn("what is left of old changes is not tidied away", "error", err)
	}
}
