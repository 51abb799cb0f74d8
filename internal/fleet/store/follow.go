package store

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"
)

// keyServers is where the servers that run say where they are reached.
const keyServers = "server/"

// Servers is a store's view of the fleet's servers, for package server. Run keeps it
// up to date.
type Servers struct {
	*Etcd
	leader atomic.Pointer[Leader]
}

// NewServers returns the view of a store that has peers.
func NewServers(e *Etcd) *Servers { return &Servers{Etcd: e} }

// Run follows who leads until ctx ends.
func (s *Servers) Run(ctx context.Context, changed func(Leader)) {
	s.Follow(ctx, func(l Leader) {
		s.leader.Store(&l)
		if changed != nil {
			changed(l)
		}
	})
}

// Leader returns who leads, as it was told last; false: nobody does.
func (s *Servers) Leader() (Leader, bool) {
	l := s.leader.Load()
	if l == nil || l.Name == "" {
		return Leader{}, false
	}
	return *l, true
}

// Announce says where this server is reached. It is kept until the server is removed.
func (e *Etcd) Announce(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	self, _ := e.self()
	data, err := json.Marshal(self)
	if err == nil {
		_, err = e.kv.Put(ctx, keyServers+self.Name, string(data))
	}
	if err != nil {
		return fmt.Errorf("announce this server: %w", explain(err))
	}
	return nil
}

// Addresses are where the servers are reached, by name.
func (e *Etcd) Addresses(ctx context.Context) (map[string]string, error) {
	list := map[string]string{}
	err := e.each(ctx, keyServers, "", func(key string, value []byte) error {
		var l Leader
		if err := json.Unmarshal(value, &l); err != nil {
			return fmt.Errorf("address of server %s: %w", strings.TrimPrefix(key, keyServers), err)
		}
		list[l.Name] = l.Address
		return nil
	})
	return list, err
}

// Remove takes a server out: its part of the store, where it has one, and where it is
// reached.
func (s *Servers) Remove(ctx context.Context, name string) error {
	if s.o.Existing == nil {
		if err := s.Etcd.Remove(ctx, name); err != nil {
			return err
		}
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	resp, err := s.kv.Delete(ctx, keyServers+name)
	if err == nil {
		_, err = s.kv.Delete(ctx, keyHeld+name)
	}
	switch {
	case err != nil:
		return fmt.Errorf("remove the address of server %s: %w", name, explain(err))
	case s.o.Existing != nil && resp.Deleted == 0:
		return fmt.Errorf("remove the address of server %s: %w", name, fs.ErrNotExist)
	}
	return nil
}
