package probe

import (
	"context"
	"fmt"
	"time"

	"fettle/internal/fettle"
)

const (
	// The first and the longest pause before a broken watcher is started again,
	// doubled in between: a service manager that restarts is back within a second,
	// one that is not there must not cost anything.
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second

	// settled is how long a watcher must have run to count as whole when it has
	// nothing to report, and steady for its next break to be a new one.
	settled = time.Second
	steady  = time.Minute
)

// keepWatching runs a watcher until ctx ends and starts it again when it breaks.
func (r *Runner) keepWatching(ctx context.Context, w *watch) {
	pause := firstPause
	whole := true // a watcher is not called broken before it has been
	for ctx.Err() == nil {
		began := r.o.Clock.Now()
		r.setDefect(w, w.spec.Name, false)
		err := r.watchOnce(ctx, w, func() {
			if !whole {
				whole = true
				r.setBroken(w, false)
			}
		})
		if ctx.Err() != nil {
			break
		}
		if whole {
			whole = false
			r.setBroken(w, true)
		}
		if r.o.Clock.Now().Sub(began) >= steady {
			pause = firstPause
		}
		if c := fettle.ClassOf(err); c == fettle.Unsupported || c == fettle.Denied {
			pause = lastPause // it will not be there a moment later either
		}
		due, stop := r.o.Clock.After(jitter(w.random, pause))
		select {
		case <-ctx.Done():
		case <-due:
		}
		stop()
		pause = min(2*pause, lastPause)
	}
}

// watchOnce runs the watcher until it breaks. It calls works when it is seen to
// work: at the first report, or when it has run for a while. The call back is
// never made after the watcher returned, nor twice at once.
func (r *Runner) watchOnce(ctx context.Context, w *watch, works func()) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	back := make(chan error, 1)
	reported := make(chan struct{}, 1)
	r.tasks.start("watcher "+w.spec.Name, func() {
		back <- r.call(ctx, w, func(o fettle.Observation) {
			if ctx.Err() != nil {
				return // a watcher that reports after its end
			}
			r.told(w, o)
			select {
			case reported <- struct{}{}:
			default:
			}
		})
	})
	due, stop := r.o.Clock.After(settled)
	defer stop()
	first := reported
	for {
		select {
		case err := <-back:
			return err
		case <-first:
			works()
			due, first = nil, nil
		case <-due:
			works()
			due, first = nil, nil
		case <-ctx.Done():
			return ctx.Err() // the task is counted until it returns
		}
	}
}

// call calls the watcher and catches its panic.
func (r *Runner) call(ctx context.Context, w *watch, emit func(fettle.Observation)) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("watcher %s: panic: %v", w.spec.Name, v)
		}
	}()
	return w.watcher.Watch(ctx, emit)
}

// told takes in what a watcher reports.
func (r *Runner) told(w *watch, o fettle.Observation) {
	now := r.o.Clock.Now()
	o, err := checked(w.spec, r.o.Host, o, now, now, false)
	if err != nil {
		r.setDefect(w, w.spec.Name, true) // until it is started again
	}
	if o.Subject == "" {
		return
	}
	if w.cover != nil {
		w.cover.note(o)
	}
	r.sink.accept(o)
}

// setBroken notes that a watcher broke or is whole again.
func (r *Runner) setBroken(w *watch, broken bool) {
	r.mu.Lock()
	if broken {
		r.broken[w.spec.Name]++
	} else if r.broken[w.spec.Name]--; r.broken[w.spec.Name] <= 0 {
		delete(r.broken, w.spec.Name)
	}
	r.mu.Unlock()
	if w.cover != nil {
		w.cover.setBroken(broken)
	}
	r.tellSelf()
}
