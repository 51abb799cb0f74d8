package probe

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fettle/internal/fettle"
)

func TestFirstPollAtOnceThenJittered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := steadyProbe("test.unit")
		var asked []time.Time
		inner := p.look
		p.look = func(ctx context.Context, s []fettle.Subject) []fettle.Observation {
			asked = append(asked, time.Now())
			return inner(ctx, s)
		}
		began := time.Now()
		r := run(t, instance{probes: []fettle.Probe{p}})
		pass(time.Hour)
		synctest.Wait()
		r.end(t)
		if !asked[0].Equal(began) {
			t.Errorf("first poll after %s", asked[0].Sub(began))
		}
		even := 0
		for i := 1; i < len(asked); i++ {
			d := asked[i].Sub(asked[i-1])
			if d < 9*time.Second || d > 11*time.Second {
				t.Errorf("poll %d after %s", i, d)
			}
			if d == 10*time.Second {
				even++
			}
		}
		if n := len(asked); n < 330 || n > 390 || even > 10 {
			t.Errorf("%d polls in an hour, %d of them without jitter", n, even)
		}
		got := r.changed(one, "test.unit")
		if len(got) != 1 || got[0].Host != host || !got[0].Asked.Equal(began) {
			t.Errorf("changes: %+v", got)
		}
	})
}

// TestSameSeedSameTimes and other hosts at other times.
func TestSeededJitter(t *testing.T) {
	draw := func(host fettle.Subject, seed uint64) []time.Duration {
		r, err := New(Options{Instances: []fettle.Instance{instance{probes: []fettle.Probe{steadyProbe("a.b")}}}, Clock: bubbleClock{}, Host: host, Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		var out []time.Duration
		for range 5 {
			out = append(out, jitter(r.askers[0].random, time.Minute))
		}
		return out
	}
	if !slices.Equal(draw(host, 3), draw(host, 3)) || !slices.Equal(draw(host, 0), draw(host, 0)) {
		t.Error("one seed gave two sequences")
	}
	if slices.Equal(draw(host, 0), draw(fettle.HostSubject("h2"), 0)) {
		t.Error("two hosts poll in step")
	}
}

// TestUnchangedIsFolded counts what a receiver gets in an idle hour.
func TestUnchangedIsFolded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, instance{probes: []fettle.Probe{steadyProbe("test.unit")}})
		pass(time.Hour)
		synctest.Wait()
		r.end(t)
		var changes, alive int
		last := map[fettle.Subject]time.Time{}
		for _, b := range r.batches {
			changes += len(b.Changed)
			alive += len(b.Alive)
			for _, a := range b.Alive {
				last[a.Subject] = a.Asked
			}
		}
		if changes != 3 { // two units and the runner itself
			t.Errorf("%d changes were told", changes)
		}
		if n := len(r.batches); n > 450 {
			t.Errorf("%d batches in an idle hour of polls every 10 s", n)
		}
		for _, s := range []fettle.Subject{one, two} {
			if age := time.Since(last[s]); age > 11*time.Second+DefaultDigest {
				t.Errorf("%s was last confirmed %s ago", s, age)
			}
		}
		if alive < 600 {
			t.Errorf("only %d confirmations", alive)
		}
	})
}

// TestDigestIsNotPutOff has one subject that changes all the time beside one that
// does not.
func TestDigestIsNotPutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := &lookFunc{spec: spec("test.busy")}
		busy.spec.Interval = time.Second
		n := int64(0)
		busy.look = func(context.Context, []fettle.Subject) []fettle.Observation {
			n++
			return []fettle.Observation{{Subject: one, Facts: fettle.Facts{"count": n}}, state(two, "active")}
		}
		r := run(t, instance{probes: []fettle.Probe{busy}})
		pass(time.Minute)
		synctest.Wait()
		r.end(t)
		digests := 0
		for _, b := range r.batches {
			if len(b.Alive) > 0 {
				digests++
			}
		}
		if digests < 9 {
			t.Errorf("%d digests in a minute", digests)
		}
	})
}

// TestHungProbe hangs one of two probes for good, then lets it go.
func TestHungProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var hangs box[bool]
		bad := steadyProbe("test.bad")
		look := bad.look
		bad.look = func(ctx context.Context, s []fettle.Subject) []fettle.Observation {
			if hangs.get() {
				<-release // it does not heed its context
			}
			return look(ctx, s)
		}
		good := steadyProbe("test.good")
		r := run(t, instance{probes: []fettle.Probe{bad, good}})
		pass(time.Second)
		hangs.set(true)
		pass(5 * time.Minute)
		synctest.Wait()

		got := r.changed(one, "test.bad")
		if last := got[len(got)-1]; last.Reason != fettle.TimedOut || last.Facts != nil || last.Took < time.Second || last.Took > 2*time.Second {
			t.Errorf("the hung probe's subject: %+v", last)
		}
		if n := bad.calls.Load(); n != 2 {
			t.Errorf("%d calls of a probe that hangs since the second", n)
		}
		if n := good.calls.Load(); n < 25 {
			t.Errorf("the other probe was called %d times", n)
		}
		if s := r.self("stuck_probes"); !slices.Equal(s, []string{"test.bad"}) {
			t.Errorf("stuck probes: %v", s)
		}
		// A look at it answers at once.
		began := time.Now()
		seen := r.Look(t.Context(), []fettle.Look{{Subject: one, Probe: "test.bad"}, {Subject: one, Probe: "test.good"}})
		if len(seen) < 2 || seen[0].Reason != fettle.TimedOut || !seen[1].Known() || time.Since(began) > 0 {
			t.Errorf("look: %+v after %s", seen, time.Since(began))
		}

		hangs.set(false)
		close(release)
		pass(time.Minute)
		synctest.Wait()
		got = r.changed(one, "test.bad")
		if last := got[len(got)-1]; !last.Known() {
			t.Errorf("after it returned: %+v", last)
		}
		if s := r.self("stuck_probes"); len(s) != 0 {
			t.Errorf("stuck probes: %v", s)
		}
		r.end(t)
	})
}

// TestRunNamesWhatHangs ends a runner while a probe and a watcher hang.
func TestRunNamesWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		p := &lookFunc{spec: spec("test.hung"), look: func(context.Context, []fettle.Subject) []fettle.Observation { <-release; return nil }}
		w := &watchFunc{spec: spec("test.deaf"), watch: func(context.Context, func(fettle.Observation)) error { <-release; return nil }}
		r := run(t, instance{probes: []fettle.Probe{p}, watchers: []fettle.Watcher{w}})
		pass(10 * time.Second)
		err := r.stop()
		if err == nil || !strings.Contains(err.Error(), "probe test.hung") || !strings.Contains(err.Error(), "watcher test.deaf") {
			t.Errorf("Run: %v", err)
		}
		close(release)
		synctest.Wait()
	})
}

// TestProbeReturnsAtItsDeadline gives its own reasons: these are passed on.
func TestProbeReturnsAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &lookFunc{spec: spec("test.unit"), look: func(ctx context.Context, _ []fettle.Subject) []fettle.Observation {
			<-ctx.Done()
			return []fettle.Observation{{Subject: one, Reason: fettle.Unreachable, Detail: "refused", Facts: fettle.Facts{"state": "left over"}}}
		}}
		r := run(t, instance{probes: []fettle.Probe{p}})
		pass(5 * time.Second)
		synctest.Wait()
		got := r.changed(one, "test.unit")
		if len(got) != 1 || got[0].Reason != fettle.Unreachable || got[0].Facts != nil {
			t.Errorf("%+v", got)
		}
		if s := r.self("stuck_probes"); len(s) != 0 {
			t.Errorf("stuck: %v", s)
		}
		r.end(t)
	})
}

// TestDefectsDoNotPass gives the runner everything that a spec does not allow.
func TestDefectsDoNotPass(t *testing.T) {
	for name, o := range map[string]fettle.Observation{
		"a float":             {Subject: one, Facts: fettle.Facts{"state": 0.5}},
		"an int":              {Subject: one, Facts: fettle.Facts{"count": 5}}, // not int64
		"an undeclared fact":  {Subject: one, Facts: fettle.Facts{"colour": "red"}},
		"another type":        {Subject: one, Facts: fettle.Facts{"count": "five"}},
		"a bad edge":          {Subject: one, Edges: []fettle.Edge{{From: one, Rel: fettle.RunsOn, To: "h1"}}},
		"an unknown relation": {Subject: one, Edges: []fettle.Edge{{From: one, Rel: "likes", To: host}}},
		"an unknown reason":   {Subject: one, Reason: "moody"},
		"no subject":          {Facts: fettle.Facts{"state": "active"}},
		"a bad subject":       {Subject: "one.service", Facts: fettle.Facts{"state": "active"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var defect box[fettle.Observation]
				defect.set(o)
				p := &lookFunc{spec: spec("test.unit"), look: func(context.Context, []fettle.Subject) []fettle.Observation {
					return []fettle.Observation{defect.get(), state(two, "active")}
				}}
				r := run(t, instance{probes: []fettle.Probe{p}})
				pass(time.Second)
				synctest.Wait()
				got := r.changed(one, "test.unit")
				if o.Subject == one && (len(got) != 1 || got[0].Reason != fettle.Failed || got[0].Facts != nil || got[0].Edges != nil || got[0].Detail == "") {
					t.Errorf("told: %+v", got)
				}
				if other := r.changed(two, "test.unit"); len(other) != 1 || !other[0].Known() {
					t.Errorf("the other subject suffers: %+v", other)
				}
				if s := r.self("defective_probes"); !slices.Equal(s, []string{"test.unit"}) {
					t.Errorf("defective probes: %v", s)
				}
				defect.set(state(one, "active")) // mended
				pass(15 * time.Second)
				synctest.Wait()
				if s := r.self("defective_probes"); len(s) != 0 {
					t.Errorf("defective probes: %v", s)
				}
				r.end(t)
			})
		})
	}
}

func TestPanickingProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := steadyProbe("test.unit")
		look := p.look
		p.look = func(ctx context.Context, s []fettle.Subject) []fettle.Observation {
			if p.calls.Load() > 1 {
				panic("index out of range")
			}
			return look(ctx, s)
		}
		r := run(t, instance{probes: []fettle.Probe{p}})
		pass(time.Minute)
		synctest.Wait()
		got := r.changed(two, "test.unit")
		if last := got[len(got)-1]; last.Reason != fettle.Failed || !strings.Contains(last.Detail, "index out of range") {
			t.Errorf("%+v", last)
		}
		if n := p.calls.Load(); n < 5 {
			t.Errorf("given up after %d calls", n)
		}
		r.end(t)
	})
}

// TestSlowReceiver blocks Emit: every change is told, in order.
func TestSlowReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := int64(0)
		p := &lookFunc{spec: spec("test.busy"), look: func(context.Context, []fettle.Subject) []fettle.Observation {
			n++
			return []fettle.Observation{{Subject: one, Facts: fettle.Facts{"count": n}}}
		}}
		var got []int64
		r, err := New(Options{Instances: []fettle.Instance{instance{probes: []fettle.Probe{p}}}, Clock: bubbleClock{}, Host: host, Emit: func(b Batch) {
			for _, o := range b.Changed {
				if c, ok := o.Facts.Int("count"); ok {
					got = append(got, c)
				}
			}
			pass(time.Minute)
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		pass(10 * time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if len(got) < 50 {
			t.Fatalf("%d changes in ten minutes", len(got))
		}
		for i, c := range got {
			if c != int64(i)+1 {
				t.Fatalf("change %d is %d", i, c)
			}
		}
	})
}

func TestFoldKeepsTheLatest(t *testing.T) {
	s := newSink(true)
	now := time.Unix(1700000000, 0)
	for i := range foldAt + 10 {
		s.accept(fettle.Observation{Subject: one, Probe: "a", Asked: now, Facts: fettle.Facts{"count": int64(i)}})
	}
	b := s.take(false, now)
	if n, _ := b.Changed[len(b.Changed)-1].Facts.Int("count"); len(b.Changed) != 11 || n != foldAt+9 {
		t.Fatalf("%d changes, the last is %d", len(b.Changed), n)
	}
}

func TestNewRefuses(t *testing.T) {
	good := Options{Clock: bubbleClock{}, Host: host}
	for name, change := range map[string]func(*Options){
		"no clock": func(o *Options) { o.Clock = nil },
		"no host":  func(o *Options) { o.Host = "" },
		"a probe without a name": func(o *Options) {
			o.Instances = []fettle.Instance{instance{probes: []fettle.Probe{steadyProbe("")}}}
		},
		"our own name": func(o *Options) {
			o.Instances = []fettle.Instance{instance{probes: []fettle.Probe{steadyProbe(SelfProbe)}}}
		},
		"twice": func(o *Options) {
			o.Instances = []fettle.Instance{instance{probes: []fettle.Probe{steadyProbe("a"), steadyProbe("a")}}}
		},
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	r, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := errors.Join(r.Run(ctx), nil); err != nil {
		t.Error(err)
	}
	if err := r.Run(ctx); err == nil {
		t.Error("Run ran twice")
	}
	for _, f := range SelfSpec().Facts {
		if o := r.tellSelf(); reflect.TypeOf(o.Facts[f.Name]) != reflect.TypeFor[[]string]() || fitting(SelfSpec(), o) != nil {
			t.Errorf("%s: %v", f.Name, o.Facts)
		}
	}
}
