package executor

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"fettle/internal/act/roster"
	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// rediscover is how often it is looked for what is new on the machine, and lookAgain
// how soon it may be looked for again because an action found nobody who has it.
const (
	rediscover = time.Minute
	lookAgain  = 2 * time.Second
)

// Instances are the adapters of a machine, opened for their actions, and for such probes as
// only root can ask (Looks): none of them is asked by itself. What is open stays open.
type Instances struct {
	finder roster.Finder
	clock  machine.Clock
	log    *slog.Logger

	looking sync.Mutex // one at a time
	watches watches

	mu     sync.Mutex
	open   map[string]fettle.Instance // by configuration
	bad    map[string]string          // what could not be opened, and why
	looked time.Time
}

// NewInstances opens nothing until Run, or until an action is called.
func NewInstances(finder roster.Finder) *Instances {
	if finder.Log == nil {
		finder.Log = slog.New(slog.DiscardHandler)
	}
	return &Instances{finder: finder, clock: finder.Machine.Clock, log: finder.Log, open: map[string]fettle.Instance{}, bad: map[string]string{},
		watches: watches{of: map[Outlook]*watching{}, begin: make(chan func(context.Context))}}
}

// Actions are all that the catalogues name.
func (i *Instances) Actions(catalogues []fettle.Catalogue) map[string]fettle.Action {
	return Route(catalogues, i.candidates)
}

// Run opens what is configured or found, now and then again, and runs the watchers that
// Changed asks for, until ctx ends. It returns when those have ended.
func (i *Instances) Run(ctx context.Context) error {
	var watchers sync.WaitGroup
	defer watchers.Wait()
	watchers.Go(func() {
		for {
			select {
			case run := <-i.watches.begin:
				watchers.Go(func() { run(ctx) })
			case <-ctx.Done():
				return
			}
		}
	})
	for {
		i.look(ctx)
		due, stop := i.clock.After(rediscover)
		select {
		case <-due:
		case <-ctx.Done():
			stop()
			return nil
		}
	}
}

// Close closes what is open.
func (i *Instances) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	var err error
	for _, in := range sorted(i.open) {
		err = errors.Join(err, in.Close())
	}
	return err
}

// look opens what is not open yet.
func (i *Instances) look(ctx context.Context) {
	i.looking.Lock()
	defer i.looking.Unlock()
	i.mu.Lock()
	fresh := !i.looked.IsZero() && i.clock.Now().Sub(i.looked) < lookAgain
	i.mu.Unlock()
	if fresh { // somebody else looked while we waited
		return
	}
	for _, c := range i.finder.Find(ctx) {
		i.mu.Lock()
		have := i.open[c.Key()] != nil
		i.mu.Unlock()
		if have {
			continue
		}
		in, err := c.Adapter.Open(ctx, i.finder.Machine, c.Text)
		i.mu.Lock()
		switch {
		case err == nil:
			delete(i.bad, c.Key())
			i.open[c.Key()] = in
			i.log.Info("an adapter is open", "configuration", c.Key(), "from", c.From)
		case i.bad[c.Key()] != err.Error():
			i.bad[c.Key()] = err.Error()
			i.log.Error("an adapter could not be opened; it is tried again", "configuration", c.Key(), "from", c.From, "error", err)
		}
		i.mu.Unlock()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.looked = i.clock.Now()
}

// candidates is Routed.Candidates. Nobody here sees targets: who does not refuse to
// preview a step is the one.
func (i *Instances) candidates(ctx context.Context, name string, _ fettle.Subject) (all, own []fettle.Action) {
	if all = i.having(name); len(all) == 0 {
		i.look(ctx)
		all = i.having(name)
	}
	return all, nil
}

func (i *Instances) having(name string) (all []fettle.Action) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, in := range sorted(i.open) {
		if a, ok := in.Actions()[name]; ok {
			all = append(all, a)
		}
	}
	return all
}

// sorted are instances in the order of their configurations.
func sorted(open map[string]fettle.Instance) []fettle.Instance {
	list := make([]fettle.Instance, 0, len(open))
	for _, key := range slices.Sorted(maps.Keys(open)) {
		list = append(list, open[key])
	}
	return list
}
