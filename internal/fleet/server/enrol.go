package server

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
)

// maxLabel is the longest host name (HOST_NAME_MAX, gethostname(2)).
const maxLabel = 64

type enrol struct {
	wire.UnimplementedEnrolServiceServer
	s *Server
}

// Join implements wire.EnrolServiceServer.
func (e *enrol) Join(_ context.Context, r *wire.JoinRequest) (*wire.JoinResponse, error) {
	if err := wire.CheckSchema(r.GetSchema()); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	if l := r.GetLabel(); l == "" || len(l) > maxLabel {
		return nil, status.Errorf(codes.InvalidArgument, "host name %.80q: want 1 to %d characters", l, maxLabel)
	}
	now := e.s.o.Clock.Wall()
	if err := e.s.o.CA.Redeem(r.GetTokenId(), r.GetSecret(), now); err != nil {
		code := codes.Internal
		if errors.Is(err, pki.ErrToken) {
			code = codes.Unauthenticated
		}
		return nil, status.Error(code, err.Error())
	}
	h, cert, err := e.s.o.CA.Admit(r.GetCsr(), r.GetLabel(), now)
	if err != nil {
		return nil, err
	}
	e.s.mu.Lock()
	e.s.host(fettle.HostSubject(h.ID)).label = h.Label
	e.s.mu.Unlock()
	e.s.o.Log.Info("a host joined", "host", h.ID, "label", h.Label)
	return &wire.JoinResponse{Certificate: cert, Authority: e.s.identity.Load().Authority()}, nil
}

// Renew implements wire.EnrolServiceServer.
func (e *enrol) Renew(ctx context.Context, r *wire.RenewRequest) (*wire.RenewResponse, error) {
	c := callerOf(ctx)
	if !pki.SameKey(r.GetCsr(), c.cert) {
		return nil, status.Error(codes.PermissionDenied, "a renewal is for the same key (to change the key, join again)")
	}
	cert, err := e.s.o.CA.Sign(r.GetCsr(), c.name, e.s.o.Clock.Wall(), pki.AgentLife)
	if err != nil {
		return nil, err
	}
	return &wire.RenewResponse{Certificate: cert}, nil
}
