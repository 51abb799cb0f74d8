package probe

import (
	"context"
	"slices"
	"sync"

	"fettle/internal/fettle"
)

// Look asks for fresh observations now, each probe once and all at the same time,
// and returns when all have answered or ctx ends. What could not be had in time is
// TimedOut; a probe that this agent does not have is NotSupported; a look for
// another host is left out. A look without a subject asks for all that the probe
// sees. Asked of an answer is not before the call, unless the probe itself says
// that it answered from what it knew. The result is sorted by subject and probe
// and may hold more than was asked for: what the same calls saw besides.
func (r *Runner) Look(ctx context.Context, looks []fettle.Look) []fettle.Observation {
	want := map[*asker][]fettle.Subject{}
	all := map[*asker]bool{}
	var out []fettle.Observation
	for _, l := range looks {
		if l.Host != "" && l.Host != r.o.Host {
			continue
		}
		if l.Probe == SelfProbe {
			out = append(out, r.tellSelf())
			continue
		}
		askers := r.whoCanLook(l)
		if len(askers) == 0 && l.Subject != "" {
			now := r.o.Clock.Now()
			out = append(out, unknown(fettle.ProbeSpec{Name: l.Probe}, r.o.Host, l.Subject, fettle.NotSupported, "this agent has no such probe", now, now))
		}
		for _, a := range askers {
			if l.Subject == "" {
				all[a] = true
				want[a] = nil
			} else if !all[a] && !slices.Contains(want[a], l.Subject) {
				want[a] = append(want[a], l.Subject)
			}
		}
	}
	return settle(append(out, r.gather(ctx, want)...))
}

// Once asks every probe for everything, once: what a command needs that looks and
// ends. Each probe has its own timeout.
func (r *Runner) Once(ctx context.Context) []fettle.Observation {
	want := map[*asker][]fettle.Subject{}
	for _, a := range r.askers {
		want[a] = nil
	}
	return settle(append(r.gather(ctx, want), r.tellSelf()))
}

// whoCanLook lists those who have the probe: where several instances have it,
// those that know the subject, or all when none does.
func (r *Runner) whoCanLook(l fettle.Look) []*asker {
	var have, know []*asker
	for _, a := range r.askers {
		if a.spec.Name != l.Probe {
			continue
		}
		have = append(have, a)
		a.mu.Lock()
		if a.known[l.Subject] {
			know = append(know, a)
		}
		a.mu.Unlock()
	}
	if len(know) > 0 {
		return know
	}
	return have
}

// gather asks several probes at once.
func (r *Runner) gather(ctx context.Context, want map[*asker][]fettle.Subject) []fettle.Observation {
	var (
		mu  sync.Mutex
		all sync.WaitGroup
		out []fettle.Observation
	)
	for a, subjects := range want {
		all.Go(func() {
			list := a.ask(ctx, subjects)
			mu.Lock()
			out = append(out, list...)
			mu.Unlock()
		})
	}
	all.Wait()
	return out
}

// settle sorts, and keeps one observation of a subject by a probe: a known one
// before one that is not, then the later one.
func settle(list []fettle.Observation) []fettle.Observation {
	best := map[seenBy]fettle.Observation{}
	for _, o := range list {
		key := seenBy{o.Subject, o.Probe}
		b, had := best[key]
		if !had || (o.Known() && !b.Known()) || (o.Known() == b.Known() && o.Asked.After(b.Asked)) {
			best[key] = o
		}
	}
	out := make([]fettle.Observation, 0, len(best))
	for _, o := range best {
		out = append(out, o)
	}
	return inOrder(out)
}
