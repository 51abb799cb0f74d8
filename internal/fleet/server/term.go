package server

import (
	"context"
	"fmt"
	"sync"

	"fettle/internal/fettle"
)

// term is the time for which this server leads.
type term struct {
	brain Brain
	ctx   context.Context
	calls sync.WaitGroup // that are answered in it; added to under the server's mu, while it is the present one
}

// Lead makes this server the one that decides, with a mind of its own, until ctx
// ends; then every session ends, and it returns when all have. It is called once at
// a time. What an earlier term knew of agents is forgotten: they tell what is.
func (s *Server) Lead(ctx context.Context, brain Brain) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	joined, err := s.o.Register.Hosts(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("lead: %w", err)
	}
	t := &term{brain: brain, ctx: ctx}
	s.mu.Lock()
	s.hosts, s.observers = map[fettle.Subject]*host{}, map[look]map[*host]bool{}
	for _, h := range joined {
		s.host(fettle.HostSubject(h.ID)).label = h.Label
	}
	s.term.Store(t)
	s.mu.Unlock()
	s.attend(ctx)
	s.mu.Lock()
	s.term.Store(nil)
	s.mu.Unlock()
	cancel()
	t.calls.Wait()
	return nil
}

// attend says periodically which agents are connected.
func (s *Server) attend(ctx context.Context) {
	s.feedAgents()
	for {
		timer, stop := s.o.Clock.After(min(agentEvery, s.o.LostAfter/2))
		select {
		case <-ctx.Done():
			stop()
			return
		case <-timer:
			s.feedAgents()
		}
	}
}

// enter begins a call in the present term; nil where this server does not lead.
func (s *Server) enter() *term {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.term.Load()
	if t != nil {
		t.calls.Add(1)
	}
	return t
}

// explain says of a call that the end of the term cut off that it was that.
func (t *term) explain(err error) error {
	if err != nil && t.ctx.Err() != nil {
		return errMoved
	}
	return err
}
