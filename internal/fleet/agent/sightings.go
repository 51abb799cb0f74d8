package agent

import (
	"time"

	"fettle/internal/fleet/member"
	"fettle/internal/fleet/wire"
)

// happened tells the server of one member that something is seen otherwise of.
func (g *gossip) happened(node *member.Node, e member.Event) {
	if e.Missed > 0 {
		g.tellAll() // the digest has it
		return
	}
	g.push(func(time.Time) *wire.SessionRequest {
		why, _ := node.Doubt()
		return &wire.SessionRequest{What: &wire.SessionRequest_Sightings{Sightings: &wire.Sightings{
			Ring: g.current().Name, Seen: []*wire.Sighting{seenOf(e.Member)}, Doubt: why,
		}}}
	})
}

// tellAll tells the server of all members that are not simply there.
func (g *gossip) tellAll() {
	g.mu.Lock()
	node, name := g.node, g.word.Name
	g.mu.Unlock()
	if node == nil {
		return
	}
	g.push(func(time.Time) *wire.SessionRequest {
		h := node.Health()
		s := &wire.Sightings{Ring: name, All: true, Doubt: h.Doubt, Health: &wire.GossipHealth{
			OwnDelayNs: int64(h.OwnDelay), RoundTripNs: int64(h.RoundTrip), Loss: int32(h.Loss), SilenceNs: int64(h.Silence),
			SpreadAgeNs: -1, Undecrypted: int32(min(h.Undecrypted, 1<<30)),
		}}
		if sp := h.Spread; !sp.At.IsZero() {
			s.Health.SpreadAgeNs = age(sp.At)
			s.Health.SpreadP50Ns, s.Health.SpreadP99Ns, s.Health.SpreadWorstNs = int64(sp.P50), int64(sp.P99), int64(sp.Worst)
			s.Health.SpreadHeard, s.Health.SpreadMembers = int32(sp.Heard), int32(sp.Members)
		}
		for _, m := range node.Members() {
			if m.State == member.Here {
				s.Health.Members++
				continue
			}
			s.Seen = append(s.Seen, seenOf(m))
		}
		return &wire.SessionRequest{What: &wire.SessionRequest_Sightings{Sightings: s}}
	})
}

// seenOf is what this node witnesses of a member. The node's times are this process's
// (time.Now), so ages go out, and the machine's clock is not asked.
func seenOf(m member.Member) *wire.Sighting {
	s := m.Sighting(member.Label{}, false)
	return &wire.Sighting{Host: m.Label.Host, State: m.State.String(), Saw: s.Saw.String(), SinceAgeNs: age(s.Since), AgeNs: age(s.At), Address: m.Addr.String()}
}

// age is how long ago something was; 0 of what never was.
func age(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return max(0, int64(time.Since(at)))
}

// tellState tells the server how far this host has got with its last word.
func (g *gossip) tellState() {
	g.push(func(time.Time) *wire.SessionRequest {
		g.mu.Lock()
		defer g.mu.Unlock()
		st := &wire.RingState{Error: g.why}
		if g.node != nil {
			st.Name, st.Address, st.Error = g.word.Name, g.node.Addr().String(), ""
			for _, id := range g.keys.List() {
				st.Keys = append(st.Keys, string(id))
			}
		}
		return &wire.SessionRequest{What: &wire.SessionRequest_RingState{RingState: st}}
	})
}

// push hands a message to the present session, if there is one: a new one is told all
// when it begins.
func (g *gossip) push(message func(now time.Time) *wire.SessionRequest) {
	g.mu.Lock()
	x := g.session
	g.mu.Unlock()
	if x != nil {
		x.push(message)
	}
}
