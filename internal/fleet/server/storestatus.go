package server

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fettle"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/incident"
)

// RoomProbe is the probe under which the server that leads says whether its store has
// room.
const RoomProbe = "fettle.store_room"

const (
	// storeEvery is how often that is said anew, storeLook how often it is looked at.
	storeEvery = 20 * time.Second
	storeLook  = 2 * time.Second
	// storeDelay is how long a store may be short of room before that is a fault: what is
	// compacted is free a round of the keeper's later.
	storeDelay = 10 * time.Second
)

// bounded is a History that knows how large it is, as package store's is.
type bounded interface {
	Usage() (store.Usage, bool)
}

// shelved is a History that keeps incidents in files, as package store's does.
type shelved interface {
	Ended(ctx context.Context, each func(fettle.Incident) error) error
	EndedIncident(ctx context.Context, id string) (fettle.Incident, bool, error)
}

func (s *Server) usage() (store.Usage, bool) {
	if h, ok := s.o.History.(bounded); ok {
		return h.Usage()
	}
	return store.Usage{}, false
}

// storeStatus is how large the store is; nil where that is not known.
func (s *Server) storeStatus() *wire.StoreStatus {
	u, ok := s.usage()
	if !ok {
		return nil
	}
	return &wire.StoreStatus{
		InUse: u.InUse, OnDisk: u.File, Quota: u.Quota, Reserve: u.Reserve, State: u.State, Why: u.Why,
		EntriesInStore: u.InStore, EntriesInFiles: u.InFiles, IncidentsInFiles: u.Incidents, Segments: u.Segments, SegmentBytes: u.FileBytes,
		OldestUnix: unix(u.Oldest), BackupUnix: unix(u.Backup), Lacks: u.Lacks,
	}
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// watchStore says whether the store has room, at once when that changes, until ctx ends.
func (s *Server) watchStore(ctx context.Context) {
	var said time.Time
	var last store.Usage
	for {
		timer, stop := s.o.Clock.After(storeLook)
		select {
		case <-ctx.Done():
			stop()
			return
		case <-timer:
		}
		now := s.o.Clock.Now()
		u, ok := s.usage()
		if !ok || u.State == last.State && (len(u.Lacks) > 0) == (len(last.Lacks) > 0) && now.Sub(said) < storeEvery {
			continue
		}
		said, last = now, u
		o, _ := s.storeObservation(now)
		s.feed(incident.Input{Observations: []fettle.Observation{o}})
	}
}

// storeObservation is the store's room as a fact.
func (s *Server) storeObservation(now time.Time) (fettle.Observation, bool) {
	u, ok := s.usage()
	if !ok {
		return fettle.Observation{}, false
	}
	facts := fettle.Facts{
		"in_use_bytes": u.InUse, "file_bytes": u.File, "quota_bytes": u.Quota,
		"filling": u.State == store.Filling, "full": u.State == store.Full, "lacks": len(u.Lacks) > 0,
	}
	if u.Why != "" {
		facts["why"] = u.Why
	}
	if len(u.Lacks) > 0 {
		facts["lacks_what"] = u.Lacks[0]
	}
	return fettle.Observation{Subject: s.self, Host: s.self, Probe: RoomProbe, Asked: now, Facts: facts}, true
}

func roomSpec() fettle.ProbeSpec {
	return fettle.ProbeSpec{
		Name: RoomProbe, Kind: KindServer, Interval: storeEvery, Timeout: time.Second, Told: true,
		Facts: []fettle.FactSpec{
			{Name: "in_use_bytes", Type: fettle.IntFact, Doc: "of the store, at the fullest server"},
			{Name: "file_bytes", Type: fettle.IntFact, Doc: "of etcd's file there"},
			{Name: "quota_bytes", Type: fettle.IntFact, Doc: "at which etcd takes no more writes"},
			{Name: "filling", Type: fettle.BoolFact, Doc: "little room is left for ordinary writes, although what is old went to files"},
			{Name: "full", Type: fettle.BoolFact, Doc: "no room is left for them: what is left is kept for outcomes and a freeze"},
			{Name: "why", Type: fettle.StringFact, Doc: "how full"},
			{Name: "lacks", Type: fettle.BoolFact, Doc: "a server lacks a file of the log, or has one that was altered"},
			{Name: "lacks_what", Type: fettle.StringFact, Doc: "which"},
		},
		Doc: "The server that leads, about the store of all servers.",
	}
}

func storeConditions() []fettle.ConditionSpec {
	spec := func(c fettle.ConditionSpec) fettle.ConditionSpec {
		c.Kind, c.Layer, c.Scope, c.Probe, c.Delay, c.Expiry = KindServer, fettle.Coordination, fettle.ClusterScope, RoomProbe, storeDelay, 4*storeEvery
		return c
	}
	const bySelf = "it moves what is old to files, compacts and defragments by itself, one server after the other; what does not fit after that needs "
	return []fettle.ConditionSpec{
		spec(fettle.ConditionSpec{
			Code: "fettle.store_filling", Title: "Fettle's own store fills up: {why}", Severity: fettle.Warning,
			Raise: "self.filling", NotMended: bySelf + "a larger quota (--store-quota), or fewer hosts to a fleet",
			Doc: "Little room is left for ordinary writes. By hand: fettle status shows what is in it; start the servers with a larger --store-quota, one after the other.",
		}),
		spec(fettle.ConditionSpec{
			Code: "fettle.store_full", Title: "Fettle's own store is full: {why}", Severity: fettle.Critical,
			Raise: "self.full", NotMended: bySelf + "a larger quota (--store-quota)",
			Doc: "Incidents and the text of the log are not kept, new repairs begin only while there is room for their ends; outcomes, a freeze and windows of maintenance are kept. By hand: start the servers with a larger --store-quota, one after the other.",
		}),
		spec(fettle.ConditionSpec{
			Code: "fettle.log_incomplete", Title: "a part of Fettle's own log cannot be read: {lacks_what}", Severity: fettle.Critical,
			Raise: "self.lacks", NotMended: "each server gets what it lacks from the others by itself; what no server has, a backup may have",
			Doc: "A file of the log of decisions, or of incidents that have ended, is missing or was altered, and no other server could give it. By hand: fettle audit verify; then look at that server's folder store/segments and its disk; what was altered is set aside there.",
		}),
	}
}

// archived finds an incident that is in a file.
func (s *Server) archived(ctx context.Context, id string) (fettle.Incident, bool, error) {
	if h, ok := s.o.History.(shelved); ok {
		return h.EndedIncident(ctx, id)
	}
	return fettle.Incident{}, false, nil
}

// over refuses an answer to an incident that is in a file: nothing of it is remembered
// that could be taken back.
func (s *Server) over(ctx context.Context, id string) error {
	known := false
	if err := s.ask(ctx, func(m *incident.Mind) { _, known = m.Incident(id) }); err != nil || known {
		return err
	}
	i, ok, err := s.archived(ctx, id)
	if err != nil || !ok {
		return err
	}
	return status.Errorf(codes.FailedPrecondition, "incident %.40q ended on %s and went to a file: there is nothing to answer (see `fettle incident explain`)", id, i.Ended.Format(time.DateTime))
}
