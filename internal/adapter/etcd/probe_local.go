package etcd

import (
	"context"
	"slices"
	"sync"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// localLooker is the probe etcd.local.
type localLooker struct{ *instance }

// Spec implements fettle.Probe.
func (localLooker) Spec() fettle.ProbeSpec { return specOf(localProbe) }

// Observe implements fettle.Probe. Asked for a member of another machine it
// returns nothing: only that machine can look.
func (p localLooker) Observe(ctx context.Context, subjects ...fettle.Subject) []fettle.Observation {
	if len(subjects) == 0 {
		return []fettle.Observation{p.observe(ctx, p.cluster.poll)}
	}
	var out []fettle.Observation
	for _, s := range subjects {
		if in, ok := p.cluster.own(s); ok {
			out = append(out, in.observe(ctx, p.cluster.look))
		}
	}
	return out
}

// observe is the observation of the own member.
func (in *instance) observe(ctx context.Context, ask func(context.Context) *round) fettle.Observation {
	o := fettle.Observation{Subject: in.member, Host: in.m.Identity.Host, Probe: localProbe, Asked: in.m.Clock.Now()}
	defer func() { o.Took = in.m.Clock.Now().Sub(o.Asked) }()
	s, err := in.lookWith(ctx, ask)
	if err != nil {
		o.Reason, o.Detail = fettle.ReasonOf(err), err.Error()
		return o
	}
	if s.round.started.Before(o.Asked) {
		o.Asked = s.round.started
	}
	o.Facts = fettle.Facts{
		"unit_active":  s.unit.ActiveState == "active" || s.unit.ActiveState == "reloading",
		"unit_state":   s.unit.ActiveState,
		"log_state":    s.logState,
		"damage":       s.data.Damage,
		"data_present": s.data.Present,
		"data_dir":     in.config.DataDir,
		"data_bytes":   s.data.Bytes,
	}
	if s.logLost != fettle.Unknown {
		o.Facts["log_lost"] = s.logLost == fettle.Yes
	}
	if s.standing != "" {
		o.Facts["standing"] = s.standing
	}
	if settings, err := in.settings(ctx); err == nil {
		if settings != nil {
			o.Facts["configured_state"] = settings.state()
		}
		in.certificateFacts(ctx, settings, o.Facts)
	}
	o.Edges = []fettle.Edge{
		{From: in.member, Rel: fettle.PartOf, To: in.cluster.subject},
		{From: in.member, Rel: fettle.RunsOn, To: in.m.Identity.Host},
		{From: in.member, Rel: fettle.Uses, To: in.unit},
	}
	if point := in.filesystem(ctx); point != "" {
		o.Facts["data_filesystem"] = point
		disk := fettle.NewSubject(fettle.KindFilesystem, in.m.Identity.Host.Name(), point)
		o.Edges = append(o.Edges,
			fettle.Edge{From: in.member, Rel: fettle.Uses, To: disk},
			fettle.Edge{From: in.unit, Rel: fettle.Uses, To: disk})
	}
	return o
}

// certificateFacts adds what is known of the member's certificates.
func (in *instance) certificateFacts(ctx context.Context, s Settings, facts fettle.Facts) {
	tls, first := in.certificates(ctx, s)
	facts["tls"] = tls
	if first.file == "" {
		return
	}
	left := first.at.Sub(in.m.Clock.Wall())
	facts["cert_expires_s"] = int64(left.Truncate(time.Minute) / time.Second)
	facts["cert_expired"] = left < 0
	facts["cert_file"], facts["cert_not_after"] = first.file, first.at.UTC().Format(time.RFC3339)
}

// state is INITIAL_CLUSTER_STATE; new is etcd's default.
func (s Settings) state() string {
	if v := s[setInitialState]; v != "" {
		return v
	}
	return "new"
}

// localWatcher tells of the own member whenever its service changes.
type localWatcher struct{ *instance }

// Spec implements fettle.Watcher.
func (localWatcher) Spec() fettle.ProbeSpec { return specOf(localProbe) }

// Watch implements fettle.Watcher.
func (w localWatcher) Watch(ctx context.Context, emit func(fettle.Observation)) error {
	return w.onChange(ctx, func(ctx context.Context) { emit(w.observe(ctx, w.cluster.look)) })
}

// clusterWatcher tells of the cluster whenever the own member's service changes:
// what hangs on its log must not be judged on what was so before.
type clusterWatcher struct{ *instance }

// Spec implements fettle.Watcher.
func (clusterWatcher) Spec() fettle.ProbeSpec { return specOf(clusterProbe) }

// Watch implements fettle.Watcher.
func (w clusterWatcher) Watch(ctx context.Context, emit func(fettle.Observation)) error {
	return w.onChange(ctx, func(ctx context.Context) { emit(w.cluster.observeCluster(ctx, w.cluster.look)) })
}

// onChange calls each when the member's service changes in a way that matters
// here, and once at the beginning, until ctx ends or the manager's watch breaks.
// Changes that come while each runs are taken together.
func (in *instance) onChange(ctx context.Context, each func(context.Context)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type turn struct{ state, invocation string }
	var (
		mu      sync.Mutex
		pending []turn
		wake    = make(chan struct{}, 1)
	)
	told := func(u machine.Unit) {
		mu.Lock()
		defer mu.Unlock()
		pending = append(pending, turn{u.ActiveState, u.InvocationID})
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- in.m.Services.Watch(ctx, told, in.config.Unit) }()
	last := turn{}
	for {
		select {
		case err := <-ended:
			return err
		case <-wake:
		}
		mu.Lock()
		list := pending
		pending = nil
		mu.Unlock()
		fresh := slices.ContainsFunc(list, func(t turn) bool { return t != last })
		last = list[len(list)-1]
		if !fresh {
			continue
		}
		look, done := context.WithTimeout(ctx, specOf(localProbe).Timeout)
		each(look)
		done()
	}
}
