package probe

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"fettle/internal/fettle"
)

// asker asks one probe, one call at a time. Those who want to ask while a call is
// under way share the next one.
type asker struct {
	r      *Runner
	probe  fettle.Probe
	spec   fettle.ProbeSpec
	random *rand.Rand
	turn   chan struct{} // holds a value while a call is under way, also a stuck one
	kick   chan struct{} // has a value when a poll is wanted at once

	mu     sync.Mutex
	next   *call // not begun yet
	stuck  time.Time
	broken bool                    // its watcher
	known  map[fettle.Subject]bool // seen by this probe and not gone
}

// call is one Observe, for one or several that asked.
type call struct {
	ctx      context.Context
	cancel   context.CancelCauseFunc
	waiting  int // how many still want its answer
	all      bool
	subjects map[fettle.Subject]bool
	done     chan struct{}
	result   []fettle.Observation // once done is closed
}

var (
	errNobody = errors.New("nobody waits for the answer any more")
	errStuck  = errors.New("an earlier call of the probe hangs")
)

func newAsker(r *Runner, p fettle.Probe, spec fettle.ProbeSpec, random *rand.Rand) *asker {
	if spec.Interval <= 0 {
		spec.Interval = defaultInterval
	}
	if spec.Timeout <= 0 {
		spec.Timeout = defaultTimeout
	}
	return &asker{r: r, probe: p, spec: spec, random: random, turn: make(chan struct{}, 1), kick: make(chan struct{}, 1), known: map[fettle.Subject]bool{}}
}

// poll asks for everything, at once and then at the probe's interval.
func (a *asker) poll(ctx context.Context) {
	for {
		a.ask(ctx, nil)
		a.mu.Lock()
		wait := a.spec.Interval
		if a.broken {
			wait = min(wait, coverInterval)
		}
		a.mu.Unlock()
		due, stop := a.r.o.Clock.After(jitter(a.random, wait))
		select {
		case <-ctx.Done():
			stop()
			return
		case <-a.kick:
			stop()
		case <-due:
		}
	}
}

// setBroken notes whether the watcher that this probe covers for is broken, and
// has it look at once when it broke: what happened meanwhile was not told.
func (a *asker) setBroken(broken bool) {
	a.mu.Lock()
	was := a.broken
	a.broken = broken
	a.mu.Unlock()
	if broken && !was {
		select {
		case a.kick <- struct{}{}:
		default:
		}
	}
}

// ask asks for some subjects, for all when none is named, and returns what was
// observed by the time that ctx ends. What it could not have asked in time comes
// back as TimedOut, without being told to others.
func (a *asker) ask(ctx context.Context, subjects []fettle.Subject) []fettle.Observation {
	asked := a.r.o.Clock.Now()
	a.mu.Lock()
	if !a.stuck.IsZero() {
		since := a.stuck
		a.mu.Unlock()
		return a.unanswered(subjects, asked, fmt.Sprintf("a call of the probe has hung since %s", since.UTC().Format(time.RFC3339)))
	}
	c := a.next
	if c == nil {
		c = &call{subjects: map[fettle.Subject]bool{}, done: make(chan struct{})}
		c.ctx, c.cancel = context.WithCancelCause(context.Background()) // of all who wait, not of the first
		a.next = c
		a.r.tasks.start("probe "+a.spec.Name, func() { a.serve(c) })
	}
	c.waiting++
	c.all = c.all || len(subjects) == 0
	for _, s := range subjects {
		c.subjects[s] = true
	}
	a.mu.Unlock()

	select {
	case <-c.done:
		return c.result
	case <-ctx.Done():
	}
	a.mu.Lock()
	c.waiting--
	if c.waiting == 0 {
		c.cancel(errNobody)
		if a.next == c { // not begun: nobody may join it any more
			a.next = nil
		}
	}
	a.mu.Unlock()
	select {
	case <-c.done: // it came together with the end of ctx
		return c.result
	default:
		return a.unanswered(subjects, asked, "no answer before the one who asked went away")
	}
}

// unanswered makes TimedOut observations for those who asked; they say something
// about this look only, and are not told to others.
func (a *asker) unanswered(subjects []fettle.Subject, asked time.Time, why string) []fettle.Observation {
	if len(subjects) == 0 {
		subjects = a.knows()
	}
	var out []fettle.Observation
	for _, s := range subjects {
		out = append(out, unknown(a.spec, a.r.o.Host, s, fettle.TimedOut, why, asked, a.r.o.Clock.Now()))
	}
	return out
}

// knows lists the subjects that the probe has seen and that are not gone.
func (a *asker) knows() []fettle.Subject {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.known))
}

// serve waits for its turn, then makes the call.
func (a *asker) serve(c *call) {
	defer close(c.done)
	defer c.cancel(nil)
	select {
	case a.turn <- struct{}{}:
	case <-c.ctx.Done():
		a.mu.Lock()
		if a.next == c {
			a.next = nil
		}
		subjects := slices.Sorted(maps.Keys(c.subjects))
		a.mu.Unlock()
		c.result = a.unanswered(subjects, a.r.o.Clock.Now(), context.Cause(c.ctx).Error())
		return
	}
	a.mu.Lock()
	if a.next == c {
		a.next = nil // from here on its subjects are fixed
	}
	var subjects []fettle.Subject
	if !c.all {
		subjects = slices.Sorted(maps.Keys(c.subjects))
	}
	a.mu.Unlock()
	c.result = a.observe(c, subjects)
}

// answered is what a probe returned, or how it broke.
type answered struct {
	list  []fettle.Observation
	panic any
}

// observe calls the probe under its timeout and takes in what it says. It holds
// the turn; a probe that hangs keeps it.
func (a *asker) observe(c *call, subjects []fettle.Subject) []fettle.Observation {
	ctx, cancel := context.WithTimeout(c.ctx, a.spec.Timeout)
	defer cancel()
	asked := a.r.o.Clock.Now()
	back := make(chan answered, 1)
	a.r.tasks.start("probe "+a.spec.Name, func() {
		out := a.call(ctx, subjects)
		back <- out
		a.freed()
	})
	select {
	case out := <-back:
		return a.take(c, subjects, asked, out)
	case <-ctx.Done():
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case out := <-back:
		return a.take(c, subjects, asked, out)
	case <-late.C:
	}
	if !a.hangs(back) { // it came back in this very moment
		return a.take(c, subjects, asked, <-back)
	}
	cutOff := a.unanswered(subjects, asked, fmt.Sprintf("cut off after %s; the probe does not return", a.r.o.Clock.Now().Sub(asked).Round(time.Millisecond)))
	if context.Cause(c.ctx) == nil { // its own timeout, not our impatience
		for i, o := range cutOff {
			cutOff[i] = a.r.sink.accept(o)
		}
	}
	return cutOff
}

// call calls the probe and catches its panic.
func (a *asker) call(ctx context.Context, subjects []fettle.Subject) (out answered) {
	defer func() {
		if v := recover(); v != nil {
			out = answered{panic: v}
		}
	}()
	return answered{list: a.probe.Observe(ctx, subjects...)}
}

// hangs marks the probe as stuck, unless its answer is there now. Those who wait
// for their turn are told.
func (a *asker) hangs(back chan answered) bool {
	a.mu.Lock()
	if len(back) > 0 {
		a.mu.Unlock()
		return false
	}
	a.stuck = a.r.o.Clock.Now()
	if a.next != nil {
		a.next.cancel(errStuck)
		a.next = nil
	}
	a.mu.Unlock()
	a.r.tellSelf()
	return true
}

// freed ends a call: the next may begin.
func (a *asker) freed() {
	a.mu.Lock()
	was := !a.stuck.IsZero()
	a.stuck = time.Time{}
	a.mu.Unlock()
	<-a.turn
	if was {
		a.r.tellSelf()
	}
}
