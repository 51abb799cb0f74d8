package server

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
)

// term is the time for which this server leads.
type term struct {
	brain   Brain
	ctx     context.Context
	began   time.Time
	joined  int          // hosts, when it began
	came    atomic.Int64 // when an agent came last that had not been heard of in it, in Unix nanoseconds; 0: none did
	witness *witness
	gossip  *gossip
	welcome welcome
	calls   sync.WaitGroup // that are answered in it; added to under the server's mu, while it is the present one
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
	t := &term{brain: brain, ctx: ctx, began: s.o.Clock.Now(), joined: len(joined), witness: newWitness(s), gossip: newGossip(s)}
	s.mu.Lock()
	s.hosts, s.observers = map[fettle.Subject]*host{}, map[look][]*host{}
	for _, h := range joined {
		s.host(fettle.HostSubject(h.ID)).label = h.Label
	}
	brain.Feed(incident.Input{Observations: s.holds()}) // before anything that could be acted upon
	s.authority.mu.Lock()
	s.authority.status = authorityStatus{phase: looking} // what an earlier term knew is of then
	s.authority.mu.Unlock()
	s.term.Store(t)
	s.mu.Unlock()
	poke(s.authority.wake)
	var parts sync.WaitGroup
	parts.Go(func() { s.pulse(ctx) })
	parts.Go(func() { s.o.Register.Follow(ctx) })
	parts.Go(func() { t.witness.run(ctx) })
	parts.Go(func() { t.gossip.run(ctx) })
	parts.Go(func() { s.watchStore(ctx) })
	s.attend(ctx)
	s.mu.Lock()
	s.term.Store(nil)
	s.mu.Unlock()
	cancel()
	t.calls.Wait()
	parts.Wait()
	return nil
}

const (
	// gatherPart is for what part of LostAfter no new agent must come for those that are
	// not there to be missed: two seconds.
	gatherPart = 5
	// gatherMost is when they are missed at the latest, and gatherEach how much longer that
	// is for each host: ten thousand agents that return after an outage take half a minute
	// on a machine of two cores that has nothing else to do. To miss those that still wait
	// for their turn would be ten thousand incidents, and they take longer then.
	gatherMost = time.Minute
	gatherEach = 20 * time.Millisecond
)

// gathering reports whether agents still come that were not heard of in this term, or
// wait to be let in. Of those that have not come yet nothing is said then.
func (s *Server) gathering() bool {
	t := s.term.Load()
	if t == nil {
		return true
	}
	now, last := s.o.Clock.Now(), t.began
	if came := t.came.Load(); came != 0 {
		last = time.Unix(0, came)
	}
	if now.Sub(t.began) >= gatherMost+time.Duration(t.joined)*gatherEach {
		return false
	}
	return now.Sub(last) < s.o.LostAfter/gatherPart || len(s.begins) > 0 || s.turnstile != nil && s.turnstile.Waiting()
}

// came notes that an agent came that had not been heard of in this term.
func (s *Server) came(now time.Time) {
	if t := s.term.Load(); t != nil {
		t.came.Store(now.UnixNano())
	}
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
