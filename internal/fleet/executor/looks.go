package executor

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"fettle/internal/fettle"
)

// changedWait is how long a call waits for a change; then it is made again.
const changedWait = 20 * time.Second

// watches are the watchers that run for an agent, from its first call of Changed until
// they break; its next call starts them anew.
type watches struct {
	mu    sync.Mutex
	count uint64 // of what all have told: no number comes twice, also of one that began anew
	of    map[Outlook]*watching
	begin chan func(context.Context) // to Run, in whose context they run
}

// watching is one watcher.
type watching struct {
	told uint64
	news chan struct{} // closed when told or err has changed
	err  error         // why it ended
}

// opened is a configuration's instance, opened now where it is not.
func (i *Instances) opened(ctx context.Context, conf string) (fettle.Instance, error) {
	get := func() fettle.Instance {
		i.mu.Lock()
		defer i.mu.Unlock()
		return i.open[conf]
	}
	if in := get(); in != nil {
		return in, nil
	}
	i.look(ctx)
	if in := get(); in != nil {
		return in, nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if why := i.bad[conf]; why != "" {
		return nil, fmt.Errorf("%.100s is not open: %s", conf, why)
	}
	return nil, fmt.Errorf("the executor knows of no %.100s: %w", conf, fettle.ErrNotSupported)
}

// Look implements Looks. The probe is cut off after its own timeout.
func (i *Instances) Look(ctx context.Context, from Outlook, subjects ...fettle.Subject) ([]fettle.Observation, error) {
	in, err := i.opened(ctx, from.Conf)
	if err != nil {
		return nil, err
	}
	list := in.Probes()
	n := slices.IndexFunc(list, func(p fettle.Probe) bool { s := p.Spec(); return s.Root && s.Name == from.Probe })
	if n < 0 {
		return nil, fmt.Errorf("%s has no probe %.100q that needs root: %w", from.Conf, from.Probe, fettle.ErrNotSupported)
	}
	if within := list[n].Spec().Timeout; within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, within)
		defer cancel()
	}
	return list[n].Observe(ctx, subjects...), nil
}

// Changed implements Looks.
func (i *Instances) Changed(ctx context.Context, from Outlook, known uint64) (uint64, error) {
	w, err := i.watch(ctx, from)
	if err != nil {
		return 0, err
	}
	wait, stop := i.clock.After(changedWait)
	defer stop()
	for {
		i.watches.mu.Lock()
		told, news, err := w.told, w.news, w.err
		i.watches.mu.Unlock()
		switch {
		case err != nil:
			return 0, err
		case told != known:
			return told, nil
		}
		select {
		case <-news:
		case <-wait:
			return known, nil
		case <-ctx.Done():
			return known, ctx.Err()
		}
	}
}

// watch returns who watches, and starts them where nobody does.
func (i *Instances) watch(ctx context.Context, from Outlook) (*watching, error) {
	i.watches.mu.Lock()
	w := i.watches.of[from]
	i.watches.mu.Unlock()
	if w != nil {
		return w, nil
	}
	in, err := i.opened(ctx, from.Conf)
	if err != nil {
		return nil, err
	}
	list := in.Watchers()
	n := slices.IndexFunc(list, func(w fettle.Watcher) bool { s := w.Spec(); return s.Root && s.Name == from.Probe })
	if n < 0 {
		return nil, fmt.Errorf("%s has no watcher of %.100q that needs root: %w", from.Conf, from.Probe, fettle.ErrNotSupported)
	}
	i.watches.mu.Lock()
	if w := i.watches.of[from]; w != nil { // somebody else was faster
		i.watches.mu.Unlock()
		return w, nil
	}
	i.watches.count++
	w = &watching{told: i.watches.count, news: make(chan struct{})}
	i.watches.of[from] = w
	i.watches.mu.Unlock()
	select {
	case i.watches.begin <- func(ctx context.Context) { i.keep(ctx, from, w, list[n]) }:
		return w, nil
	case <-ctx.Done():
		i.news(from, w, ctx.Err())
		return nil, ctx.Err()
	}
}

// keep runs a watcher, counts what it tells, and says when it ends. A panic is its end.
func (i *Instances) keep(ctx context.Context, from Outlook, w *watching, watcher fettle.Watcher) {
	err := func() (err error) {
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("panic: %v", v)
				i.log.Error("a watcher panicked", "probe", from.Probe, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			}
		}()
		return watcher.Watch(ctx, func(fettle.Observation) { i.news(from, w, nil) })
	}()
	if err == nil {
		err = errors.New("it ended")
	}
	i.news(from, w, fmt.Errorf("the watcher of %s: %w", from.Probe, err))
}

// news tells those who wait that a watcher has told of something, or why it ended.
func (i *Instances) news(from Outlook, w *watching, ended error) {
	i.watches.mu.Lock()
	defer i.watches.mu.Unlock()
	i.watches.count++
	w.told = i.watches.count
	if w.err = ended; ended != nil && i.watches.of[from] == w {
		delete(i.watches.of, from)
	}
	close(w.news)
	w.news = make(chan struct{})
}
