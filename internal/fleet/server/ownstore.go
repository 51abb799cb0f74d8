package server

import (
	"time"

	"fettle/internal/fettle"
)

// StoreProbe is the probe under which a server says what holds its store.
const StoreProbe = "fettle.store"

// storeKind is what adapters call the kind of system that a store is in.
const storeKind fettle.Kind = "etcd"

func storeSpec() fettle.ProbeSpec {
	return fettle.ProbeSpec{
		Name: StoreProbe, Kind: KindServer, Interval: agentEvery, Timeout: time.Second, Told: true,
		Facts: []fettle.FactSpec{
			{Name: fettle.FactStoreKind, Type: fettle.StringFact, Doc: "the kind of system that holds the fleet's store; absent, as the next, where the servers have a store of their own"},
			{Name: fettle.FactStoreID, Type: fettle.StringFact, Doc: "the name that it gave itself, which its clients are told"},
		},
		Doc: "The server that leads, about itself. Nothing of that system is mended by Fettle.",
	}
}

// storeGroup is the group that holds the store, where it is not the servers' own.
func (s *Server) storeGroup() *fettle.StoreGroup {
	if s.o.Cluster == nil {
		return nil
	}
	id, ok := s.o.Cluster.Outside()
	if !ok {
		return nil
	}
	return &fettle.StoreGroup{Kind: storeKind, ID: id}
}

// holds is what this server says of its store; nothing, where that is the servers' own.
func (s *Server) holds() []fettle.Observation {
	g := s.storeGroup()
	if g == nil {
		return nil
	}
	return []fettle.Observation{{Subject: s.self, Host: s.self, Probe: StoreProbe, Asked: s.o.Clock.Now(), Facts: g.Facts()}}
}
