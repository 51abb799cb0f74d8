package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"fettle/internal/act/probe"
	"fettle/internal/act/roster"
	"fettle/internal/fettle"
)

// crew is the adapters that are open on this machine, each configuration of one
// with its own runner. It grows as things are found; nothing leaves it while the
// agent runs, since what is down looks as if it were not there.
type crew struct {
	a       *Agent
	settled atomic.Bool // every probe has looked at everything once, and nothing failed to open

	mu    sync.Mutex
	hands map[string]*hand // by configuration
	owner map[fettle.Subject]map[*hand]bool
	self  map[*hand]fettle.Observation // what each runner tells of itself
	said  fettle.Observation           // all of them together, as it was told last
	bad   map[string]string            // configurations that could not be opened, and why
}

// hand is one adapter opened with one configuration.
type hand struct {
	conf     roster.Conf
	instance fettle.Instance
	runner   *probe.Runner
	once     atomic.Bool // all its probes have looked once
}

func newCrew(a *Agent) *crew {
	return &crew{a: a, hands: map[string]*hand{}, owner: map[fettle.Subject]map[*hand]bool{}, self: map[*hand]fettle.Observation{}, bad: map[string]string{}}
}

// run opens what is configured or found, and runs it, until ctx ends.
func (c *crew) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	errs := make(chan error, 1) // the first runner that does not return as it should
	for {
		for _, conf := range c.a.finder().Find(ctx) {
			h := c.open(ctx, conf)
			if h == nil {
				continue
			}
			wg.Go(func() {
				if err := h.runner.Run(ctx); err != nil {
					select {
					case errs <- err:
					default:
					}
				}
			})
			wg.Go(func() {
				h.runner.Once(ctx)
				// Its own telling may still be under way.
				c.take(h, probe.Batch{Changed: h.runner.Present()})
				h.once.Store(ctx.Err() == nil)
				c.settle()
			})
		}
		c.settle()
		due, stop := c.a.o.Machine.Clock.After(c.a.o.Rediscover)
		select {
		case <-due:
		case <-ctx.Done():
			stop()
			wg.Wait()
			select {
			case err := <-errs:
				return fmt.Errorf("agent: %w", err)
			default:
				return nil
			}
		}
	}
}

// open opens one configuration, unless it is open already.
func (c *crew) open(ctx context.Context, conf roster.Conf) *hand {
	c.mu.Lock()
	old := c.hands[conf.Key()]
	c.mu.Unlock()
	if old != nil {
		return nil
	}
	h := &hand{conf: conf}
	err := func() (err error) {
		if h.instance, err = conf.Adapter.Open(ctx, c.a.o.Machine, conf.Text); err != nil {
			return err
		}
		if c.a.o.Executor != nil {
			h.instance = rooted{h.instance, conf.Key(), c.a.o.Executor, c.a.o.Machine.Clock}
		}
		h.runner, err = probe.New(probe.Options{
			Instances: []fettle.Instance{h.instance}, Clock: c.a.o.Machine.Clock, Host: c.a.host, Digest: c.a.o.Digest,
			Emit: func(b probe.Batch) { c.take(h, b) },
		})
		if err != nil {
			err = errors.Join(err, h.instance.Close())
		}
		return err
	}()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if c.bad[conf.Key()] != err.Error() {
			c.bad[conf.Key()] = err.Error()
			c.a.o.Log.Error("an adapter could not be opened; it is tried again", "configuration", conf.Key(), "from", conf.From, "error", err)
		}
		return nil
	}
	delete(c.bad, conf.Key())
	c.hands[conf.Key()] = h
	c.a.o.Log.Info("an adapter is open", "configuration", conf.Key(), "from", conf.From)
	return h
}

// settle notes whether everything has been looked at once.
func (c *crew) settle() {
	c.mu.Lock()
	all := len(c.bad) == 0
	for _, h := range c.hands {
		all = all && h.once.Load()
	}
	c.mu.Unlock()
	if all && !c.settled.Swap(true) {
		signal(c.a.picture.wake)
	}
}

// take notes whose each subject is, and passes on what was seen.
func (c *crew) take(h *hand, b probe.Batch) {
	c.mu.Lock()
	b.Changed, b.Alive = slices.Clone(b.Changed), slices.Clone(b.Alive)
	merge := false
	b.Changed = slices.DeleteFunc(b.Changed, func(o fettle.Observation) bool {
		if o.Probe == probe.SelfProbe {
			c.self[h], merge = o, true
			return true
		}
		switch {
		case o.Gone:
			delete(c.owner[o.Subject], h)
		case o.Known():
			if c.owner[o.Subject] == nil {
				c.owner[o.Subject] = map[*hand]bool{}
			}
			c.owner[o.Subject][h] = true
		}
		return false
	})
	b.Alive = slices.DeleteFunc(b.Alive, func(al probe.Alive) bool {
		if al.Probe == probe.SelfProbe {
			o := c.self[h]
			o.Asked = al.Asked
			c.self[h], merge = o, true
		}
		return al.Probe == probe.SelfProbe
	})
	if merge {
		before := c.said
		if c.said = c.together(); before.Facts != nil && before.Facts.Equal(c.said.Facts) {
			b.Alive = append(b.Alive, probe.Alive{Subject: c.said.Subject, Probe: c.said.Probe, Asked: c.said.Asked})
		} else {
			b.Changed = append(b.Changed, c.said)
		}
	}
	c.mu.Unlock()
	c.a.picture.take(b)
}

// together is what all runners tell of themselves, as one observation. mu is held.
func (c *crew) together() fettle.Observation {
	var out fettle.Observation
	lists := map[string][]string{}
	for _, o := range c.self {
		if out.Asked.Before(o.Asked) {
			out = o
		}
		for name := range o.Facts {
			l, _ := o.Facts.List(name)
			lists[name] = append(lists[name], l...)
		}
	}
	facts := fettle.Facts{}
	for name, l := range lists {
		slices.Sort(l)
		if l = slices.Compact(l); l == nil {
			l = []string{}
		}
		facts[name] = l
	}
	out.Facts = facts
	return out
}

// look asks those who see each subject, or all who have the probe.
func (c *crew) look(ctx context.Context, looks []fettle.Look) []fettle.Observation {
	want := map[*hand][]fettle.Look{}
	var out []fettle.Observation
	c.mu.Lock()
	for _, l := range looks {
		if l.Probe == probe.SelfProbe {
			if c.said.Subject != "" {
				out = append(out, c.said)
			}
			continue
		}
		asked := c.able(l)
		for _, h := range asked {
			want[h] = append(want[h], l)
		}
		if len(asked) == 0 && l.Subject != "" {
			out = append(out, fettle.Observation{
				Subject: l.Subject, Host: c.a.host, Probe: l.Probe, Asked: c.a.o.Machine.Clock.Now(),
				Reason: fettle.NotSupported, Detail: "this agent has no such probe",
			})
		}
	}
	c.mu.Unlock()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for h, list := range want {
		wg.Go(func() {
			got := h.runner.Look(ctx, list)
			// Its own telling is on the way; what is judged of it must not come later
			// than the answer.
			c.take(h, probe.Batch{Changed: slices.DeleteFunc(slices.Clone(got), func(o fettle.Observation) bool { return !o.Known() })})
			mu.Lock()
			defer mu.Unlock()
			out = append(out, got...)
		})
	}
	wg.Wait()
	return best(out)
}

// able returns the hands that a look is for. mu is held.
func (c *crew) able(l fettle.Look) []*hand {
	var have, own []*hand
	for _, key := range slices.Sorted(maps.Keys(c.hands)) {
		h := c.hands[key]
		if !slices.ContainsFunc(h.runner.Specs(), func(s fettle.ProbeSpec) bool { return s.Name == l.Probe }) {
			continue
		}
		have = append(have, h)
		if c.owner[l.Subject][h] {
			own = append(own, h)
		}
	}
	if len(own) > 0 {
		return own
	}
	return have
}

// best keeps one observation of a subject by a probe: a known one before one that
// is not, then the later one.
func best(list []fettle.Observation) []fettle.Observation {
	at := map[sight]int{}
	var out []fettle.Observation
	for _, o := range list {
		i, had := at[sight{o.Subject, o.Probe}]
		switch {
		case !had:
			at[sight{o.Subject, o.Probe}] = len(out)
			out = append(out, o)
		case o.Known() && !out[i].Known(), o.Known() == out[i].Known() && o.Asked.After(out[i].Asked):
			out[i] = o
		}
	}
	slices.SortFunc(out, func(a, b fettle.Observation) int {
		return strings.Compare(string(a.Subject)+" "+a.Probe, string(b.Subject)+" "+b.Probe)
	})
	return out
}

// candidates is executor.Routed.Candidates: who sees the target is known.
func (c *crew) candidates(_ context.Context, name string, target fettle.Subject) (all, own []fettle.Action) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(c.hands)) {
		h := c.hands[key]
		action, ok := h.instance.Actions()[name]
		if !ok {
			continue
		}
		all = append(all, action)
		if c.owner[target][h] {
			own = append(own, action)
		}
	}
	return all, own
}

// probes lists the probes of what is open, sorted.
func (c *crew) probes() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	set := map[string]bool{}
	for _, h := range c.hands {
		for _, s := range h.runner.Specs() {
			set[s.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// close closes all adapters.
func (c *crew) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	for _, key := range slices.Sorted(maps.Keys(c.hands)) {
		err = errors.Join(err, c.hands[key].instance.Close())
	}
	return err
}
