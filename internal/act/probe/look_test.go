package probe

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fettle/internal/fettle"
)

// quiet is a runner that is not running: Look needs no Run.
func quiet(t *testing.T, in ...fettle.Instance) *Runner {
	t.Helper()
	r, err := New(Options{Instances: in, Clock: bubbleClock{}, Host: host})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLookAsksEachProbeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked [][]fettle.Subject
		a := steadyProbe("test.a")
		look := a.look
		a.look = func(ctx context.Context, s []fettle.Subject) []fettle.Observation {
			asked = append(asked, slices.Clone(s))
			pass(100 * time.Millisecond)
			return look(ctx, s)
		}
		b := steadyProbe("test.b")
		lookB := b.look
		b.look = func(ctx context.Context, s []fettle.Subject) []fettle.Observation {
			pass(100 * time.Millisecond)
			return lookB(ctx, s)
		}
		r := quiet(t, instance{probes: []fettle.Probe{a, b}})
		began := time.Now()
		got := r.Look(t.Context(), []fettle.Look{
			{Subject: two, Probe: "test.a"}, {Subject: one, Probe: "test.a"}, {Subject: two, Probe: "test.a"},
			{Subject: one, Probe: "test.b", Host: host}, {Subject: one, Probe: "test.b", Host: fettle.HostSubject("h2")},
			{Subject: one, Probe: "test.none"},
		})
		if d := time.Since(began); d != 100*time.Millisecond {
			t.Errorf("probes were asked one after another: %s", d)
		}
		if len(asked) != 1 || !slices.Equal(asked[0], []fettle.Subject{one, two}) {
			t.Errorf("asked: %v", asked)
		}
		type seen struct {
			s      fettle.Subject
			probe  string
			reason fettle.Reason
		}
		var have []seen
		for _, o := range got {
			have = append(have, seen{o.Subject, o.Probe, o.Reason})
			if o.Asked.Before(began) || o.Host != host {
				t.Errorf("%+v", o)
			}
		}
		want := []seen{{one, "test.a", ""}, {one, "test.b", ""}, {one, "test.none", fettle.NotSupported}, {two, "test.a", ""}}
		if !slices.Equal(have, want) {
			t.Errorf("have %v, want %v", have, want)
		}
	})
}

// TestLooksShareTheNextCall asks from many sides while a call is under way: one
// more call serves them all, begun after they asked.
func TestLooksShareTheNextCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := steadyProbe("test.a")
		look := p.look
		p.look = func(ctx context.Context, s []fettle.Subject) []fettle.Observation {
			pass(300 * time.Millisecond)
			return look(ctx, s)
		}
		r := quiet(t, instance{probes: []fettle.Probe{p}})
		var all sync.WaitGroup
		all.Go(func() { r.Once(t.Context()) })
		pass(100 * time.Millisecond)
		asked := time.Now()
		for i := range 20 {
			s := one
			if i%2 == 0 {
				s = two
			}
			all.Go(func() {
				got := r.Look(t.Context(), []fettle.Look{{Subject: s, Probe: "test.a"}})
				for _, o := range got {
					if !o.Known() || o.Asked.Before(asked) {
						t.Errorf("answered from a call that began before: %+v", o)
					}
				}
				if len(got) == 0 {
					t.Error("no answer")
				}
			})
		}
		all.Wait()
		if n := p.calls.Load(); n != 2 {
			t.Errorf("%d calls", n)
		}
	})
}

// TestLookEndsWithItsContext, and its impatience is nobody else's knowledge.
func TestLookEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &lookFunc{spec: spec("test.a")}
		var slow box[bool]
		p.look = func(ctx context.Context, _ []fettle.Subject) []fettle.Observation {
			if slow.get() {
				<-ctx.Done()
				return []fettle.Observation{{Subject: one, Reason: fettle.Unreachable}}
			}
			pass(200 * time.Millisecond)
			return []fettle.Observation{state(one, "active")}
		}
		r := quiet(t, instance{probes: []fettle.Probe{p}})
		r.Once(t.Context())
		slow.set(true)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		began := time.Now()
		got := r.Look(ctx, []fettle.Look{{Subject: one, Probe: "test.a"}})
		if d := time.Since(began); d != 50*time.Millisecond || len(got) != 1 || got[0].Reason != fettle.TimedOut {
			t.Errorf("after %s: %+v", d, got)
		}
		synctest.Wait()
		if o, ok := r.sink.get(one, "test.a"); !ok || !o.Known() {
			t.Errorf("what one asker could not wait for became the state: %+v", o)
		}
		// One who waits longer is not cut off by one who does not.
		var all sync.WaitGroup
		slow.set(false)
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			if got := r.Look(ctx, []fettle.Look{{Subject: one, Probe: "test.a"}}); got[0].Known() {
				t.Errorf("%+v", got)
			}
		})
		all.Go(func() {
			if got := r.Look(t.Context(), []fettle.Look{{Subject: one, Probe: "test.a"}}); !got[0].Known() {
				t.Errorf("%+v", got)
			}
		})
		all.Wait()
		synctest.Wait()
	})
}

// TestLookOfSeveralInstances asks the one that knows the subject.
func TestLookOfSeveralInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		only := func(s fettle.Subject) *lookFunc {
			return &lookFunc{spec: spec("test.a"), look: func(_ context.Context, asked []fettle.Subject) []fettle.Observation {
				if len(asked) == 0 || slices.Contains(asked, s) {
					return []fettle.Observation{state(s, "active")}
				}
				return nil
			}}
		}
		a, b := only(one), only(two)
		r := quiet(t, instance{probes: []fettle.Probe{a}}, instance{probes: []fettle.Probe{b}})
		// Nobody knows it yet: both are asked, and the one that answers counts.
		got := r.Look(t.Context(), []fettle.Look{{Subject: two, Probe: "test.a"}})
		if len(got) != 1 || !got[0].Known() {
			t.Errorf("%+v", got)
		}
		before := a.calls.Load()
		r.Look(t.Context(), []fettle.Look{{Subject: two, Probe: "test.a"}})
		if a.calls.Load() != before {
			t.Error("the instance that does not know it was asked again")
		}
		if got := r.Look(t.Context(), []fettle.Look{{Probe: "test.a"}}); len(got) != 2 {
			t.Errorf("all: %+v", got)
		}
		if got := r.Once(t.Context()); len(got) != 3 { // and the runner itself
			t.Errorf("once: %+v", got)
		}
	})
}

// BenchmarkIdlePoll is what one poll of fifty unchanged subjects costs the
// runner: an idle agent does a few of them a second.
func BenchmarkIdlePoll(b *testing.B) {
	var fixed []fettle.Observation
	for i := range 50 {
		s := fettle.NewSubject(fettle.KindUnit, "h1", string(rune('a'+i%26))+string(rune('a'+i/26))+".service")
		fixed = append(fixed, fettle.Observation{Subject: s, Facts: fettle.Facts{"state": "active", "count": int64(i)}})
	}
	p := &lookFunc{spec: spec("test.a"), look: func(context.Context, []fettle.Subject) []fettle.Observation { return slices.Clone(fixed) }}
	r, err := New(Options{Instances: []fettle.Instance{instance{probes: []fettle.Probe{p}}}, Clock: bubbleClock{}, Host: host, Emit: func(Batch) {}})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		r.askers[0].ask(context.Background(), nil)
	}
}
