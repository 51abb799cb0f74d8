package server

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
)

// Rotate implements wire.AdminServiceServer. It is in the log before it begins (S13).
func (a *admin) Rotate(ctx context.Context, r *wire.RotateRequest) (*wire.RotateResponse, error) {
	t := a.s.term.Load()
	if t == nil {
		return nil, errStarting
	}
	log, ok := t.brain.(recorder)
	if !ok {
		return nil, status.Error(codes.FailedPrecondition, "this server keeps no log of what people do, so nothing is rotated")
	}
	by := said(ctx, r.GetBy())
	var text string
	var err error
	switch r.GetWhat() {
	case "gossip":
		text, err = t.gossip.rotateBy(ctx, log, by)
	case "authority":
		text, err = a.authority(ctx, t, log, by, r)
	case "tokens":
		text, err = a.tokens(ctx, log, by, r.GetNow())
	default:
		return nil, status.Errorf(codes.InvalidArgument, "%.40q cannot be rotated (what can be: gossip, authority, tokens)", r.GetWhat())
	}
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return &wire.RotateResponse{Said: text}, nil
}

func (g *gossip) rotateBy(ctx context.Context, log recorder, by string) (string, error) {
	serial, err := g.next(ctx)
	if err != nil {
		return "", err
	}
	if err := log.Record(ctx, "rotate", by+": rotates the gossip's keys", map[string]string{"by": by, "what": "gossip"}); err != nil {
		return "", err
	}
	return g.rotate(ctx, serial)
}

func (a *admin) authority(ctx context.Context, t *term, log recorder, by string, r *wire.RotateRequest) (string, error) {
	switch {
	case a.s.o.Shelf == nil:
		return "", status.Error(codes.FailedPrecondition, "this server has nowhere to keep how far a change of the authority is")
	case r.GetAbort():
		return a.s.abortAuthority(ctx, t, log, by)
	case len(r.GetWithout()) > 0:
		return a.s.withoutHosts(ctx, log, by, r.GetWithout())
	}
	var policy fettle.Policy
	if err := a.s.ask(ctx, func(m *incident.Mind) { policy = m.Policy() }); err != nil {
		return "", err
	}
	_, life := runbook.Permits(policy)
	return a.s.rotateAuthority(ctx, t, log, by, time.Duration(max(0, r.GetOverlapNs())).Truncate(time.Second), life)
}

// tokens ends the join tokens that are out.
func (a *admin) tokens(ctx context.Context, log recorder, by string, now bool) (string, error) {
	within, text := pki.TokenLife, "the join tokens that are out end within "+pki.TokenLife.String()
	if now {
		within, text = 0, "the join tokens that are out ended"
	}
	if err := log.Record(ctx, "rotate", by+": "+text, map[string]string{"by": by, "what": "tokens", "within": within.String()}); err != nil {
		return "", err
	}
	n, err := a.s.o.Register.Revoke(ctx, a.s.o.Clock.Wall(), within)
	if err != nil {
		return "", err
	}
	if n == 0 {
		return "no join token is out that would hold longer", nil
	}
	return text, nil
}

// Authorities implements wire.AdminServiceServer.
func (a *admin) Authorities(context.Context, *wire.AuthoritiesRequest) (*wire.AuthoritiesResponse, error) {
	return &wire.AuthoritiesResponse{Words: wireWords(a.s.o.CA.Words())}, nil
}

// Renew implements wire.AdminServiceServer. The new certificate holds as long as the one
// before did.
func (a *admin) Renew(ctx context.Context, r *wire.RenewRequest) (*wire.RenewResponse, error) {
	c := callerOf(ctx)
	if !pki.SameKey(r.GetCsr(), c.cert) {
		return nil, status.Error(codes.PermissionDenied, "a renewal is for the same key (to change the key, make a new identity on a server)")
	}
	life := min(c.cert.NotAfter.Sub(c.cert.NotBefore), pki.PersonLife)
	cert, err := a.s.o.CA.Sign(r.GetCsr(), c.name, a.s.o.Clock.Wall(), life)
	if err != nil {
		return nil, err
	}
	a.s.o.Log.Info("a person's certificate was renewed", "name", c.name.ID, "role", c.name.Role)
	return &wire.RenewResponse{Certificate: cert}, nil
}

// authorityStatus is how far a change of the authority is, for people.
func (s *Server) authorityStatus() *wire.AuthorityStatus {
	trust := s.o.CA.Trust()
	s.authority.mu.Lock()
	st, l := s.authority.status, s.authority.ledger
	s.authority.mu.Unlock()
	if s.o.Shelf == nil || trust.Serial() == 0 && (st.phase == "" || st.phase == looking) {
		return nil
	}
	r := &wire.AuthorityStatus{Believed: []string{s.o.CA.Pin()}, Phase: st.phase, Waits: st.waits, Hold: st.hold, Back: st.back}
	for _, pin := range trust.Pins() {
		if pin != s.o.CA.Pin() {
			r.Believed = append(r.Believed, pin)
		}
	}
	if st.phase != "" && st.phase != looking {
		r.SinceUnix = st.since.Unix()
		for host := range l.without { // any order: sorted below
			r.Without = append(r.Without, host)
		}
		slices.Sort(r.Without)
	}
	return r
}
