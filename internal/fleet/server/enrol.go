package server

import (
	"context"
	"errors"
	"net"
	"time"

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
func (e *enrol) Join(ctx context.Context, r *wire.JoinRequest) (*wire.JoinResponse, error) {
	if err := wire.CheckSchema(r.GetSchema()); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	if l := r.GetLabel(); l == "" || len(l) > maxLabel {
		return nil, status.Errorf(codes.InvalidArgument, "host name %.80q: want 1 to %d characters", l, maxLabel)
	}
	now := e.s.o.Clock.Wall()
	if err := e.redeem(ctx, pki.RoleAgent, r.GetTokenId(), r.GetSecret(), now); err != nil {
		return nil, err
	}
	h, cert, err := e.s.o.Register.Admit(ctx, r.GetCsr(), r.GetLabel(), now)
	if err != nil {
		return nil, err
	}
	e.s.mu.Lock()
	e.s.host(fettle.HostSubject(h.ID)).label = h.Label
	e.s.mu.Unlock()
	e.s.o.Log.Info("a host joined", "host", h.ID, "label", h.Label)
	return &wire.JoinResponse{Certificate: cert, Authority: e.s.identity.Load().Authority()}, nil
}

func (e *enrol) redeem(ctx context.Context, role pki.Role, id, secret string, now time.Time) error {
	err := e.s.o.Register.Redeem(ctx, role, id, secret, now)
	switch {
	case errors.Is(err, pki.ErrToken):
		return status.Error(codes.Unauthenticated, err.Error())
	case err != nil:
		return status.Error(codes.Internal, err.Error())
	}
	return nil
}

// JoinServer implements wire.EnrolServiceServer. The token is used up first: whoever
// gets the authority's key was let in once, by an administrator.
func (e *enrol) JoinServer(ctx context.Context, r *wire.JoinServerRequest) (*wire.JoinServerResponse, error) {
	if err := wire.CheckSchema(r.GetSchema()); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	if e.s.o.Cluster == nil {
		return nil, status.Error(codes.FailedPrecondition, "this server is alone, and stays so (run `fettle server` there instead of `fettle up`)")
	}
	if l := r.GetLabel(); l == "" || len(l) > maxLabel {
		return nil, status.Errorf(codes.InvalidArgument, "host name %.80q: want 1 to %d characters", l, maxLabel)
	}
	if _, _, err := net.SplitHostPort(r.GetPeer()); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "address %.80q for the other servers: want host:port: %v", r.GetPeer(), err)
	}
	now := e.s.o.Clock.Wall()
	if err := e.redeem(ctx, pki.RoleServer, r.GetTokenId(), r.GetSecret(), now); err != nil {
		return nil, err
	}
	h, cert, err := e.s.o.Register.AdmitServer(ctx, r.GetCsr(), r.GetLabel(), now)
	if err != nil {
		return nil, err
	}
	members, err := e.s.o.Cluster.Add(ctx, h.ID, r.GetPeer())
	if err != nil {
		return nil, errors.Join(err, e.s.o.Register.ForgetServer(ctx, h.ID))
	}
	key, err := e.s.o.CA.Export()
	if err != nil {
		return nil, err
	}
	resp := &wire.JoinServerResponse{Certificate: cert, Authority: e.s.identity.Load().Authority(), AuthorityKey: key}
	for _, m := range members {
		resp.Members = append(resp.Members, &wire.StoreMember{Name: m.Name, Peer: m.Peer, Learner: m.Learner})
	}
	e.s.o.Log.Info("a server joined", "server", h.ID, "label", h.Label, "peer", r.GetPeer())
	return resp, nil
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
