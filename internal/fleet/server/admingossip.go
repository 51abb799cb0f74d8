package server

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"fettle/internal/fleet/member"
	"fettle/internal/fleet/wire"
)

// gossipStatus is how the machines see each other, for people.
func (s *Server) gossipStatus() *wire.GossipStatus {
	var r *wire.GossipStatus
	s.gossip(func(g *gossip) { r = g.status() })
	if r == nil {
		return nil
	}
	s.witness(func(w *witness) { w.spread(r) })
	return r
}

// status is nil where there is no gossip.
func (g *gossip) status() *wire.GossipStatus {
	if g.shelf == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	r := &wire.GossipStatus{Rings: int32(g.count), Settings: settingsText(g.s.o.Gossip), Key: string(g.keys.using().id), Rotation: g.keys.phase().String(), Waits: g.waits()}
	for host, h := range g.hosts { // any order: they are sorted below
		switch {
		case !h.able:
		case h.state.GetName() != "":
			r.Members++
		case h.state.GetError() != "" && len(g.places) > 1:
			r.Without = append(r.Without, host+": "+h.state.GetError())
		}
	}
	slices.Sort(r.Without)
	return r
}

// spread adds how fast news travels: the worst of what the nodes have measured of late.
func (w *witness) spread(r *wire.GossipStatus) {
	const late = 10 * time.Minute // a ring's members take turns
	now := w.s.o.Clock.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	var p50, p99 time.Duration
	r.Seen = -1
	for _, h := range w.hosts { // any order: the worst counts
		if h.session != nil && h.address.IsValid() && (r.GetSeen() < 0 || int32(h.health.members) < r.GetSeen()) {
			r.Seen = int32(h.health.members)
		}
		if sp := h.health.spread; !sp.At.IsZero() && now.Sub(sp.At) < late {
			p50, p99 = max(p50, sp.P50), max(p99, sp.P99)
		}
	}
	r.Seen = max(0, r.GetSeen())
	r.SpreadP50Ns, r.SpreadP99Ns = int64(p50), int64(p99)
}

// settingsText says what the times follow from.
func settingsText(s member.Settings) string {
	s = s.Filled()
	return fmt.Sprintf("probe %s, gossip %s to %d, suspicion %d x, window %d to %d times (round trip + scheduling delay) above %s, rings of %d at most",
		s.Probe, s.Gossip, s.GossipTo, s.SuspicionMult, s.Windows.FactorMin, s.Windows.FactorMax, s.Windows.Floor, member.RingLimit)
}

// lives tells of a host whether it lives.
func (s *Server) lives(w *wire.Host, h *host) {
	now := s.o.Clock.Now()
	s.witness(func(t *witness) {
		if v, since, ok := t.life(h.subject); ok {
			w.Life, w.LifeWhy, w.LifeAgeNs = v.Life.String(), v.Reasons, cmp.Or(int64(now.Sub(since)), 1)
		}
	})
}
