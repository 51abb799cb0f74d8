package etcd

import (
	"context"
	"math"
	"slices"
	"time"

	"fettle/internal/fettle"
)

// memberLooker is the probe etcd.member.
type memberLooker struct{ *cluster }

// Spec implements fettle.Probe.
func (memberLooker) Spec() fettle.ProbeSpec { return specOf(memberProbe) }

// Observe implements fettle.Probe.
func (p memberLooker) Observe(ctx context.Context, subjects ...fettle.Subject) []fettle.Observation {
	before := p.knownMembers()
	ask := p.look
	if len(subjects) == 0 {
		ask = p.poll
	}
	r := ask(ctx)
	var out []fettle.Observation
	seen := func(s fettle.Subject) bool {
		return slices.ContainsFunc(out, func(o fettle.Observation) bool { return o.Subject == s })
	}
	for _, v := range r.views {
		if len(subjects) == 0 || slices.Contains(subjects, v.subject) {
			out = append(out, p.observeMember(ctx, r, v))
		}
	}
	// A member that was there and is no longer listed is gone, as far as can be
	// seen from here; on its own machine it stays a subject.
	for _, s := range append(before, subjects...) {
		if wanted := len(subjects) == 0 || slices.Contains(subjects, s); !wanted || seen(s) || s.Kind() != KindMember || s.Root() != p.system {
			continue
		}
		o := fettle.Observation{Subject: s, Host: p.m.Identity.Host, Probe: memberProbe, Asked: r.started, Took: r.took}
		if r.from == listed {
			o.Gone = true
		} else {
			o.Reason, o.Detail = fettle.Unreachable, "no member answers, so it is not known where this one is"
		}
		out = append(out, o)
	}
	return out
}

// knownMembers returns the subjects of the newest round.
func (c *cluster) knownMembers() []fettle.Subject {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []fettle.Subject
	if c.last != nil {
		for _, v := range c.last.views {
			out = append(out, v.subject)
		}
	}
	return out
}

func (c *cluster) observeMember(ctx context.Context, r *round, v view) fettle.Observation {
	o := fettle.Observation{
		Subject: v.subject, Host: c.m.Identity.Host, Probe: memberProbe, Asked: r.started, Took: r.took,
		Edges: []fettle.Edge{{From: v.subject, Rel: fettle.PartOf, To: c.subject}},
	}
	switch {
	case v.clientURL == "":
		o.Reason, o.Detail = fettle.Failed, "its client URL is not known: it has not started since it was added"
		return o
	case v.status == nil && v.err == nil:
		o.Reason, o.Detail = fettle.TimedOut, "it was not asked before the time was up"
		return o
	case v.status == nil && sortError(v.err) == denied:
		o.Reason, o.Detail = fettle.PermissionDenied, v.err.Error()+": "+deniedHint
		return o
	}
	o.Facts = fettle.Facts{"answers": v.status != nil, "listed": v.listed}
	if v.id != 0 {
		o.Facts["member_id"] = hex(v.id)
		o.Facts["learner"] = v.learner
		o.Facts["leader"] = v.id == r.leader
	}
	if v.status == nil {
		o.Detail = v.err.Error()
		return o
	}
	s := v.status
	o.Facts["version"] = s.Version
	o.Facts["db_bytes"] = s.DbSize
	o.Facts["db_in_use_bytes"] = s.DbSizeInUse
	o.Facts["raft_index"] = int64(min(s.RaftIndex, math.MaxInt64))
	o.Facts["applied_index"] = int64(min(s.RaftAppliedIndex, math.MaxInt64))
	if v.health != fettle.Unknown {
		o.Facts["health"] = v.health == fettle.Yes
	}
	if s.DbSizeQuota > 0 {
		o.Facts["quota_bytes"] = s.DbSizeQuota
	}
	alarms := []string{}
	list, _ := alarmsIn(s.Errors)
	for _, a := range list {
		if a.member == v.id {
			alarms = append(alarms, a.what)
		}
	}
	slices.Sort(alarms)
	o.Facts["alarms"] = slices.Compact(alarms)
	if in, ok := c.own(v.subject); ok {
		in.measured(ctx, v.clientURL, o.Facts)
	}
	return o
}

// meter is what was read of the own member's metrics.
type meter struct {
	page  page
	at    time.Time
	p99   int64 // ms; negative: not known
	p99At time.Time
}

const (
	// meterEvery is how often the page is read: it has 200 KB, and takes the
	// server some milliseconds to write.
	meterEvery = 10 * time.Second
	// meterSyncs is how many syncs a quantile needs to say something.
	meterSyncs = 20
	// meterKept is how long a quantile stays a fact when no new one can be had.
	meterKept = time.Minute
)

// measured adds what only the own machine reads: the member's metrics.
func (in *instance) measured(ctx context.Context, clientURL string, facts fettle.Facts) {
	now := in.m.Clock.Now()
	in.mu.Lock()
	m := in.meter
	in.mu.Unlock()
	if m.at.IsZero() || now.Sub(m.at) >= meterEvery {
		status, body, err := in.cluster.dial.get(ctx, clientURL+"/metrics", 4<<20)
		if p, perr := parseMetrics(body); err == nil && status == 200 && perr == nil {
			m = m.next(p, now)
			in.mu.Lock()
			in.meter = m
			in.mu.Unlock()
		}
	}
	if m.page.quota > 0 && now.Sub(m.at) < meterKept {
		facts["quota_bytes"] = m.page.quota
	}
	if m.p99 >= 0 && !m.p99At.IsZero() && now.Sub(m.p99At) < meterKept {
		facts["wal_fsync_p99_ms"] = m.p99
	}
}

// next takes in a new page. Pages are skipped until there were enough syncs
// between two of them.
func (m meter) next(p page, now time.Time) meter {
	upper, count, ok := quantile(m.page, p, 990)
	switch {
	case ok && count >= meterSyncs:
		return meter{page: p, at: now, p99: upper, p99At: now}
	case ok:
		// Too few since: the next page is compared with the same one.
		m.at = now
		m.page.quota = p.quota
		return m
	case m.page.started == p.started && m.page.started >= 0:
		m.at, m.page.quota = now, p.quota
		return m
	}
	return meter{page: p, at: now, p99: -1}
}
