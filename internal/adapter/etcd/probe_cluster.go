package etcd

import (
	"context"
	"slices"

	"fettle/internal/fettle"
)

// clusterLooker is the probe etcd.cluster.
type clusterLooker struct{ *cluster }

// Spec implements fettle.Probe.
func (clusterLooker) Spec() fettle.ProbeSpec { return specOf(clusterProbe) }

// Observe implements fettle.Probe.
func (p clusterLooker) Observe(ctx context.Context, subjects ...fettle.Subject) []fettle.Observation {
	switch {
	case len(subjects) == 0:
		return []fettle.Observation{p.observeCluster(ctx, p.poll)}
	case slices.Contains(subjects, p.subject):
		return []fettle.Observation{p.observeCluster(ctx, p.look)}
	}
	return nil
}

// observeCluster is the cluster as this machine sees it. Where no member answers,
// its members are those that were last listed, or configured, and none serves:
// they can still be started.
func (c *cluster) observeCluster(ctx context.Context, ask func(context.Context) *round) fettle.Observation {
	asked := c.m.Clock.Now()
	lost := map[fettle.Subject]fettle.Tri{}
	logged := uint64(0) // the cluster's identity in the log of a member of this machine
	r := ask(ctx)
	same := func(context.Context) *round { return r }
	for _, in := range c.locals() {
		// Where its manager does not answer, whether its log is lost stays unknown.
		if s, err := in.lookWith(ctx, same); err == nil {
			lost[in.member] = s.logLost
			logged = max(logged, s.data.Cluster)
		}
	}
	if r.started.Before(asked) {
		asked = r.started
	}
	group := r.quorum(lost)
	if id := c.identity(r, logged); id != 0 {
		group.ID = hex(id)
	}
	o := fettle.Observation{
		Subject: c.subject, Host: c.m.Identity.Host, Probe: clusterProbe, Asked: asked, Took: c.m.Clock.Now().Sub(asked),
		Facts: c.clusterFacts(r), Quorum: group,
	}
	if len(o.Quorum.Members) == 0 {
		o.Facts, o.Quorum = nil, nil
		o.Reason, o.Detail = fettle.Unreachable, "no member of it is known"
		return o
	}
	if err := r.allDeny(); err != nil {
		o.Facts, o.Quorum = nil, nil
		o.Reason, o.Detail = fettle.PermissionDenied, err.Error()+": "+deniedHint
	}
	for _, v := range r.views {
		if r.from != listed || v.listed {
			o.Edges = append(o.Edges, fettle.Edge{From: v.subject, Rel: fettle.PartOf, To: c.subject})
		}
	}
	return o
}

// identity is the cluster's own: as a member says now, or said last, or as the log of a
// member of this machine has it. 0: none of these.
func (c *cluster) identity(r *round, logged uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case r.id != 0:
		return r.id
	case c.known != nil && c.known.id != 0:
		return c.known.id
	}
	return logged
}

func (c *cluster) clusterFacts(r *round) fettle.Facts {
	var voters, serving, learners int64
	var leader string
	alarms, versions := []string{}, []string{}
	f := fettle.Facts{"nospace": false, "corrupt": false}
	var revision, size, used int64
	answered := false
	for _, v := range r.views {
		if r.from == listed && !v.listed {
			continue
		}
		switch {
		case v.learner:
			learners++
		default:
			voters++
			if r.serving(v) == fettle.Yes {
				serving++
			}
		}
		if v.id != 0 && v.id == r.leader {
			leader = v.name
		}
		if v.status == nil {
			continue
		}
		answered = true
		versions = append(versions, v.status.Version)
		revision = max(revision, v.status.Header.GetRevision())
		size, used = max(size, v.status.DbSize), max(used, v.status.DbSizeInUse)
		list, _ := alarmsIn(v.status.Errors)
		for _, a := range list {
			alarms = append(alarms, r.nameOf(a))
			f["nospace"] = f["nospace"] == true || a.what == "NOSPACE"
			f["corrupt"] = f["corrupt"] == true || a.what == "CORRUPT"
		}
	}
	slices.Sort(alarms)
	slices.Sort(versions)
	f["has_leader"] = r.leader != 0
	f["leader"] = leader
	f["voters"], f["serving"], f["learners"] = voters, serving, learners
	if r.id != 0 {
		f["cluster_id"] = hex(r.id)
	}
	if !answered {
		// Nobody spoke for the cluster. That there is no leader is known only when
		// every member refused: one that is merely not reached may have one.
		delete(f, "nospace")
		delete(f, "corrupt")
		if !r.allRefuse() {
			delete(f, "has_leader")
			delete(f, "leader")
		}
		return f
	}
	f["alarms"], f["versions"] = slices.Compact(alarms), slices.Compact(versions)
	f["revision"], f["db_bytes"], f["db_in_use_bytes"] = revision, size, used
	if quota := c.smallestQuota(r); quota > 0 {
		f["quota_bytes"] = quota
	}
	return f
}

// nameOf writes an alarm with whose it is.
func (r *round) nameOf(a alarm) string {
	if a.member == 0 {
		return a.what
	}
	if owner, ok := r.byID(a.member); ok {
		return a.what + " " + owner.name
	}
	return a.what + " " + hex(a.member)
}

// allDeny returns why none of the members that were reached told anything; nil if
// one did, or none was reached.
func (r *round) allDeny() (why error) {
	for _, v := range r.views {
		switch {
		case v.status != nil:
			return nil
		case why == nil && sortError(v.err) == denied:
			why = v.err
		}
	}
	return why
}

// allRefuse reports whether every member was asked and its machine refused.
func (r *round) allRefuse() bool {
	return !slices.ContainsFunc(r.views, func(v view) bool { return v.status != nil || !refused(v.err) })
}

// smallestQuota returns the least quota that is known: of 3.7 members from their
// status, of those of this machine also from their metrics.
func (c *cluster) smallestQuota(r *round) int64 {
	var least int64
	take := func(q int64) {
		if q > 0 && (least == 0 || q < least) {
			least = q
		}
	}
	for _, v := range r.views {
		if v.status != nil {
			take(v.status.DbSizeQuota)
		}
	}
	for _, in := range c.locals() {
		in.mu.Lock()
		q := in.meter.page.quota
		in.mu.Unlock()
		take(q)
	}
	return least
}
