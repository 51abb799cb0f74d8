package memmachine

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"syscall"
	"time"

	"fettle/internal/machine"
	"fettle/internal/machine/units"
)

// Behaviour says how a service's process behaves. The zero value starts at once,
// runs until it is told to stop, and stops at once.
type Behaviour struct {
	ReadyAfter time.Duration // from start to ready
	NeverReady bool
	NoProgram  bool          // cannot be executed
	ExitAfter  time.Duration // ends by itself this long after it became ready; 0: never
	ExitNow    bool          // ends at once after it became ready
	ExitStatus int           // with which
	StopAfter  time.Duration // from SIGTERM to its end
	IgnoreTerm bool          // needs SIGKILL
	Says       []string      // lines that it logs when it starts

	// OnStart and OnStop are called when the process begins and ends, OnSignal
	// with each signal but SIGKILL; it says whether the process caught it. They
	// let a test tie a fake server to the unit. The service manager may be locked
	// meanwhile: they must not call Services.
	OnStart, OnStop func()
	OnSignal        func(signal int) (caught bool)

	definition units.Definition
	pid        int
	invocation string
}

// Define adds a service, inactive, or changes one.
func (m *Machine) Define(d units.Definition, b Behaviour) {
	m.mu.Lock()
	if old := m.services[d.Unit.Name]; old != nil {
		b.pid, b.invocation = old.pid, old.invocation
	}
	b.definition = d
	m.services[d.Unit.Name] = &b
	m.mu.Unlock()
	m.engine.Define(d)
}

// SetUnit puts a unit into any state at once, defined or not.
func (m *Machine) SetUnit(u machine.Unit) { m.engine.Set(u) }

// StopAsPerson stops a unit as somebody at a terminal would, and returns when it
// has stopped.
func (m *Machine) StopAsPerson(ctx context.Context, name string) error {
	_, err := m.engine.Do(ctx, "stop", name, machine.ByPerson)
	return err
}

// Crash ends a unit's main process by a signal that nobody asked for.
func (m *Machine) Crash(name string, signal syscall.Signal) {
	m.EndProcess(m.engine.Board.Get(name).MainPID, units.CLDKilled, int(signal))
}

// AppendLog adds lines to a unit's log.
func (m *Machine) AppendLog(name string, lines ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.logs[name] = append(m.logs[name], lines...)
}

func (m *Machine) newInvocation() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.invocations++
	return fmt.Sprintf("%032x", m.invocations)
}

// hands runs the pretended processes. The engine is locked while it works.
type hands struct{ m *Machine }

func (h hands) Spawn(name, invocation string) []units.Event {
	m := h.m
	m.mu.Lock()
	b := m.services[name]
	if b == nil { // put there by SetUnit: behaves like the zero Behaviour
		b = &Behaviour{}
		m.services[name] = b
	}
	m.logs[name] = nil
	ev := units.Event{Unit: name, Invocation: invocation}
	if b.NoProgram {
		m.mu.Unlock()
		ev.What = units.NotSpawned
		return []units.Event{ev}
	}
	b.invocation = invocation
	b.pid = m.addProcess(machine.Process{Command: name, Cgroup: "/system.slice/" + name, UnitName: name}, b.OnSignal)
	m.logs[name] = append(m.logs[name], b.Says...)
	pid, how := b.pid, *b
	m.mu.Unlock()
	if how.OnStart != nil {
		how.OnStart()
	}
	spawned, ready, exited := ev, ev, ev
	spawned.What, spawned.PID = units.Spawned, pid
	ready.What = units.Ready
	exited.What, exited.Code, exited.Status = units.Exited, units.CLDExited, how.ExitStatus

	events := []units.Event{spawned}
	if how.NeverReady {
		return events
	}
	if how.ExitAfter > 0 {
		time.AfterFunc(how.ReadyAfter+how.ExitAfter, func() { m.EndProcess(pid, units.CLDExited, how.ExitStatus) })
	}
	switch {
	case how.ReadyAfter > 0:
		time.AfterFunc(how.ReadyAfter, func() {
			m.engine.Tell(ready)
			if how.ExitNow {
				m.EndProcess(pid, units.CLDExited, how.ExitStatus)
			}
		})
	case how.ExitNow:
		m.removeProcess(pid)
		events = append(events, ready, exited)
	default:
		events = append(events, ready)
	}
	return events
}

func (h hands) Signal(name, invocation string, signal syscall.Signal, _ bool) []units.Event {
	m := h.m
	m.mu.Lock()
	b := m.services[name]
	if b == nil || b.pid == 0 || b.invocation != invocation {
		m.mu.Unlock()
		// A unit that SetUnit made running has no process: it ends as asked.
		return []units.Event{{What: units.Exited, Unit: name, Invocation: invocation, Code: units.CLDKilled, Status: int(signal)}}
	}
	pid, how := b.pid, *b
	proc := m.processes[pid]
	m.mu.Unlock()
	switch {
	case signal != syscall.SIGKILL && proc.onSignal != nil && proc.onSignal(int(signal)):
		return nil
	case signal == syscall.SIGTERM && how.IgnoreTerm:
		return nil
	case signal == syscall.SIGTERM && how.StopAfter > 0:
		time.AfterFunc(how.StopAfter, func() { m.EndProcess(pid, units.CLDKilled, int(signal)) })
		return nil
	case signal == syscall.SIGHUP && how.definition.CanReload, signal == syscall.SIGCHLD, signal == syscall.SIGCONT:
		return nil
	}
	m.removeProcess(pid)
	return []units.Event{{What: units.Exited, Unit: name, Invocation: invocation, Code: units.CLDKilled, Status: int(signal)}}
}

func (h hands) Reload(name, invocation string) []units.Event {
	return []units.Event{{What: units.Reloaded, Unit: name, Invocation: invocation}}
}

// services is the Services port.
type services struct{ m *Machine }

func (s services) Units(ctx context.Context, patterns ...string) ([]machine.Unit, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list units: %w", err)
	}
	return s.m.engine.Board.List(patterns)
}

func (s services) Unit(ctx context.Context, name string) (machine.Unit, error) {
	if err := ctx.Err(); err != nil {
		return machine.Unit{}, fmt.Errorf("unit %s: %w", name, err)
	}
	return s.m.engine.Board.Get(name), nil
}

func (s services) Watch(ctx context.Context, emit func(machine.Unit), patterns ...string) error {
	return s.m.engine.Board.Watch(ctx, emit, patterns...)
}

func (s services) Start(ctx context.Context, name string) (machine.JobResult, error) {
	return s.m.engine.Do(ctx, "start", name, machine.BySelf)
}

func (s services) Stop(ctx context.Context, name string) (machine.JobResult, error) {
	return s.m.engine.Do(ctx, "stop", name, machine.BySelf)
}

func (s services) Restart(ctx context.Context, name string) (machine.JobResult, error) {
	return s.m.engine.Do(ctx, "restart", name, machine.BySelf)
}

func (s services) Reload(ctx context.Context, name string) (machine.JobResult, error) {
	return s.m.engine.Do(ctx, "reload", name, machine.BySelf)
}

func (s services) ResetFailed(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("reset-failed %s: %w", name, err)
	}
	return s.m.engine.ResetFailed(name)
}

func (s services) Kill(ctx context.Context, name string, signal int) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("kill %s: %w", name, err)
	}
	return s.m.engine.Kill(name, signal)
}

func (s services) DaemonReload(ctx context.Context) error { return ctx.Err() }

func (s services) Log(ctx context.Context, name string, lines int) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("log of %s: %w", name, err)
	}
	if s.m.engine.Board.Get(name).LoadState == "not-found" {
		return nil, fmt.Errorf("log of %s: no such unit: %w", name, fs.ErrNotExist)
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	all := s.m.logs[name]
	return slices.Clone(all[max(0, len(all)-max(0, lines)):]), nil
}
