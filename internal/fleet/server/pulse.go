package server

import (
	"context"
	"time"

	"fettle/internal/fleet/wire"
)

const (
	// silence is after how many pings without a word an agent is taken for lost.
	silence = 4
	// spacing is what all pings together may take: with more agents each is asked less
	// often, so that those who say nothing new cost a server of two cores a tenth of
	// one at most. That an agent is gone is seen at once where its connection breaks,
	// and by its peers where it does not.
	spacing = time.Millisecond
	// slowest is what the interval grows to, in that which an agent was told: it takes
	// a server for lost after four.
	slowest = 3
	// ticks is in how many parts an interval is looked at.
	ticks = 8
)

// pace is what an agent that connects now is told to be the interval.
func (s *Server) pace() time.Duration {
	s.mu.Lock()
	n := len(s.hosts)
	s.mu.Unlock()
	return min(max(s.o.Interval, time.Duration(n)*spacing), slowest*s.o.Interval)
}

// pulse asks every agent for a sign of life in each interval, and ends the sessions of
// those that give none; standing permits are renewed on the way. One goroutine does it for all: one for each would be a
// twentieth of what an agent costs.
func (s *Server) pulse(ctx context.Context) {
	for {
		timer, stop := s.o.Clock.After(s.o.Interval / ticks)
		select {
		case <-timer:
		case <-ctx.Done():
			stop()
			return
		}
		now, pace := s.o.Clock.Now(), s.pace()
		crowded := s.gathering()
		for _, h := range s.all() {
			if x := h.current(); x != nil {
				x.beat(now, min(pace, slowest*x.interval), crowded)
				s.renewPermit(x, now)
			}
		}
	}
}

// beat pings the agent, where it is time to. While it is crowded nobody is too silent: what
// was said may lie here unread, and who is sent away is one more that comes.
func (x *session) beat(now time.Time, every time.Duration, crowded bool) {
	if now.Sub(x.pinged) < every {
		return
	}
	x.pinged = now
	x.mu.Lock()
	quiet := now.Sub(x.heard)
	x.next++
	id := x.next
	x.pings[id] = now
	x.mu.Unlock()
	if quiet > silence*every && !crowded {
		x.cancel(errSilent)
		return
	}
	x.push(&wire.SessionResponse{What: &wire.SessionResponse_Ping{Ping: &wire.Ping{Id: id}}})
}
