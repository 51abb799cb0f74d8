package units

import (
	"cmp"
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"fettle/internal/machine"
)

// Board holds the present state of units and tells those who watch. Its methods
// may be called concurrently and do not block, except Watch.
type Board struct {
	mu       sync.Mutex
	units    map[string]machine.Unit
	watchers map[*watcher]bool
}

// NewBoard returns an empty board.
func NewBoard() *Board {
	return &Board{units: map[string]machine.Unit{}, watchers: map[*watcher]bool{}}
}

// watcher is one running Watch: what it has not been told yet.
type watcher struct {
	patterns []string
	queue    []machine.Unit
	wake     chan struct{} // holds one token while queue is not empty
}

// Put sets a unit's state, and tells it if it is another than before.
func (b *Board) Put(u machine.Unit) {
	u = clone(u)
	b.mu.Lock()
	defer b.mu.Unlock()
	if before, ok := b.units[u.Name]; ok && reflect.DeepEqual(before, u) {
		return
	}
	b.units[u.Name] = u
	b.tell(u)
}

// Remove forgets a unit; watchers are told that it is not found.
func (b *Board) Remove(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.units[name]; ok {
		delete(b.units, name)
		b.tell(NotFound(name))
	}
}

// Get returns a unit's state; an unknown one is NotFound, as systemd has it.
func (b *Board) Get(name string) machine.Unit {
	b.mu.Lock()
	defer b.mu.Unlock()
	if u, ok := b.units[name]; ok {
		return clone(u)
	}
	return NotFound(name)
}

// List returns the matching units sorted by name (see machine.MatchUnit).
func (b *Board) List(patterns []string) ([]machine.Unit, error) {
	if err := machine.CheckPatterns(patterns); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.list(patterns), nil
}

// Watch is machine.Services.Watch: it returns the context's error.
func (b *Board) Watch(ctx context.Context, emit func(machine.Unit), patterns ...string) error {
	if err := machine.CheckPatterns(patterns); err != nil {
		return err
	}
	w := &watcher{patterns: patterns, wake: make(chan struct{}, 1)}
	b.mu.Lock()
	first := b.list(patterns)
	for _, p := range patterns {
		if _, known := b.units[p]; !known && !strings.ContainsAny(p, `*?[\`) {
			first = append(first, NotFound(p))
		}
	}
	b.watchers[w] = true
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.watchers, w)
		b.mu.Unlock()
	}()

	for _, u := range first {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		emit(u)
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.wake:
		}
		b.mu.Lock()
		queue := w.queue
		w.queue = nil
		b.mu.Unlock()
		for _, u := range queue {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			emit(u)
		}
	}
}

// tell queues u for every watcher that asked for it. b.mu is held.
func (b *Board) tell(u machine.Unit) {
	for w := range b.watchers {
		if !machine.MatchUnit(u.Name, w.patterns) {
			continue
		}
		w.queue = append(w.queue, clone(u))
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

func (b *Board) list(patterns []string) []machine.Unit {
	var out []machine.Unit
	for u := range maps.Values(b.units) {
		if machine.MatchUnit(u.Name, patterns) {
			out = append(out, clone(u))
		}
	}
	slices.SortFunc(out, func(a, b machine.Unit) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// NotFound is a unit that the manager knows nothing of.
func NotFound(name string) machine.Unit {
	return machine.Unit{Name: name, LoadState: "not-found", ActiveState: "inactive", SubState: "dead"}
}

func clone(u machine.Unit) machine.Unit {
	u.Wants, u.WantedBy = slices.Clone(u.Wants), slices.Clone(u.WantedBy)
	return u
}
