package probe

import (
	"slices"
	"sync"
	"time"

	"fettle/internal/machine"
)

// tasks counts the goroutines of a runner by name, so that the one that does not
// return can be named. Unlike a sync.WaitGroup it may be waited for while others
// start.
type tasks struct {
	mu     sync.Mutex
	names  map[string]int
	change chan struct{} // closed and renewed when a task ends
}

func newTasks() *tasks { return &tasks{names: map[string]int{}, change: make(chan struct{})} }

// start runs do in a goroutine.
func (t *tasks) start(name string, do func()) {
	t.mu.Lock()
	t.names[name]++
	t.mu.Unlock()
	go func() {
		defer func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			if t.names[name]--; t.names[name] == 0 {
				delete(t.names, name)
			}
			close(t.change)
			t.change = make(chan struct{})
		}()
		do()
	}()
}

// wait waits until none is left, at most for a limit, and names those left.
func (t *tasks) wait(clock machine.Clock, limit time.Duration) []string {
	over, stop := clock.After(limit)
	defer stop()
	for {
		t.mu.Lock()
		change := t.change
		var left []string
		for name := range t.names {
			left = append(left, name)
		}
		t.mu.Unlock()
		if len(left) == 0 {
			return nil
		}
		select {
		case <-change:
		case <-over:
			slices.Sort(left)
			return left
		}
	}
}
