package agent

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"fettle/internal/act/probe"
	"fettle/internal/fettle"
	"fettle/internal/judge/condition"
	"fettle/internal/judge/world"
	"fettle/internal/machine"
)

// foldAt bounds what waits to be sent; beyond it only the latest of each is kept.
const foldAt = 8192

// picture is what this machine's probes see at present and what follows from it,
// and what of that the server has not been told. It judges where it is told:
// between a probe's word and the message to the server nothing waits.
type picture struct {
	clock machine.Clock
	kept  *memory       // nil: nothing is remembered over a restart
	wake  chan struct{} // has a value when there is something to send
	retry chan struct{} // has a value when the judge's next time may have changed

	mu      sync.Mutex
	world   *world.World
	judge   *condition.Evaluator
	seen    map[sight]fettle.Observation
	conds   map[fettle.ConditionKey]bool
	linked  bool          // there is a session to tell
	ear     ear           // nil: nobody listens
	trouble chan struct{} // has a value when a condition changed
	out     outbox
}

// sight is one subject as seen by one probe.
type sight struct {
	subject fettle.Subject
	probe   string
}

// outbox is what waits to be sent.
type outbox struct {
	observations []fettle.Observation
	conditions   []fettle.Condition
	alive        map[sight]bool
}

func newPicture(clock machine.Clock, judge *condition.Evaluator) *picture {
	return &picture{
		clock: clock, wake: make(chan struct{}, 1), retry: make(chan struct{}, 1), trouble: make(chan struct{}, 1), world: world.New(), judge: judge,
		seen: map[sight]fettle.Observation{}, conds: map[fettle.ConditionKey]bool{}, out: outbox{alive: map[sight]bool{}},
	}
}

// remember begins with what was raised when the agent last ran. Until it is seen
// again it is not known; then it goes on as the same trouble.
func (p *picture) remember(m *memory) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept = m
	p.judge.Resume(p.world, m.list(), p.clock.Now())
}

// take takes in what a runner tells.
func (p *picture) take(b probe.Batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	touched := map[fettle.Subject]bool{}
	var heard []fettle.Observation
	for _, o := range b.Changed {
		key := sight{o.Subject, o.Probe}
		if was, ok := p.seen[key]; ok && was.Asked.Equal(o.Asked) && was.Reason == o.Reason && was.Facts.Equal(o.Facts) && !o.Gone {
			continue // an answer to a look is told twice
		}
		if !p.world.Observe(o) {
			continue
		}
		if o.Gone {
			delete(p.seen, key)
		} else {
			p.seen[key] = o
		}
		delete(p.out.alive, key)
		touched[o.Subject] = true
		for _, e := range o.Edges {
			touched[e.From], touched[e.To] = true, true
		}
		heard = append(heard, o)
		if p.linked {
			p.out.observations = append(p.out.observations, o)
		}
	}
	for _, al := range b.Alive {
		key := sight{al.Subject, al.Probe}
		o, ok := p.seen[key]
		if !ok || al.Asked.Before(o.Asked) {
			continue
		}
		o.Asked = al.Asked
		p.seen[key] = o
		p.world.Observe(o)
		touched[o.Subject] = true
		heard = append(heard, o)
		if p.linked {
			p.out.alive[key] = true
		}
	}
	list := make([]fettle.Subject, 0, len(touched))
	for s := range touched {
		list = append(list, s)
	}
	slices.Sort(list)
	p.heard(heard, p.changed(p.judge.Touch(p.world, p.clock.Now(), list...)))
	p.fold()
	signal(p.wake)
	signal(p.retry)
}

// changed notes what was judged anew, and returns it. mu is held.
func (p *picture) changed(list []condition.Change) []fettle.Condition {
	var out []fettle.Condition
	for _, c := range list {
		key := c.After.ConditionKey
		if _, still := p.world.Condition(key); still {
			p.conds[key] = true
		} else {
			delete(p.conds, key) // it ended with its subject
		}
		if p.kept != nil {
			p.kept.note(c.After)
		}
		if p.linked {
			p.out.conditions = append(p.out.conditions, c.After)
		}
		out = append(out, c.After)
	}
	if len(out) > 0 {
		signal(p.trouble)
	}
	return out
}

// fold keeps only the latest of each when too much waits. mu is held.
func (p *picture) fold() {
	if len(p.out.observations) > foldAt {
		p.out.observations = latest(p.out.observations, func(o fettle.Observation) sight { return sight{o.Subject, o.Probe} })
	}
	if len(p.out.conditions) > foldAt {
		p.out.conditions = latest(p.out.conditions, func(c fettle.Condition) fettle.ConditionKey { return c.ConditionKey })
	}
}

// latest keeps the last of each key, in order.
func latest[T any, K comparable](list []T, key func(T) K) []T {
	last := map[K]bool{}
	var kept []T
	for _, v := range slices.Backward(list) {
		if k := key(v); !last[k] {
			last[k] = true
			kept = append(kept, v)
		}
	}
	slices.Reverse(kept)
	return kept
}

// run lets time pass in the judge until ctx ends.
func (p *picture) run(ctx context.Context) error {
	for {
		p.mu.Lock()
		at, ok := p.judge.Next()
		p.mu.Unlock()
		if !ok {
			select {
			case <-ctx.Done():
				return nil
			case <-p.retry:
				continue
			}
		}
		due, stop := p.clock.After(at.Sub(p.clock.Now()))
		select {
		case <-ctx.Done():
			stop()
			return nil
		case <-p.retry:
		case <-due:
			p.mu.Lock()
			p.heard(nil, p.changed(p.judge.Tick(p.world, p.clock.Now())))
			p.mu.Unlock()
			signal(p.wake)
		}
		stop()
	}
}

// link begins a session: everything that is, waits to be sent.
func (p *picture) link() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.linked = true
	p.out = outbox{alive: map[sight]bool{}}
	p.out.observations, p.out.conditions = p.present()
	signal(p.wake)
}

// unlink ends a session: nothing waits any more.
func (p *picture) unlink() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.linked = false
	p.out = outbox{alive: map[sight]bool{}}
}

// pending is what is to be sent now.
type pending struct {
	observations []fettle.Observation
	conditions   []fettle.Condition
	alive        []fettle.Observation
}

// pending takes what waits.
func (p *picture) pending() pending {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := pending{observations: p.out.observations, conditions: p.out.conditions}
	for key := range p.out.alive {
		out.alive = append(out.alive, p.seen[key])
	}
	slices.SortFunc(out.alive, func(a, b fettle.Observation) int {
		return cmp.Or(cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Probe, b.Probe))
	})
	p.out = outbox{alive: map[sight]bool{}}
	return out
}

// signal leaves a value in a channel of one, if there is none.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
