package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"fettle/internal/fleet/store"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

// againAfter is the pause before something is tried anew that failed for a reason of
// the moment: the store has no majority, a term ended.
const againAfter = 200 * time.Millisecond

// alone leads until ctx ends: there is nobody else.
func (c *Server) alone(ctx context.Context) error {
	if err := c.register.Found(ctx, c.srv.Subject().Name(), c.o.Label, c.o.Clock.Wall()); err != nil {
		return err
	}
	return c.lead(ctx)
}

// elected stands for election again and again, and leads while it is elected. It ends
// with store.ErrRemoved when the server was taken out of the fleet.
func (c *Server) elected(ctx context.Context) error {
	last := ""
	complain := func(what string, err error) {
		if err != nil && ctx.Err() == nil && err.Error() != last { // said once, not with every try
			last = err.Error()
			c.o.Log.Warn(what, "error", err)
		}
	}
	for ctx.Err() == nil {
		term, err := c.st.Campaign(ctx)
		if errors.Is(err, store.ErrRemoved) {
			return err
		}
		if err != nil {
			complain("this server does not stand for election at present; it is tried again", err)
			pause(ctx, againAfter)
			continue
		}
		last = ""
		c.o.Log.Info("this server leads")
		leading, end := context.WithCancel(ctx)
		lost := make(chan struct{})
		go func() { // ends with the term
			defer close(lost)
			select {
			case <-term.Lost():
				end()
			case <-leading.Done():
			}
		}()
		err = c.lead(leading)
		end()
		<-lost
		complain("leading ended with an error", err)
		if ctx.Err() != nil {
			term.HandOver()
		}
		complain("leadership ends with its lease", term.Resign())
		c.o.Log.Info("this server leads no more")
		if ctx.Err() == nil {
			if err := c.renew(); err != nil {
				return err
			}
			pause(ctx, againAfter)
		}
	}
	return nil
}

// lead decides until ctx ends or another server leads.
func (c *Server) lead(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := c.Loop()
	var group sync.WaitGroup
	errs := make(chan error, 2) // one for each that can fail
	run := func(what string, do func(context.Context) error) {
		group.Go(func() {
			if err := do(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, loop.ErrNotLeader) {
				errs <- fmt.Errorf("%s: %w", what, err)
			}
			cancel()
		})
	}
	run("loop", l.Run)
	run("server", func(ctx context.Context) error { return c.srv.Lead(ctx, l) })
	group.Go(func() { c.st.Attend(ctx) })
	group.Wait()
	close(errs)
	var failed error
	for e := range errs {
		failed = errors.Join(failed, e)
	}
	return failed
}

// mindWait bounds a question to the mind of a term that may have ended.
const mindWait = 10 * time.Second

// keeper keeps this server's store small, and holds what the others let go.
func (c *Server) keeper() *store.Keeper {
	o := store.KeeperOptions{
		Wall: c.o.Clock.Wall, Log: c.o.Log,
		Forgettable: func(ctx context.Context, newest int, before time.Time) (ids []string, err error) {
			ctx, cancel := context.WithTimeout(ctx, mindWait)
			defer cancel()
			err = c.Loop().Ask(ctx, func(m *incident.Mind) { ids = m.Forgettable(newest, before) })
			return ids, err
		},
		Forget: func(ids []string) { c.Loop().Feed(incident.Input{Forget: ids}) },
	}
	if c.o.Peers != nil {
		o.Fetch = c.srv.FetchSegment
	}
	return store.NewKeeper(c.st, o)
}

// told notes who leads.
func (c *Server) told(l store.Leader) {
	if l.Name == "" {
		c.o.Log.Warn("no server leads")
		return
	}
	c.srv.Led(l.Address)
	c.o.Log.Info("who leads is known", "server", l.Name, "address", l.Address)
}

// announce says where this server is reached, until that is kept.
func (c *Server) announce(ctx context.Context) {
	for {
		err := c.st.Announce(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		pause(ctx, againAfter)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
