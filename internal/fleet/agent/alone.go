package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"fettle/internal/act/journal"
	"fettle/internal/fettle"
	"fettle/internal/fleet/store"
)

const (
	// aloneName is the file with this host's own log, its chain: what it decided while
	// it was cut off, until a server has it. It is made beforehand, with room in it, so
	// that a full disk does not keep the host from mending itself.
	aloneName = "alone"
	// aloneReserve is that room in bytes: some tens of incidents.
	aloneReserve = 256 << 10
	// aloneAfter is how long there must be no session with any server: longer than the
	// change of a leader at its worst (5 s) and the agent's own pauses (5 s), so that
	// nobody works alone because of an election.
	aloneAfter = 15 * time.Second
	// aloneAgain is when what failed is tried again.
	aloneAgain = 10 * time.Second
	// tellWait is how long everything may take to be told at the start, as a server
	// waits for it.
	tellWait = 30 * time.Second
)

// solo is the part of an agent that works alone.
type solo struct {
	mu   sync.Mutex
	done chan struct{} // closed when nothing is decided alone; nil: it never was
}

// busy notes that this host decides by itself, until the function that it returns is
// called.
func (s *solo) busy() (idle func()) {
	done := make(chan struct{})
	s.mu.Lock()
	s.done = done
	s.mu.Unlock()
	return sync.OnceFunc(func() { close(done) })
}

// idle waits until nothing is decided alone: what a server orders does not meet what
// this host has just begun.
func (s *solo) idle(ctx context.Context) {
	s.mu.Lock()
	done := s.done
	s.mu.Unlock()
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// alone works without a server where there is none, and tells the next one, until ctx
// ends. What goes wrong with it ends nothing: this host then waits for a server.
func (a *Agent) alone(ctx context.Context) error {
	if a.o.Books == nil {
		<-ctx.Done()
		return nil
	}
	last := ""
	for ctx.Err() == nil {
		err := a.period(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		if err.Error() != last { // not with every try
			last = err.Error()
			a.o.Log.Error("what this host does, or did, without a server", "error", err)
		}
		a.pause(ctx, aloneAgain)
	}
	return nil
}

func (a *Agent) pause(ctx context.Context, d time.Duration) {
	due, stop := a.o.Machine.Clock.After(d)
	defer stop()
	select {
	case <-due:
	case <-ctx.Done():
	}
}

// period opens this host's own log, waits until there is something to do alone or
// something to tell, does that and tells that.
func (a *Agent) period(ctx context.Context) error {
	left, err := a.ownLog(ctx, func(st *store.File) (bool, error) { return st.Entries() > 0, nil })
	if err != nil {
		return err
	}
	cutOff, err := a.due(ctx, left)
	if err != nil || ctx.Err() != nil {
		return err
	}
	told, err := a.ownLog(ctx, func(st *store.File) (bool, error) {
		if err := a.decide(ctx, st, cutOff); err != nil {
			return false, err
		}
		return a.tellStory(ctx, st)
	})
	if told {
		err = errors.Join(err, removeFile(filepath.Join(a.o.StateDir, aloneName)))
	}
	return err
}

// ownLog does something with this host's own log.
func (a *Agent) ownLog(ctx context.Context, do func(*store.File) (bool, error)) (bool, error) {
	st, err := store.OpenFile(ctx, filepath.Join(a.o.StateDir, aloneName), a.fleet, journal.Options{Clock: a.o.Machine.Clock, Reserve: aloneReserve, OnDurable: a.o.OnAlone})
	if err != nil {
		return false, fmt.Errorf("this host's own log: %w", err)
	}
	did, err := do(st)
	if cerr := st.Close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("this host's own log: %w", cerr))
	}
	return did, err
}

// due waits until this host is cut off and something is ill that it may do something
// about, or, where something is left to tell, until there is a session or it is cut
// off. It says whether it is cut off.
func (a *Agent) due(ctx context.Context, left bool) (cutOff bool, err error) {
	clock := a.o.Machine.Clock
	said := ""
	for ctx.Err() == nil {
		x, lost, changed := a.contact.now()
		if x != nil {
			if left && x.stories {
				return false, nil
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		wait := a.o.AloneAfter - clock.Now().Sub(lost)
		if wait <= 0 && !a.crew.settled.Load() { // what is not seen yet must not be missing when it is decided
			wait = tellWait - clock.Now().Sub(a.began)
		}
		if wait <= 0 && (left || a.picture.ill(a.onPurpose)) {
			_, why := a.permit(ctx)
			if why == "" || left {
				return true, nil
			}
			if why != said {
				said = why
				a.o.Log.Warn("no server is reached, and this host may do nothing by itself", "why", why)
			}
			wait = aloneAgain
		}
		var due <-chan time.Time
		stop := func() {}
		if wait > 0 {
			due, stop = clock.After(wait)
		}
		select {
		case <-due:
		case <-changed:
		case <-a.picture.trouble:
		case <-ctx.Done():
		}
		stop()
	}
	return false, nil
}

// purposes are the conditions that only report what somebody did on purpose.
func purposes(cats []fettle.Catalogue) map[fettle.Code]bool {
	out := map[fettle.Code]bool{}
	for _, c := range cats {
		for _, s := range c.Conditions {
			if s.Explains {
				out[s.Code] = true
			}
		}
	}
	return out
}
