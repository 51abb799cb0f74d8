package server_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

	"fettle/internal/fleet/server"
	"fettle/internal/machine/loopback"
)

// heardLog is a log of which each line's text can be waited for.
type heardLog struct {
	slog.Handler
	said chan string
}

func (l heardLog) Enabled(context.Context, slog.Level) bool { return true }

func (l heardLog) Handle(_ context.Context, r slog.Record) error {
	select {
	case l.said <- r.Message:
	default:
	}
	return nil
}

// TestOutlives: a server is known to be gone when it has ended, and not while it is
// there, or where it never was.
func TestOutlives(t *testing.T) {
	d := newTwo(t)
	o := d.options
	log := heardLog{slog.DiscardHandler, make(chan string, 100)}
	o.Dir, o.Log = filepath.Join(d.dir, "third"), slog.New(log)
	watcher, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	nobody := loopback.Address(t)
	ctx, cancel := context.WithCancel(t.Context())
	var others sync.WaitGroup
	for _, address := range []string{nobody, d.address} { // one that never was there, and one that stays
		others.Go(func() {
			if watcher.Outlives(ctx, address) {
				t.Errorf("%s is said to be gone", address)
			}
		})
	}
	gone := make(chan bool, 1)
	go func() { gone <- watcher.Outlives(t.Context(), d.at) }()
	for range 2 { // the two that are there
		for <-log.said != "the server that leads is watched" {
		}
	}
	d.end()
	if !<-gone {
		t.Error("a server that has ended is not said to be gone")
	}
	cancel()
	others.Wait()
}
