package firewall

import (
	"cmp"
	"context"
	"fmt"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// shown is how many differing rules a fact lists: a person reads a few, and all of
// them where they are.
const shown = 20

// nobody made the last change, as far as is known.
const nobody = "unknown"

// looker asks nft.
type looker struct{ *instance }

func (looker) Spec() fettle.ProbeSpec { return Catalogue().Probes[0] }

// Observe implements fettle.Probe.
func (p looker) Observe(ctx context.Context, subjects ...fettle.Subject) []fettle.Observation {
	if len(subjects) == 0 {
		return []fettle.Observation{p.look(ctx)}
	}
	var out []fettle.Observation
	for _, s := range subjects {
		if p.mine(s) {
			out = append(out, p.look(ctx))
			continue
		}
		out = append(out, fettle.Observation{Subject: s, Asked: p.m.Clock.Now(), Reason: fettle.NotSupported, Detail: "not the packet filter of this machine"})
	}
	return out
}

// look compares what is in force with what is persisted.
func (i *instance) look(ctx context.Context) fettle.Observation {
	o := fettle.Observation{Subject: i.subject(), Host: i.m.Identity.Host, Probe: rulesetProbe, Asked: i.m.Clock.Now()}
	s, err := i.state(ctx)
	if err != nil {
		o.Reason, o.Detail = fettle.ReasonOf(err), err.Error()
		return o
	}
	i.mu.Lock()
	by := cmp.Or(i.by, nobody)
	i.mu.Unlock()
	o.Facts = fettle.Facts{
		"file": i.config.File, "differs": len(s.tables) > 0, "blocks": s.blocks, "mendable": len(s.foreign) == 0,
		"added": firstOf(s.added), "missing": firstOf(s.missing), "foreign": firstOf(s.foreign),
		"live_hash": s.live.hash(), "persisted_hash": s.persisted.hash(), "changed_by": by,
	}
	o.Edges = []fettle.Edge{{From: o.Subject, Rel: fettle.RunsOn, To: i.m.Identity.Host}}
	return o
}

func firstOf(list []string) []string {
	out := []string{}
	for i, l := range list {
		if i == shown {
			return append(out, fmt.Sprintf("and %d more", len(list)-shown))
		}
		out = append(out, l)
	}
	return out
}

// watcher is told by the kernel.
type watcher struct{ *instance }

func (watcher) Spec() fettle.ProbeSpec { return Catalogue().Probes[0] }

// Watch implements fettle.Watcher. Changes that come while one is looked at are
// looked at together.
func (w watcher) Watch(ctx context.Context, emit func(fettle.Observation)) error {
	if w.m.Rulesets == nil {
		return fmt.Errorf("watch the packet filter: %w (it is polled)", fettle.ErrNotSupported)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	changed := make(chan struct{}, 1) // has a value from when changes are told
	ended := make(chan error, 1)
	go func() {
		ended <- w.m.Rulesets.WatchRules(ctx, func(c machine.RulesChange) {
			if c.Generation != 0 {
				w.mu.Lock()
				w.by = by(c)
				w.mu.Unlock()
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	}()
	for {
		select {
		case err := <-ended:
			return err
		case <-changed:
			emit(w.lookInTime(ctx))
		}
	}
}

func (w watcher) lookInTime(ctx context.Context) fettle.Observation {
	ctx, stop := context.WithTimeout(ctx, w.Spec().Timeout)
	defer stop()
	return w.look(ctx)
}

func by(c machine.RulesChange) string {
	if c.Process == "" {
		return nobody
	}
	return fmt.Sprintf("%s (process %d)", c.Process, c.PID)
}
