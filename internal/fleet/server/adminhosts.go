package server

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/incident"
)

// Hosts implements wire.AdminServiceServer.
func (a *admin) Hosts(ctx context.Context, _ *wire.HostsRequest) (*wire.HostsResponse, error) {
	joined, err := a.s.o.Register.Hosts(ctx)
	if err != nil {
		return nil, err
	}
	r := &wire.HostsResponse{}
	now := a.s.o.Clock.Now()
	for _, j := range joined {
		w := &wire.Host{Id: j.ID, Label: j.Label, AgeNs: -1, JoinedUnix: j.Joined.Unix()}
		if h := a.s.find(fettle.HostSubject(j.ID)); h != nil {
			h.mu.Lock()
			w.Connected = h.session != nil
			if h.label != "" {
				w.Label = h.label
			}
			if !h.heard.IsZero() {
				w.AgeNs = int64(now.Sub(h.heard))
			}
			w.Incarnation, w.BootId, w.Version, w.Address = h.last.incarnation, h.last.bootID, h.last.version, h.last.address
			w.Frozen, w.FrozenWhy = h.session != nil && (h.frozen.fleet || h.frozen.local), h.frozen.why
			if h.session != nil {
				w.LogRefused = h.refuses
				w.RoundTripNs = int64(h.session.clocks.RoundTrip())
			}
			h.mu.Unlock()
			a.s.lives(w, h)
		}
		r.Hosts = append(r.Hosts, w)
	}
	return r, nil
}

// Forget implements wire.AdminServiceServer.
func (a *admin) Forget(ctx context.Context, r *wire.ForgetRequest) (*wire.ForgetResponse, error) {
	if err := a.s.o.Register.Forget(ctx, r.GetId()); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, status.Errorf(codes.NotFound, "no host %.40q has joined (see `fettle hosts`)", r.GetId())
		}
		return nil, err
	}
	a.s.drop(fettle.HostSubject(r.GetId()))
	return &wire.ForgetResponse{}, nil
}

// drop ends what there is of a host that was sent away: its session, its
// observations, its conditions.
func (s *Server) drop(subject fettle.Subject) {
	s.mu.Lock()
	h := s.hosts[subject]
	delete(s.hosts, subject)
	s.mu.Unlock()
	if h == nil {
		return
	}
	s.witness(func(w *witness) { w.forget(subject) })
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.session != nil {
		h.session.end(errForgotten)
		h.session = nil
	}
	now := s.o.Clock.Now()
	in := incident.Input{Conditions: h.unknown(now, func(judged) bool { return true })}
	for key := range h.seen {
		in.Observations = append(in.Observations, fettle.Observation{Subject: key.subject, Host: subject, Probe: key.probe, Asked: now, Gone: true})
		s.indexed(key, h, false)
	}
	clear(h.seen)
	for _, probe := range []string{AgentProbe, WitnessProbe} {
		in.Observations = append(in.Observations, fettle.Observation{Subject: subject, Host: s.self, Probe: probe, Asked: now, Gone: true})
	}
	s.feed(in)
}

// JoinToken implements wire.AdminServiceServer.
func (a *admin) JoinToken(ctx context.Context, r *wire.JoinTokenRequest) (*wire.JoinTokenResponse, error) {
	address := r.GetAddress()
	if address == "" {
		if p, ok := peer.FromContext(ctx); ok && p.LocalAddr != nil {
			address = p.LocalAddr.String()
		}
	}
	role := pki.RoleAgent
	if r.GetServer() {
		role = pki.RoleServer
		if a.s.o.Cluster == nil {
			return nil, status.Error(codes.FailedPrecondition, "this server is alone, and stays so (run `fettle server` on its folder instead of `fettle up`; others can join that)")
		}
	}
	t, err := a.s.o.Register.Invite(ctx, role, address, a.s.o.Clock.Wall(), time.Duration(max(0, r.GetLifeNs())))
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	a.s.o.Log.Info("a join token was made", "for", role, "by", callerOf(ctx).name.ID, "token", t.ID)
	return &wire.JoinTokenResponse{Token: t.String()}, nil
}
