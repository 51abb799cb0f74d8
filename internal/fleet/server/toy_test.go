package server_test

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

type connection = grpc.ClientConn

// toy is a made-up system of one thing that is up or not. It is adapter,
// instance, probe, watcher and action in one.
type toy struct {
	name string

	mu      sync.Mutex
	host    string
	up      bool
	gone    bool
	absent  bool // not found on the machine
	note    string
	changed chan struct{} // closed and renewed with each change
	keys    map[string]int
	applied chan fettle.Dispatch        // told of each Apply, if somebody listens
	hold    chan struct{}               // Apply waits for it, if it is there
	fate    map[string]fettle.Fate      // what Recover says
	observe func(context.Context) error // asked by each Observe
}

func newToy(name string) *toy {
	return &toy{name: name, up: true, changed: make(chan struct{}), keys: map[string]int{}, fate: map[string]fettle.Fate{}, applied: make(chan fettle.Dispatch, 64)}
}

func toyCatalogue() fettle.Catalogue {
	return fettle.Catalogue{
		Adapter: "toy", Doc: "a made-up thing",
		Kinds: []fettle.KindSpec{{Kind: "toy", Doc: "HOST/NAME"}},
		Probes: []fettle.ProbeSpec{{
			Name: "toy.state", Kind: "toy", Interval: time.Hour, Timeout: 5 * time.Second, Told: true, Doc: "it looks",
			Facts: []fettle.FactSpec{{Name: "up", Type: fettle.BoolFact, Doc: "it is up"}, {Name: "note", Type: fettle.StringFact, Doc: "any"}},
		}},
		Conditions: []fettle.ConditionSpec{{
			Code: "toy.down", Title: "it is down", Kind: "toy", Layer: fettle.HostLayer, Severity: fettle.Critical, Scope: fettle.HostScope,
			Probe: "toy.state", Raise: "!self.up", NotMended: "it is a toy", Doc: "it is not up",
		}, {
			Code: "toy.odd", Title: "odd", Kind: "toy", Layer: fettle.HostLayer, Severity: fettle.Notice, Scope: fettle.ClusterScope,
			Probe: "toy.state", Raise: "self.note == 'odd'", NotMended: "it is a toy", Doc: "odd",
		}},
		Actions: []fettle.ActionSpec{{
			Name: "toy.start", Version: 1, Target: "toy", Risk: fettle.LowRisk, Scope: fettle.HostScope, Timeout: patience,
			Undo: true, Doc: "start it", Effects: []fettle.EffectSpec{{Fact: "up", To: "true"}},
		}},
	}
}

func (t *toy) Catalogue() fettle.Catalogue { return toyCatalogue() }

func (t *toy) Discover(context.Context, machine.Machine) ([]machine.Found, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.absent {
		return nil, nil
	}
	return []machine.Found{{Name: t.name, Config: []byte("name: " + t.name + "\n"), Why: "it is a toy"}}, nil
}

func (t *toy) Open(_ context.Context, m machine.Machine, _ []byte) (fettle.Instance, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.host = m.Identity.Host.Root()
	return &toyInstance{t}, nil
}

// set changes it and tells.
func (t *toy) set(f func(*toy)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(t)
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *toy) setUp(up bool) { t.set(func(t *toy) { t.up = up }) }

// now returns what is, and a channel that is closed when that changes.
func (t *toy) now() (fettle.Observation, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := fettle.Observation{Subject: fettle.NewSubject("toy", t.host, t.name), Probe: "toy.state", Gone: t.gone}
	if !t.gone {
		o.Facts = fettle.Facts{"up": t.up, "note": t.note}
		o.Edges = []fettle.Edge{{From: o.Subject, Rel: fettle.RunsOn, To: fettle.HostSubject(t.host)}}
	}
	return o, t.changed
}

func (t *toy) applications(key string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.keys[key]
}

type toyInstance struct{ *toy }

func (t *toyInstance) Probes() []fettle.Probe     { return []fettle.Probe{t} }
func (t *toyInstance) Watchers() []fettle.Watcher { return []fettle.Watcher{t} }
func (t *toyInstance) Actions() map[string]fettle.Action {
	return map[string]fettle.Action{"toy.start": t}
}
func (t *toyInstance) Faults() map[string]fettle.Fault { return nil }
func (t *toyInstance) Close() error                    { return nil }
func (t *toyInstance) Spec() fettle.ProbeSpec          { return toyCatalogue().Probes[0] }

func (t *toyInstance) Observe(ctx context.Context, _ ...fettle.Subject) []fettle.Observation {
	t.mu.Lock()
	observe := t.observe
	t.mu.Unlock()
	if observe != nil {
		if err := observe(ctx); err != nil {
			return nil
		}
	}
	o, _ := t.now()
	return []fettle.Observation{o}
}

func (t *toyInstance) Watch(ctx context.Context, emit func(fettle.Observation)) error {
	for {
		o, changed := t.now()
		emit(o)
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t *toyInstance) Preview(_ context.Context, s fettle.Step) (fettle.Preview, error) {
	if o, _ := t.now(); o.Subject != s.Target {
		return fettle.Preview{}, fettle.Refuse("toy.start", s.Target, "ask another", "it is not this toy")
	}
	return fettle.Preview{Would: []string{"start it"}}, nil
}

func (t *toyInstance) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	t.mu.Lock()
	t.keys[d.Key]++
	hold := t.hold
	t.mu.Unlock()
	select {
	case t.applied <- d:
	default:
	}
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return fettle.Result{}, ctx.Err()
		}
	}
	t.setUp(true)
	return fettle.Result{Notes: []string{"started"}}, nil
}

func (t *toyInstance) Recover(_ context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f, ok := t.fate[d.Key]
	if !ok {
		return fettle.UnknownFate, fettle.Result{}, errors.New("the toy cannot tell")
	}
	return f, fettle.Result{}, nil
}

func (t *toyInstance) Undo(context.Context, fettle.Dispatch) (fettle.Result, error) {
	t.setUp(false)
	return fettle.Result{}, nil
}
