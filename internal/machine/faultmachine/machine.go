package faultmachine

import (
	"context"
	"fmt"
	"path"
	"strings"
	"sync"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// Machine is a machine with rules. Its methods may be called concurrently.
type Machine struct {
	inner machine.Machine

	mu    sync.Mutex
	rules []*active
}

// active is a rule with what it has seen.
type active struct {
	Rule
	passed, fired int
}

// New puts a machine without rules in front of m.
func New(m machine.Machine) *Machine { return &Machine{inner: m} }

// Ports returns the machine as its users see it.
func (m *Machine) Ports() machine.Machine {
	out := m.inner
	out.Files = files{m, m.inner.Files}
	out.Commands = commands{m, m.inner.Commands}
	out.Services = services{m, m.inner.Services}
	out.Filesystems = filesystems{m, m.inner.Filesystems}
	out.Processes = processes{m, m.inner.Processes}
	return out
}

// Set replaces all rules.
func (m *Machine) Set(rules ...Rule) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rules = nil
	for _, r := range rules {
		m.rules = append(m.rules, &active{Rule: r})
	}
}

// Add adds a rule after those that are there. The function takes it away.
func (m *Machine) Add(r Rule) (remove func()) {
	a := &active{Rule: r}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rules = append(m.rules, a)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for i, x := range m.rules {
			if x == a {
				m.rules = append(m.rules[:i:i], m.rules[i+1:]...)
				return
			}
		}
	}
}

// Fired says how often each present rule has fired, by the rules' order.
func (m *Machine) Fired() []int {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := []int{}
	for _, a := range m.rules {
		out = append(out, a.fired)
	}
	return out
}

// effect counts a call and returns what becomes of it.
func (m *Machine) effect(op, target string) (Effect, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.rules {
		if !a.matches(op, target) {
			continue
		}
		if a.passed < a.After {
			a.passed++
			continue
		}
		if a.Times > 0 && a.fired >= a.Times {
			continue
		}
		a.fired++
		return a.Effect, true
	}
	return Effect{}, false
}

func (r Rule) matches(op, target string) bool {
	if ok, err := path.Match(r.Op, op); !ok || err != nil {
		return false
	}
	if r.Target == "" || r.Target == target {
		return true
	}
	if below, ok := strings.CutSuffix(r.Target, "/**"); ok && (target == below || strings.HasPrefix(target, below+"/")) {
		return true
	}
	ok, err := path.Match(r.Target, target)
	return ok && err == nil
}

// do makes a call, or what the rules make of it.
func (m *Machine) do(ctx context.Context, op, target string, call func() error) error {
	e, fired := m.effect(op, target)
	if !fired {
		return call()
	}
	before, after := m.apply(ctx, e)
	if before != nil {
		return fmt.Errorf("%s %s: injected: %w", op, target, before)
	}
	if err := call(); err != nil {
		return err
	}
	if after != nil {
		return fmt.Errorf("%s %s: injected: %w", op, target, after)
	}
	return nil
}

// apply waits where the effect says so, and returns the error that comes instead
// of the call, or after it.
func (m *Machine) apply(ctx context.Context, e Effect) (before, after error) {
	switch {
	case e.Errno != 0:
		return e.Errno, nil
	case e.Unsupported:
		return fettle.ErrNotSupported, nil
	case e.Lost:
		return nil, machine.ErrLost
	case e.Hang:
		<-ctx.Done()
		return ctx.Err(), nil
	}
	due, stop := m.inner.Clock.After(e.Delay)
	defer stop()
	select {
	case <-due:
		return nil, nil
	case <-ctx.Done():
		return ctx.Err(), nil
	}
}

// get is do for a call with a value.
func get[T any](ctx context.Context, m *Machine, op, target string, call func() (T, error)) (T, error) {
	var v T
	err := m.do(ctx, op, target, func() (err error) {
		v, err = call()
		return err
	})
	return v, err
}

// watch runs a watch whose every telling is a call for the rules.
func watch[T any](ctx context.Context, m *Machine, op string, target func(T) string, emit func(T), run func(context.Context, func(T)) error) error {
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := run(inner, func(v T) {
		if inner.Err() != nil {
			return
		}
		e, fired := m.effect(op, target(v))
		if !fired {
			emit(v)
			return
		}
		before, after := m.apply(inner, e)
		switch {
		case before != nil:
			cancel(fmt.Errorf("%s %s: injected: %w", op, target(v), before))
		case after == nil:
			emit(v)
		}
	})
	if ctx.Err() == nil && inner.Err() != nil {
		return context.Cause(inner)
	}
	return err
}
