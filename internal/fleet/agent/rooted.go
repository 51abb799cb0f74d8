package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/executor"
	"fettle/internal/machine"
)

// rooted is an adapter in an agent without root: such of its probes as need root are
// asked of the executor. Its actions are not used here.
type rooted struct {
	fettle.Instance
	conf  string // roster.Conf.Key
	hands executor.Looks
	clock machine.Clock
}

func (r rooted) asking(s fettle.ProbeSpec) *asking {
	return &asking{spec: s, from: executor.Outlook{Conf: r.conf, Probe: s.Name}, hands: r.hands, clock: r.clock, seen: map[fettle.Subject]bool{}}
}

// Probes implements fettle.Instance.
func (r rooted) Probes() []fettle.Probe {
	list := slices.Clone(r.Instance.Probes())
	for i, p := range list {
		if s := p.Spec(); s.Root {
			list[i] = r.asking(s)
		}
	}
	return list
}

// Watchers implements fettle.Instance.
func (r rooted) Watchers() []fettle.Watcher {
	list := slices.Clone(r.Instance.Watchers())
	for i, w := range list {
		if s := w.Spec(); s.Root {
			list[i] = r.asking(s)
		}
	}
	return list
}

// asking is a probe, or a watcher, that has the executor look.
type asking struct {
	spec  fettle.ProbeSpec
	from  executor.Outlook
	hands executor.Looks
	clock machine.Clock

	mu   sync.Mutex
	seen map[fettle.Subject]bool
}

// Spec implements fettle.Probe and fettle.Watcher.
func (a *asking) Spec() fettle.ProbeSpec { return a.spec }

// Observe implements fettle.Probe. When something was asked for is when the agent asked,
// on the agent's clock: what the executor says of that is not taken.
func (a *asking) Observe(ctx context.Context, subjects ...fettle.Subject) []fettle.Observation {
	asked := a.clock.Now()
	list, err := a.hands.Look(ctx, a.from, subjects...)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		if len(subjects) == 0 { // what was seen is not gone because nobody could look
			subjects = slices.Sorted(maps.Keys(a.seen))
		}
		list = nil
		for _, s := range subjects {
			list = append(list, fettle.Observation{Subject: s, Reason: reasonOf(err), Detail: "the executor looks at it, and did not: " + err.Error()})
		}
	} else if len(subjects) == 0 {
		clear(a.seen)
	}
	for i := range list {
		list[i].Asked, list[i].Took = asked, 0
		if list[i].Known() {
			a.seen[list[i].Subject] = true
		}
	}
	return list
}

// reasonOf says why there is no observation. That the executor is away says nothing of
// what it would have looked at.
func reasonOf(err error) fettle.Reason {
	if errors.Is(err, executor.ErrAway) {
		return fettle.Failed
	}
	return fettle.ReasonOf(err)
}

// Watch implements fettle.Watcher: the executor says that there is something new, and is
// asked what.
func (a *asking) Watch(ctx context.Context, emit func(fettle.Observation)) error {
	known := uint64(0)
	for {
		told, err := a.hands.Changed(ctx, a.from, known)
		if err != nil {
			return fmt.Errorf("watch %s by the executor: %w", a.spec.Name, err)
		}
		if told == known {
			continue
		}
		known = told
		for _, o := range a.lookInTime(ctx) {
			emit(o)
		}
	}
}

func (a *asking) lookInTime(ctx context.Context) []fettle.Observation {
	ctx, cancel := context.WithTimeout(ctx, max(a.spec.Timeout, time.Second))
	defer cancel()
	return a.Observe(ctx)
}
