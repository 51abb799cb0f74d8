package probe

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"fettle/internal/fettle"
)

// TestToldPassesAtOnce needs no poll to learn of a change.
func TestToldPassesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tell := make(chan string)
		w := &watchFunc{spec: spec("test.unit"), watch: func(ctx context.Context, emit func(fettle.Observation)) error {
			for {
				select {
				case s := <-tell:
					emit(state(one, s))
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}}
		p := steadyProbe("test.unit")
		p.spec.Interval = time.Hour
		r := run(t, instance{probes: []fettle.Probe{p}, watchers: []fettle.Watcher{w}})
		tell <- "active"
		pass(time.Minute)
		tell <- "failed"
		at := time.Now()
		synctest.Wait()
		got := r.changed(one, "test.unit")
		last := got[len(got)-1]
		if s, _ := last.Facts.Str("state"); s != "failed" || !last.Asked.Equal(at) || last.Host != host {
			t.Errorf("%+v", last)
		}
		if r.at[len(r.at)-1].After(at) {
			t.Error("it was held back")
		}
		if p.calls.Load() != 1 {
			t.Errorf("%d polls", p.calls.Load())
		}
		r.end(t)
	})
}

// TestOlderNeverReplacesNewer has a poll in flight while a change is told.
func TestOlderNeverReplacesNewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tell := make(chan string)
		w := &watchFunc{spec: spec("test.unit"), watch: func(ctx context.Context, emit func(fettle.Observation)) error {
			select {
			case s := <-tell:
				emit(state(one, s))
			case <-ctx.Done():
			}
			<-ctx.Done()
			return ctx.Err()
		}}
		p := &lookFunc{spec: spec("test.unit"), look: func(context.Context, []fettle.Subject) []fettle.Observation {
			pass(500 * time.Millisecond)
			return []fettle.Observation{state(one, "active")} // read before the change
		}}
		p.spec.Interval = time.Hour
		r := run(t, instance{probes: []fettle.Probe{p}, watchers: []fettle.Watcher{w}})
		pass(100 * time.Millisecond)
		tell <- "failed"
		pass(time.Second)
		synctest.Wait()
		for _, o := range r.Present() {
			if s, ok := o.Facts.Str("state"); ok && s != "failed" {
				t.Errorf("held: %+v", o)
			}
		}
		r.end(t)
	})
}

// TestBrokenWatcher breaks again and again: the poll covers at once and more
// often, the watcher is started again with growing pauses, and both are told.
func TestBrokenWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken box[chan struct{}]
		broken.set(make(chan struct{}))
		var started box[int]
		var mended box[bool]
		w := &watchFunc{spec: spec("test.unit"), watch: func(ctx context.Context, emit func(fettle.Observation)) error {
			starts := started.get() + 1
			started.set(starts)
			if starts > 1 && !mended.get() {
				if starts%2 == 0 {
					panic("nil map")
				}
				return errors.New("connection closed")
			}
			emit(state(one, "active"))
			select {
			case <-broken.get():
				return errors.New("connection closed")
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		p := steadyProbe("test.unit")
		p.spec.Interval = time.Hour
		r := run(t, instance{probes: []fettle.Probe{p}, watchers: []fettle.Watcher{w}})
		pass(2 * time.Minute)
		synctest.Wait()
		if p.calls.Load() != 1 || len(r.self("broken_watchers")) != 0 {
			t.Fatalf("%d polls, broken %v", p.calls.Load(), r.self("broken_watchers"))
		}
		close(broken.get())
		synctest.Wait()
		if p.calls.Load() != 2 {
			t.Error("the poll did not cover at once")
		}
		if s := r.self("broken_watchers"); !slices.Equal(s, []string{"test.unit"}) {
			t.Errorf("broken watchers: %v", s)
		}
		pass(10 * time.Minute)
		synctest.Wait()
		if n := p.calls.Load(); n < 50 || n > 70 {
			t.Errorf("%d polls in ten minutes of a broken watcher", n)
		}
		if n := started.get(); n < 20 || n > 40 {
			t.Errorf("%d starts in ten minutes", n)
		}
		broken.set(make(chan struct{}))
		mended.set(true)
		pass(time.Minute)
		synctest.Wait()
		if s := r.self("broken_watchers"); len(s) != 0 {
			t.Errorf("mended, but broken watchers: %v", s)
		}
		// At most one more poll that was already due, then the long interval again.
		before := p.calls.Load()
		pass(30 * time.Minute)
		synctest.Wait()
		if n := p.calls.Load() - before; n > 1 {
			t.Errorf("%d polls in half an hour of a mended watcher", n)
		}
		r.end(t)
	})
}

// TestWatcherThatIsNotSupported must not cost anything, and is covered.
func TestWatcherThatIsNotSupported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		starts := 0
		w := &watchFunc{spec: spec("test.unit"), watch: func(context.Context, func(fettle.Observation)) error {
			starts++
			return &fettle.Error{Op: "watch", Class: fettle.Unsupported, Err: fettle.ErrNotSupported}
		}}
		p := steadyProbe("test.unit")
		r := run(t, instance{probes: []fettle.Probe{p}, watchers: []fettle.Watcher{w}})
		pass(10 * time.Minute)
		synctest.Wait()
		if starts > 25 {
			t.Errorf("started %d times in ten minutes", starts)
		}
		if p.calls.Load() < 50 {
			t.Errorf("%d polls", p.calls.Load())
		}
		r.end(t)
	})
}

// TestToldDefect keeps a watcher's bad value from the rules.
func TestToldDefect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &watchFunc{spec: spec("test.unit"), watch: func(ctx context.Context, emit func(fettle.Observation)) error {
			emit(fettle.Observation{Subject: one, Facts: fettle.Facts{"colour": "red"}})
			emit(state(two, "active"))
			<-ctx.Done()
			return ctx.Err()
		}}
		r := run(t, instance{watchers: []fettle.Watcher{w}})
		pass(time.Second)
		synctest.Wait()
		if got := r.changed(one, "test.unit"); len(got) != 1 || got[0].Reason != fettle.Failed {
			t.Errorf("%+v", got)
		}
		if got := r.changed(two, "test.unit"); len(got) != 1 || !got[0].Known() {
			t.Errorf("%+v", got)
		}
		if s := r.self("defective_probes"); !slices.Equal(s, []string{"test.unit"}) {
			t.Errorf("defective probes: %v", s)
		}
		r.end(t)
	})
}

// TestGoneIsToldOnceAndForgotten covers units that come and go.
func TestGoneIsToldOnceAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gone box[bool]
		p := &lookFunc{spec: spec("test.unit"), look: func(context.Context, []fettle.Subject) []fettle.Observation {
			if gone.get() {
				return []fettle.Observation{{Subject: one, Gone: true}, state(two, "active")}
			}
			return []fettle.Observation{state(one, "active"), state(two, "active")}
		}}
		r := run(t, instance{probes: []fettle.Probe{p}})
		pass(time.Second)
		gone.set(true)
		pass(time.Minute)
		synctest.Wait()
		got := r.changed(one, "test.unit")
		if len(got) != 2 || !got[1].Gone {
			t.Errorf("%+v", got)
		}
		for _, o := range r.Present() {
			if o.Subject == one {
				t.Errorf("present: %+v", o)
			}
		}
		for i, b := range r.batches {
			for _, a := range b.Alive {
				if a.Subject == one && a.Asked.After(got[1].Asked) {
					t.Errorf("batch %d says that it is alive", i)
				}
			}
		}
		r.end(t)
	})
}
