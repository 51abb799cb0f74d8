package procservices

import (
	"context"
	"runtime"
	"syscall"

	"fettle/internal/machine/units"
)

// Run starts and watches the children. When ctx ends it stops all services, each
// with its StopTimeout, and returns nil when every child has ended. It runs once.
func (s *Services) Run(ctx context.Context) error {
	spawnerDone := make(chan struct{})
	stopSpawner := make(chan struct{})
	go func() {
		defer close(spawnerDone)
		// PR_SET_PDEATHSIG fires when the thread that forked ends, so this thread
		// must live as long as the children. It is not unlocked: it ends with this
		// goroutine, and with it whatever should be left.
		runtime.LockOSThread()
		for {
			select {
			case <-stopSpawner:
				return
			case <-s.wake:
				s.spawnAll()
			}
		}
	}()

	<-ctx.Done()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stopAll()
	s.watchers.Wait()
	close(stopSpawner)
	<-spawnerDone
	s.engine.Halt()
	return nil
}

// stopAll stops every service and waits for the end of each.
func (s *Services) stopAll() {
	list, err := s.engine.Board.List(nil)
	if err != nil {
		return // only a bad pattern is an error, and there is none
	}
	// Not the ended context of Run: SIGKILL after StopTimeout bounds this wait.
	ctx := context.Background()
	done := make(chan struct{})
	for _, u := range list {
		go func() {
			defer func() { done <- struct{}{} }()
			// A unit that does not stop is shown as failed; nobody is left to tell.
			_, _ = s.engine.Do(ctx, "stop", u.Name, units.BySystem)
		}()
	}
	for range list {
		<-done
	}
}

// spawnAll starts what was queued. It runs on the spawner's thread.
func (s *Services) spawnAll() {
	for {
		o, c := s.next()
		if c == nil {
			return
		}
		s.spawn(o, c)
	}
}

// next takes what was queued first, and makes its child in the same moment: a
// signal finds the one or the other. The child is nil when nothing is queued.
func (s *Services) next() (order, *child) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return order{}, nil
	}
	o := s.queue[0]
	s.queue = s.queue[1:]
	c := &child{invocation: o.invocation}
	s.children[o.name] = c
	return o, c
}

// hands are the engine's: they queue, or send signals.
type hands struct{ s *Services }

func (h hands) Spawn(name, invocation string) []units.Event {
	s := h.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, order{name, invocation})
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil
}

func (h hands) Signal(name, invocation string, signal syscall.Signal, all bool) []units.Event {
	s := h.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, o := range s.queue {
		if o.name == name && o.invocation == invocation { // not begun yet
			s.queue = append(s.queue[:i:i], s.queue[i+1:]...)
			return []units.Event{{
				What: units.Exited, Unit: name, Invocation: invocation, Code: units.CLDKilled, Status: int(signal),
			}}
		}
	}
	if c := s.children[name]; c != nil && c.invocation == invocation {
		c.signal(signal, all)
	} // else it has just ended, and its Exited is on the way
	return nil
}

func (h hands) Reload(name, invocation string) []units.Event {
	s := h.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.children[name]; c != nil && c.invocation == invocation {
		c.signal(syscall.Signal(s.definitions[name].Reload), false)
	}
	return []units.Event{{What: units.Reloaded, Unit: name, Invocation: invocation}}
}
