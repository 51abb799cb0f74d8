package machinetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"fettle/internal/machine"
)

// watch starts watching a unit and returns its states as they come. The first,
// present one is taken off.
func (s *servicesTest) watch(t *testing.T, name string) *watching {
	t.Helper()
	ctx, cancel := context.WithCancel(s.ctx)
	w := &watching{states: make(chan machine.Unit, 256)}
	ended := make(chan error, 1)
	go func() { ended <- s.Services.Watch(ctx, func(u machine.Unit) { w.states <- u }, name) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch ended with %v, want the context's error", err)
		}
	})
	first := w.next(t)
	if first.Name != name {
		t.Fatalf("Watch told of %q first, want %q", first.Name, name)
	}
	return w
}

type watching struct {
	states chan machine.Unit
	seen   []string
}

func (w *watching) next(t *testing.T) machine.Unit {
	t.Helper()
	select {
	case u := <-w.states:
		w.seen = append(w.seen, u.ActiveState+"/"+u.SubState)
		return u
	case <-time.After(patience):
		t.Fatalf("no further state was told; so far %v", w.seen)
		return machine.Unit{}
	}
}

// until waits for a state.
func (w *watching) until(t *testing.T, active string) machine.Unit {
	t.Helper()
	for {
		if u := w.next(t); u.ActiveState == active {
			return u
		}
	}
}

func (s *servicesTest) start(t *testing.T, name string) machine.Unit {
	t.Helper()
	r, err := s.Services.Start(s.ctx, name)
	if err != nil || r.Result != "done" {
		t.Fatalf("Start %s: %+v, %v; want done", name, r, err)
	}
	if r.Issued.IsZero() {
		t.Errorf("Start %s: no time when the job was accepted", name)
	}
	return s.unit(t, name)
}

func (s *servicesTest) unit(t *testing.T, name string) machine.Unit {
	t.Helper()
	u, err := s.Services.Unit(s.ctx, name)
	if err != nil {
		t.Fatalf("Unit %s: %v", name, err)
	}
	return u
}

func wantState(t *testing.T, u machine.Unit, active, sub, result string) {
	t.Helper()
	if u.ActiveState != active || u.SubState != sub || u.Result != result {
		t.Errorf("%s is %s/%s result %q, want %s/%s %q", u.Name, u.ActiveState, u.SubState, u.Result, active, sub, result)
	}
}
