package server

import (
	"context"
	"slices"

	"fettle/internal/fleet/store"
)

// Cluster is the servers of the fleet, as their store knows them.
type Cluster interface {
	// Leader is who leads, as it was told last. It does not block.
	Leader() (store.Leader, bool)
	// Outside is how the members of an existing etcd cluster know it, where that is the
	// store; false where the servers have a store of their own.
	Outside() (cluster string, ok bool)
	// Members are the members of the store; none where it is not the servers' own.
	Members(ctx context.Context) ([]store.Member, error)
	// Add lets a further server's part of the store in and returns all members.
	Add(ctx context.Context, name, peer string) ([]store.Member, error)
	// Remove takes a server's part of the store out (fs.ErrNotExist).
	Remove(ctx context.Context, name string) error
	// Addresses are where agents and people reach the servers, by server.
	Addresses(ctx context.Context) (map[string]string, error)
}

// askAddresses are all servers', for agents to know; nil where there is but this one.
func (s *Server) askAddresses(ctx context.Context) []string {
	if s.o.Cluster == nil {
		return nil
	}
	byName, err := s.o.Cluster.Addresses(ctx)
	if err != nil {
		s.o.Log.Warn("the agent is not told of the other servers", "error", err)
		return nil
	}
	var list []string
	for _, address := range byName {
		list = append(list, address)
	}
	slices.Sort(list)
	return list
}
