package server

import (
	"context"
	"slices"
	"strings"
	"sync"

	"fettle/internal/act/probe"
	"fettle/internal/fettle"
	"fettle/internal/fleet/wire"
)

// Look implements loop.Hands: each look goes to the agents that observe that subject by
// that probe, or, where none is there, to all that have the probe. What belongs to a
// host of the fleet, nobody else is asked about: thousands would say that it is not
// theirs, for each look at a host that is cut off.
func (s *Server) Look(ctx context.Context, looks []fettle.Look) []fettle.Observation {
	var own []fettle.Observation
	asked := map[*session][]fettle.Look{}
	var domains *tally // counted once, where somebody asks
	for _, l := range looks {
		if strings.HasPrefix(l.Probe, DomainProbe) {
			if domains == nil {
				domains = s.count()
			}
			own = append(own, domains.observationsOf(l.Subject, s.self, s.o.Clock.Now())...)
			continue
		}
		if l.Probe == AgentProbe {
			if h := s.find(l.Subject); h != nil {
				h.mu.Lock()
				own = append(own, h.agent())
				h.mu.Unlock()
			}
			continue
		}
		if l.Probe == RoomProbe {
			if o, ok := s.storeObservation(s.o.Clock.Now()); ok && l.Subject == s.self {
				own = append(own, o)
			}
			continue
		}
		if l.Probe == WitnessProbe || l.Probe == SightProbe {
			s.witness(func(w *witness) {
				if o, ok := w.look(l.Subject); ok {
					own = append(own, o)
				}
			})
			continue
		}
		for _, x := range s.whoLooks(l) {
			asked[x] = append(asked[x], l)
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for x, list := range asked {
		wg.Go(func() {
			got := s.lookAt(ctx, x, list)
			mu.Lock()
			defer mu.Unlock()
			own = append(own, got...)
		})
	}
	wg.Wait()
	slices.SortStableFunc(own, func(a, b fettle.Observation) int {
		if c := strings.Compare(string(a.Subject), string(b.Subject)); c != 0 {
			return c
		}
		return strings.Compare(string(a.Host)+a.Probe, string(b.Host)+b.Probe)
	})
	return own
}

// whoLooks returns the sessions that a look is for.
func (s *Server) whoLooks(l fettle.Look) []*session {
	if l.Host != "" {
		if x, err := s.contact(l.Host); err == nil {
			return []*session{x}
		}
		return nil
	}
	s.mu.Lock()
	observe := slices.Clone(s.observers[look{l.Subject, l.Probe}])
	s.mu.Unlock()
	var list []*session
	for _, h := range observe {
		if x := h.current(); x != nil {
			list = append(list, x)
		}
	}
	if len(list) > 0 {
		return list
	}
	hosts := s.known()
	if h := s.owner(l); h != nil {
		hosts = []*host{h}
	}
	for _, h := range hosts {
		h.mu.Lock()
		if h.session != nil && h.session.probes[l.Probe] {
			list = append(list, h.session)
		}
		h.mu.Unlock()
	}
	return list
}

// owner is the host of the fleet that alone can look: whose the thing is, or whose agent
// is to tell about itself. nil: others may see it, as they may see a host.
func (s *Server) owner(l fettle.Look) *host {
	segments := l.Subject.Segments()
	if len(segments) > 1 || l.Probe == probe.SelfProbe && l.Subject.Kind() == fettle.KindHost {
		return s.find(fettle.HostSubject(segments[0]))
	}
	return nil
}

// lookAt asks one agent and returns what came before ctx or the session ended.
func (s *Server) lookAt(ctx context.Context, x *session, looks []fettle.Look) []fettle.Observation {
	m := &wire.Look{WithinNs: int64(s.left(ctx))}
	for _, l := range looks {
		if data, err := wire.Pack(l); err == nil { // a look always packs
			m.Json = append(m.Json, data)
		}
	}
	ch, stop := x.request(func(id uint64) *wire.SessionResponse {
		m.Id = id
		return &wire.SessionResponse{What: &wire.SessionResponse_Look{Look: m}}
	})
	defer stop()
	var got []fettle.Observation
	for {
		a, err := x.await(ctx, ch)
		if err != nil {
			return got
		}
		part := a.message.GetLookAnswer()
		got = append(got, x.host.answers(x, a.at, a.message.GetNowNs(), part.GetObservations())...)
		if part.GetDone() {
			return got
		}
	}
}
