package probe

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"fettle/internal/fettle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	host = fettle.HostSubject("h1")
	one  = fettle.NewSubject(fettle.KindUnit, "h1", "one.service")
	two  = fettle.NewSubject(fettle.KindUnit, "h1", "two.service")
)

// bubbleClock is the clock of a synctest bubble.
type bubbleClock struct{}

func (bubbleClock) Now() time.Time  { return time.Now() }
func (bubbleClock) Wall() time.Time { return time.Now() }
func (bubbleClock) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

func spec(name string) fettle.ProbeSpec {
	return fettle.ProbeSpec{
		Name: name, Kind: fettle.KindUnit, Interval: 10 * time.Second, Timeout: time.Second,
		Facts: []fettle.FactSpec{{Name: "state", Type: fettle.StringFact}, {Name: "count", Type: fettle.IntFact}},
	}
}

// lookFunc is a probe in one function.
type lookFunc struct {
	spec  fettle.ProbeSpec
	look  func(ctx context.Context, subjects []fettle.Subject) []fettle.Observation
	calls atomic.Int64
}

func (p *lookFunc) Spec() fettle.ProbeSpec { return p.spec }
func (p *lookFunc) Observe(ctx context.Context, subjects ...fettle.Subject) []fettle.Observation {
	p.calls.Add(1)
	return p.look(ctx, subjects)
}

// watchFunc is a watcher in one function.
type watchFunc struct {
	spec  fettle.ProbeSpec
	watch func(ctx context.Context, emit func(fettle.Observation)) error
}

func (w *watchFunc) Spec() fettle.ProbeSpec { return w.spec }
func (w *watchFunc) Watch(ctx context.Context, emit func(fettle.Observation)) error {
	return w.watch(ctx, emit)
}

// instance has probes and watchers, nothing else.
type instance struct {
	probes   []fettle.Probe
	watchers []fettle.Watcher
}

func (i instance) Probes() []fettle.Probe            { return i.probes }
func (i instance) Watchers() []fettle.Watcher        { return i.watchers }
func (i instance) Actions() map[string]fettle.Action { return nil }
func (i instance) Faults() map[string]fettle.Fault   { return nil }
func (i instance) Close() error                      { return nil }

func state(s fettle.Subject, value string) fettle.Observation {
	return fettle.Observation{Subject: s, Facts: fettle.Facts{"state": value}}
}

// steadyProbe sees both units in the same state for ever.
func steadyProbe(name string) *lookFunc {
	return &lookFunc{spec: spec(name), look: func(_ context.Context, subjects []fettle.Subject) []fettle.Observation {
		if len(subjects) == 0 {
			subjects = []fettle.Subject{one, two}
		}
		var out []fettle.Observation
		for _, s := range subjects {
			out = append(out, state(s, "active"))
		}
		return out
	}}
}

// heard collects what a runner emits.
type heard struct {
	mu      sync.Mutex
	batches []Batch
	at      []time.Time
}

func (h *heard) emit(b Batch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.batches = append(h.batches, b)
	h.at = append(h.at, time.Now())
}

// changed lists all changes so far of a subject by a probe.
func (h *heard) changed(s fettle.Subject, probe string) []fettle.Observation {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []fettle.Observation
	for _, b := range h.batches {
		for _, o := range b.Changed {
			if o.Subject == s && o.Probe == probe {
				out = append(out, o)
			}
		}
	}
	return out
}

// self is the latest of a list fact about the runner itself.
func (h *heard) self(fact string) []string {
	all := h.changed(host, SelfProbe)
	if len(all) == 0 {
		return nil
	}
	l, _ := all[len(all)-1].Facts.List(fact)
	return slices.Clone(l)
}

// running is a runner that runs.
type running struct {
	*Runner
	*heard
	stop func() error
}

// run starts a runner; stop ends it and returns what Run returned.
func run(t *testing.T, in instance) *running {
	t.Helper()
	h := &heard{}
	r, err := New(Options{Instances: []fettle.Instance{in}, Clock: bubbleClock{}, Host: host, Emit: h.emit})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return &running{r, h, func() error { cancel(); return <-done }}
}

// end stops a runner that must stop cleanly.
func (r *running) end(t *testing.T) {
	t.Helper()
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}

// pass lets time go by in the bubble until d is over and nothing moves.
func pass(d time.Duration) {
	<-time.After(d)
}

// box is a value that a test changes while probes read it.
type box[T any] struct {
	mu sync.Mutex
	v  T
}

func (b *box[T]) set(v T) { b.mu.Lock(); defer b.mu.Unlock(); b.v = v }
func (b *box[T]) get() T  { b.mu.Lock(); defer b.mu.Unlock(); return b.v }
