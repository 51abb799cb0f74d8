package server

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestBeat: who gives no sign of life is sent away, but not while many come at once.
func TestBeat(t *testing.T) {
	const every = time.Second
	now := time.Now()
	for _, c := range []struct {
		quiet   time.Duration
		crowded bool
		ends    bool
	}{{silence * every, false, false}, {silence*every + 1, true, false}, {silence*every + 1, false, true}} {
		ctx, cancel := context.WithCancelCause(t.Context())
		x := &session{cancel: cancel, pings: map[uint64]time.Time{}, heard: now.Add(-c.quiet)}
		x.beat(now, every, c.crowded)
		if ended := errors.Is(context.Cause(ctx), errSilent); ended != c.ends {
			t.Errorf("%+v: ended: %v", c, ended)
		}
		if pinged := len(x.out) == 1; pinged == c.ends {
			t.Errorf("%+v: pinged: %v", c, pinged)
		}
		cancel(nil)
	}
}
