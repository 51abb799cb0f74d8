package server

import (
	"context"
	"slices"
	"strings"
	"sync"

	"fettle/internal/fettle"
	"fettle/internal/fleet/wire"
)

// Look implements loop.Hands: each look goes to the agents that observe that
// subject by that probe, or, where none does yet, to all that have the probe.
func (s *Server) Look(ctx context.Context, looks []fettle.Look) []fettle.Observation {
	var own []fettle.Observation
	asked := map[*session][]fettle.Look{}
	for _, l := range looks {
		if l.Probe == AgentProbe {
			if h := s.find(l.Subject); h != nil {
				h.mu.Lock()
				own = append(own, h.agent())
				h.mu.Unlock()
			}
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
	var observe []*host
	for h := range s.observers[look{l.Subject, l.Probe}] {
		observe = append(observe, h)
	}
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
	for _, h := range s.known() {
		h.mu.Lock()
		if h.session != nil && h.session.probes[l.Probe] {
			list = append(list, h.session)
		}
		h.mu.Unlock()
	}
	return list
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
