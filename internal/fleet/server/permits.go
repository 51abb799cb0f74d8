package server

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/permit"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
)

// permitEvery is how often an agent's permit is renewed while it is connected, where
// permits hold for a day; shorter ones are renewed four times in their life.
const permitEvery = time.Hour

// permitState is which standing permit an agent says that it keeps.
type permitState struct {
	serial string
	until  time.Time // on our clock
	why    string
}

// permit makes and signs the standing permit for an agent, and says when it is to be
// renewed. nil: it knows none, or none could be made; then the one that it keeps runs
// out, which the log is told.
func (s *Server) permit(ctx context.Context, x *session) (*wire.Permit, time.Duration) {
	log, ok := s.o.History.(chained)
	if !x.permits || !ok {
		return nil, permitEvery
	}
	var policy fettle.Policy
	tip, err := log.Tip(ctx)
	if err == nil {
		err = s.ask(ctx, func(m *incident.Mind) { policy = m.Policy() })
	}
	var signed permit.Signed
	if err == nil {
		p := permit.Make(policy, s.o.CA.Fleet(), tip.Epoch, x.host.subject, x.label, s.o.Clock.Wall())
		p.Store = s.storeGroup()
		signed, err = permit.Sign(p, s.identity.Load())
	}
	if err != nil {
		if ctx.Err() == nil {
			s.o.Log.Error("an agent gets no standing permit; it is tried again", "host", x.host.subject, "label", x.label, "error", err)
		}
		return nil, s.o.Interval
	}
	_, life := runbook.Permits(policy)
	return &wire.Permit{Note: signed.Note, Certificate: signed.Certificate}, min(permitEvery, life/4)
}

// renewPermit renews the agent's standing permit, where that is due. It does not block;
// pulse calls it.
func (s *Server) renewPermit(x *session, now time.Time) {
	x.mu.Lock()
	due := x.permits && !x.renewing && !now.Before(x.renew)
	x.renewing = x.renewing || due
	x.mu.Unlock()
	if !due {
		return
	}
	s.sessions.Go(func() {
		p, again := s.permit(x.ctx, x)
		if p != nil {
			x.push(&wire.SessionResponse{What: &wire.SessionResponse_Permit{Permit: p}})
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		x.renew, x.renewing = s.o.Clock.Now().Add(again), false
	})
}

// keeps notes which permit an agent says that it keeps.
func (h *host) keeps(at time.Time, w *wire.PermitState) {
	short := func(text string) string { return strings.ToValidUTF8(text[:min(len(text), maxWhy)], "") }
	h.mu.Lock()
	defer h.mu.Unlock()
	h.permit = permitState{serial: short(w.GetSerial()), until: at.Add(time.Duration(w.GetLeftNs())), why: short(w.GetWhy())}
}

// Permits implements wire.AdminServiceServer.
func (a *admin) Permits(ctx context.Context, _ *wire.PermitsRequest) (*wire.PermitsResponse, error) {
	var policy fettle.Policy
	if err := a.s.ask(ctx, func(m *incident.Mind) { policy = m.Policy() }); err != nil {
		return nil, err
	}
	grants, life := runbook.Permits(policy)
	r := &wire.PermitsResponse{LifeNs: int64(life)}
	for _, g := range grants {
		data, err := json.Marshal(g)
		if err != nil {
			return nil, err
		}
		r.Grants = append(r.Grants, data)
	}
	now := a.s.o.Clock.Now()
	for _, h := range a.s.known() {
		h.mu.Lock()
		w := &wire.HostPermit{Id: h.subject.Name(), Label: h.label, Serial: h.permit.serial, LeftNs: int64(h.permit.until.Sub(now)), Why: h.permit.why, Connected: h.session != nil}
		if h.permit.serial == "" || w.LeftNs <= 0 {
			w.Serial, w.LeftNs = "", 0
			if w.Why == "" {
				w.Why = "it was not heard to keep one since this server leads"
			}
		}
		h.mu.Unlock()
		r.Hosts = append(r.Hosts, w)
	}
	return r, nil
}
