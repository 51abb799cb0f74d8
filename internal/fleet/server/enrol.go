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
	"fettle/internal/fleet/store"
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
	pin, err := e.redeem(ctx, pki.RoleAgent, r.GetTokenId(), r.GetSecret(), now)
	if err != nil {
		return nil, err
	}
	h, cert, err := e.s.o.Register.Under(pin).Admit(ctx, r.GetCsr(), r.GetLabel(), now)
	if err != nil {
		return nil, err
	}
	authority, err := e.s.o.CA.Certificate(pin)
	if err != nil {
		return nil, err
	}
	e.s.mu.Lock()
	e.s.host(fettle.HostSubject(h.ID)).label = h.Label
	e.s.mu.Unlock()
	e.s.o.Log.Info("a host joined", "host", h.ID, "label", h.Label)
	resp := &wire.JoinResponse{Certificate: cert, Authority: authority}
	if trust := e.s.o.CA.Trust(); trust.Serial() != 0 {
		resp.Authorities = trust.Authorities()
		if pin == e.s.o.CA.Pin() { // else it hears the words, and renews
			resp.AuthoritiesSerial = trust.Serial()
		}
	}
	return resp, nil
}

// redeem returns the pin of the authority that the token names.
func (e *enrol) redeem(ctx context.Context, role pki.Role, id, secret string, now time.Time) (string, error) {
	pin, err := e.s.o.Register.Redeem(ctx, role, id, secret, now)
	switch {
	case errors.Is(err, pki.ErrToken):
		return "", status.Error(codes.Unauthenticated, err.Error())
	case err != nil:
		return "", status.Error(codes.Internal, err.Error())
	}
	return pin, nil
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
	_, outside := e.s.o.Cluster.Outside()
	if err := e.roomFor(ctx, r, outside); err != nil {
		return nil, err
	}
	now := e.s.o.Clock.Wall()
	pin, err := e.redeem(ctx, pki.RoleServer, r.GetTokenId(), r.GetSecret(), now)
	if err != nil {
		return nil, err
	}
	h, cert, err := e.s.o.Register.Under(pin).AdmitServer(ctx, r.GetCsr(), r.GetLabel(), now)
	if err != nil {
		return nil, err
	}
	var members []store.Member
	if !outside {
		members, err = e.s.o.Cluster.Add(ctx, h.ID, r.GetPeer())
	}
	if err != nil {
		return nil, errors.Join(err, e.s.o.Register.ForgetServer(ctx, h.ID))
	}
	if pin == "" {
		pin = e.s.o.CA.Pin()
	}
	key, err := e.s.o.CA.ExportKey(pin)
	if err != nil {
		return nil, err
	}
	authority, err := e.s.o.CA.Certificate(pin)
	if err != nil {
		return nil, err
	}
	resp := &wire.JoinServerResponse{Certificate: cert, Authority: authority, AuthorityKey: key, AuthorityWords: wireWords(e.s.o.CA.Words())}
	for _, other := range e.s.o.CA.Trust().Pins() {
		if other == pin {
			continue
		}
		if key, err = e.s.o.CA.ExportKey(other); err != nil {
			return nil, err
		}
		resp.MoreAuthorityKeys = append(resp.MoreAuthorityKeys, key)
	}
	for _, m := range members {
		resp.Members = append(resp.Members, &wire.StoreMember{Name: m.Name, Peer: m.Peer, Learner: m.Learner})
	}
	e.s.o.Log.Info("a server joined", "server", h.ID, "label", h.Label, "peer", r.GetPeer())
	return resp, nil
}

// mostServers is how many servers a fleet has at most: more make nothing safer.
const mostServers = 5

// roomFor refuses a server that does not fit the others, before its token is used up.
func (e *enrol) roomFor(ctx context.Context, r *wire.JoinServerRequest, outside bool) error {
	if !outside {
		if _, _, err := net.SplitHostPort(r.GetPeer()); err != nil {
			return status.Errorf(codes.InvalidArgument, "address %.80q for the other servers: want host:port: %v", r.GetPeer(), err)
		}
		return nil
	}
	if r.GetPeer() != "" {
		return status.Error(codes.FailedPrecondition, "the store of this fleet is an etcd cluster of its own: name the same one with --store (and its certificates or user) where you join")
	}
	have, err := e.s.o.Register.Servers(ctx)
	if err != nil {
		return err
	}
	if len(have) >= mostServers {
		return status.Errorf(codes.FailedPrecondition, "there are %d servers, and more make nothing safer (take one out with `fettle remove-server`)", len(have))
	}
	return nil
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

// AuthorityKey implements wire.EnrolServiceServer: a server that is in the register has
// the right to the keys, as one that joins.
func (e *enrol) AuthorityKey(ctx context.Context, r *wire.AuthorityKeyRequest) (*wire.AuthorityKeyResponse, error) {
	if err := wire.CheckSchema(r.GetSchema()); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	key, err := e.s.o.CA.ExportKey(r.GetPin())
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	e.s.o.Log.Info("the key of an authority was handed to another server", "server", callerOf(ctx).name.ID, "authority", r.GetPin())
	return &wire.AuthorityKeyResponse{AuthorityKey: key}, nil
}
