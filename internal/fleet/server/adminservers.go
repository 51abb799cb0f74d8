package server

import (
	"context"
	"errors"
	"io/fs"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fleet/store"
	"fettle/internal/fleet/wire"
)

// Servers implements wire.AdminServiceServer.
func (a *admin) Servers(ctx context.Context, _ *wire.ServersRequest) (*wire.ServersResponse, error) {
	joined, err := a.s.o.Register.Servers(ctx)
	if err != nil {
		return nil, err
	}
	self := a.s.identity.Load().Name.ID
	peers, addresses := map[string]store.Member{}, map[string]string{}
	r := &wire.ServersResponse{}
	if a.s.o.Cluster != nil {
		members, err := a.s.o.Cluster.Members(ctx)
		if err != nil {
			return nil, err
		}
		for _, m := range members {
			if m.Name == "" { // let in, and never started
				r.Servers = append(r.Servers, &wire.ServerInfo{Peer: m.Peer, Learner: m.Learner})
			}
			peers[m.Name] = m
		}
		if addresses, err = a.s.o.Cluster.Addresses(ctx); err != nil {
			return nil, err
		}
	}
	for _, j := range joined {
		r.Servers = append(r.Servers, &wire.ServerInfo{
			Id: j.ID, Label: j.Label, JoinedUnix: j.Joined.Unix(), Leader: j.ID == self,
			Address: addresses[j.ID], Peer: peers[j.ID].Peer, Learner: peers[j.ID].Learner,
		})
	}
	return r, nil
}

// RemoveServer implements wire.AdminServiceServer. First its part of the store, which
// the store refuses where a majority would be lost, then its certificate.
func (a *admin) RemoveServer(ctx context.Context, r *wire.RemoveServerRequest) (*wire.RemoveServerResponse, error) {
	id := r.GetId()
	if a.s.o.Cluster == nil {
		return nil, status.Error(codes.FailedPrecondition, "this server is the only one (to end it, stop `fettle up`)")
	}
	if id == a.s.identity.Load().Name.ID {
		return nil, status.Errorf(codes.FailedPrecondition, "server %s leads: stop it first, so that another one takes over, and ask that one", id)
	}
	part := a.s.o.Cluster.Remove(ctx, id) // where the store is not the servers' own, only where it is reached
	if part != nil && !errors.Is(part, fs.ErrNotExist) {
		return nil, part
	}
	entry := a.s.o.Register.ForgetServer(ctx, id)
	switch {
	case errors.Is(entry, fs.ErrNotExist) && part != nil:
		return nil, status.Errorf(codes.NotFound, "there is no server %.80q (see `fettle servers`)", id)
	case entry != nil && !errors.Is(entry, fs.ErrNotExist):
		return nil, entry
	}
	a.s.o.Log.Info("a server was removed", "by", callerOf(ctx).name.ID, "server", id)
	return &wire.RemoveServerResponse{}, nil
}
