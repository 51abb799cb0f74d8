package server

import (
	"context"
	"sync"
	"time"
)

// addressesFor is how long the servers' addresses are told without asking for them
// again: an agent that is told of a new server a second late lacks nothing.
const addressesFor = time.Second

// welcome is what all agents are told alike when they come, and need not be asked of the
// store for each. It is part of a term. The zero value is empty.
type welcome struct {
	mu        sync.Mutex // held while it is asked for, so that it is asked for once
	addresses []string
	asked     time.Time
	charter   []byte
	chartered bool // an epoch has one charter, or none, for good
}

// addresses are all servers', for agents to know; nil where there is but this one.
func (s *Server) addresses(ctx context.Context) []string {
	t := s.term.Load()
	if t == nil {
		return s.askAddresses(ctx)
	}
	w := &t.welcome
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := s.o.Clock.Now(); w.asked.IsZero() || now.Sub(w.asked) >= addressesFor {
		w.addresses, w.asked = s.askAddresses(ctx), now
	}
	return w.addresses
}

// charter is the administrator's word that let the present epoch begin.
func (s *Server) charter(ctx context.Context, h chartered) ([]byte, error) {
	t := s.term.Load()
	if t == nil {
		return h.Charter(ctx)
	}
	w := &t.welcome
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.chartered {
		var err error
		if w.charter, err = h.Charter(ctx); err != nil {
			return nil, err
		}
		w.chartered = true
	}
	return w.charter, nil
}
