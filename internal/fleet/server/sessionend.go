package server

import (
	"context"
	"errors"
	"time"

	"fettle/internal/fleet/member"
	"fettle/internal/fleet/wire"
)

// brokenError is why a session ended that this server did not end.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

// here tells those who watch over hosts of a session that has begun.
func (s *Server) here(x *session) {
	s.witness(func(w *witness) { w.began(x) })
	s.gossip(func(g *gossip) { g.began(x) })
}

// gone tells them of one that has ended.
func (s *Server) gone(x *session, how member.StreamState) {
	s.witness(func(w *witness) { w.over(x, how) })
	s.gossip(func(g *gossip) { g.over(x) })
}

// endOf is what the end of a session says of the agent's host. Of one that came through
// another server it says nothing: that server may have ended. A stream whose connection
// ended was ended by the other side's kernel, for while a host is silent nothing ends but
// by this server's own patience.
func (x *session) endOf(err error, relayed bool) member.StreamState {
	var broken *brokenError
	switch {
	case errors.Is(err, errSilent):
		return member.StreamSilent
	case relayed:
		return member.StreamNever
	case errors.As(err, &broken), errors.Is(err, context.Canceled):
		return member.StreamEnded
	}
	return member.StreamNever
}

// pingNow asks the agent for a sign of life, unless it was asked already and the answer
// is still open.
func (s *Server) pingNow(x *session, now time.Time, window time.Duration) {
	x.mu.Lock()
	for _, sent := range x.pings { // any order: one is enough
		if now.Sub(sent) < window || !x.heard.After(sent) {
			x.mu.Unlock()
			return
		}
	}
	x.next++
	id := x.next
	x.pings[id] = now
	x.mu.Unlock()
	x.push(&wire.SessionResponse{What: &wire.SessionResponse_Ping{Ping: &wire.Ping{Id: id}}})
}
