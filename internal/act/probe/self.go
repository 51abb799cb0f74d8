package probe

import (
	"context"
	"maps"
	"slices"
	"time"

	"fettle/internal/fettle"
)

// SelfProbe is the name of the probe under which a runner tells about itself, as
// facts of its host.
const SelfProbe = "fettle.probes"

// SelfSpec declares those facts. Whoever makes the fleet's catalogue adds it, so
// that rules can read them.
func SelfSpec() fettle.ProbeSpec {
	return fettle.ProbeSpec{
		Name: SelfProbe,
		Kind: fettle.KindHost,
		Facts: []fettle.FactSpec{
			{Name: "stuck_probes", Type: fettle.ListFact, Doc: "probes of which a call was cut off and has still not returned; nothing is known of what they look at"},
			{Name: "broken_watchers", Type: fettle.ListFact, Doc: "probes whose watcher broke and is not back; polls cover for them"},
			{Name: "defective_probes", Type: fettle.ListFact, Doc: "probes that last gave something that their spec does not allow, or panicked"},
		},
		Interval: time.Minute,
		Timeout:  time.Second,
		Told:     true,
		Doc:      "how the agent's own looking goes",
	}
}

// tellSelf takes in how the runner is.
func (r *Runner) tellSelf() fettle.Observation {
	r.selfTurn.Lock()
	defer r.selfTurn.Unlock()
	now := r.o.Clock.Now()
	stuck := []string{}
	for _, a := range r.askers {
		a.mu.Lock()
		if !a.stuck.IsZero() {
			stuck = append(stuck, a.spec.Name)
		}
		a.mu.Unlock()
	}
	slices.Sort(stuck)
	r.mu.Lock()
	broken := slices.Sorted(maps.Keys(r.broken))
	defects := slices.Sorted(maps.Values(r.defects))
	r.mu.Unlock()
	return r.sink.accept(fettle.Observation{
		Subject: r.o.Host, Host: r.o.Host, Probe: SelfProbe, Asked: now,
		Facts: fettle.Facts{"stuck_probes": slices.Compact(stuck), "broken_watchers": list(broken), "defective_probes": list(slices.Compact(defects))},
	})
}

// list is never nil: a fact that is empty is known to be so.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// setDefect notes whether a probe or watcher (the owner) broke its own spec.
func (r *Runner) setDefect(owner any, name string, defect bool) {
	r.mu.Lock()
	_, was := r.defects[owner]
	if defect {
		r.defects[owner] = name
	} else {
		delete(r.defects, owner)
	}
	r.mu.Unlock()
	if was != defect {
		r.tellSelf()
	}
}

// keepTelling tells about the runner at the interval of its spec, so that what
// it said does not expire.
func (r *Runner) keepTelling(ctx context.Context) {
	for {
		r.tellSelf()
		due, stop := r.o.Clock.After(SelfSpec().Interval)
		select {
		case <-ctx.Done():
			stop()
			return
		case <-due:
		}
	}
}
