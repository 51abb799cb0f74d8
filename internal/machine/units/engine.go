package units

import (
	"context"
	"fmt"
	"io/fs"
	"sync"
	"syscall"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// Definition is a service as its unit file would say it.
type Definition struct {
	Unit         machine.Unit  // Name, UnitFileState, FragmentPath, Restart, Wants, WantedBy; LoadState "" is loaded
	StartTimeout time.Duration // until ready; 0: 90 s, as DefaultTimeoutStartSec
	StopTimeout  time.Duration // from SIGTERM to SIGKILL; 0: 90 s
	CanReload    bool
}

// Hands runs processes for an Engine. Its methods are called with the engine
// locked: they must not block and not call the engine. What happened at once they
// return; what happens later they tell with Engine.Tell.
type Hands interface {
	// Spawn starts the unit's process. Followed by Spawned or NotSpawned, then Ready.
	Spawn(name, invocation string) []Event
	// Signal sends a signal to the main process, all to the whole group.
	Signal(name, invocation string, signal syscall.Signal, all bool) []Event
	// Reload asks the process to reread its configuration. Followed by Reloaded.
	Reload(name, invocation string) []Event
}

// Happening is what became of a process.
type Happening int

// The happenings.
const (
	Spawned Happening = iota + 1
	NotSpawned
	Ready
	Reloaded
	Exited
)

// Event is one happening to one invocation of a unit.
type Event struct {
	What             Happening
	Unit, Invocation string
	PID              int    // Spawned
	Code, Status     int    // Exited; NotSpawned: Status as in systemd.exec(5), 0: ExitExec
	Failure          string // NotSpawned: what the manager itself could not do ("resources"); "": the process could not
}

// Engine is the service manager. Its methods may be called concurrently.
type Engine struct {
	Board *Board

	hands      Hands
	now        func() time.Time
	invocation func() string

	mu     sync.Mutex
	states map[string]*state
}

// state is one unit with what the engine must remember of it.
type state struct {
	def     Definition
	unit    machine.Unit
	job     *job
	failure string // what the manager found wrong in this invocation
	stopBy  string // who asked for the stop that is under way
	timer   *time.Timer
}

// NewEngine returns an engine without units. invocation makes a fresh identity
// for each start.
func NewEngine(hands Hands, now func() time.Time, invocation func() string) *Engine {
	return &Engine{Board: NewBoard(), hands: hands, now: now, invocation: invocation, states: map[string]*state{}}
}

// Define adds a unit, inactive, or changes the definition of one; a running one
// keeps running as it was started.
func (e *Engine) Define(d Definition) {
	if d.StartTimeout == 0 {
		d.StartTimeout = 90 * time.Second
	}
	if d.StopTimeout == 0 {
		d.StopTimeout = 90 * time.Second
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s, ok := e.states[d.Unit.Name]
	if !ok {
		s = &state{unit: d.Unit}
		e.states[d.Unit.Name] = s
		if s.unit.ActiveState == "" {
			s.unit.ActiveState, s.unit.SubState, s.unit.Result = "inactive", "dead", "success"
		}
	}
	s.def = d
	s.unit.LoadState, s.unit.UnitFileState = d.Unit.LoadState, d.Unit.UnitFileState
	s.unit.FragmentPath, s.unit.Restart = d.Unit.FragmentPath, d.Unit.Restart
	s.unit.Wants, s.unit.WantedBy = d.Unit.Wants, d.Unit.WantedBy
	if s.unit.LoadState == "" {
		s.unit.LoadState = "loaded"
	}
	e.Board.Put(s.unit)
}

// Set puts a unit into any state at once, for tests; its job ends as canceled.
func (e *Engine) Set(u machine.Unit) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s, ok := e.states[u.Name]
	if !ok {
		s = &state{def: Definition{Unit: u, StartTimeout: 90 * time.Second, StopTimeout: 90 * time.Second}}
		e.states[u.Name] = s
	}
	e.arm(s, 0)
	s.unit, s.failure = u, ""
	e.finish(s, "canceled")
	e.Board.Put(s.unit)
}

// Do queues a job (start, stop, restart, reload) as by, and waits for its end or
// the context's; then the job goes on alone.
func (e *Engine) Do(ctx context.Context, kind, name, by string) (machine.JobResult, error) {
	if err := ctx.Err(); err != nil {
		return machine.JobResult{}, fmt.Errorf("%s %s: %w", kind, name, err)
	}
	j, err := e.enqueue(kind, name, by)
	if err != nil {
		return machine.JobResult{}, fmt.Errorf("%s %s: %w", kind, name, err)
	}
	r, err := j.wait(ctx)
	if err != nil {
		return r, fmt.Errorf("%s %s: waiting for the job: %w", kind, name, err)
	}
	return r, nil
}

// BySystem is who asks for what nobody asked for, such as a start at boot.
const BySystem = "system"

// Queue queues a job and does not wait for it.
func (e *Engine) Queue(kind, name, by string) error {
	if _, err := e.enqueue(kind, name, by); err != nil {
		return fmt.Errorf("%s %s: %w", kind, name, err)
	}
	return nil
}

func (e *Engine) enqueue(kind, name, by string) (*job, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.states[name]
	switch {
	case s == nil:
		return nil, fmt.Errorf("no such unit: %w", fs.ErrNotExist)
	case s.unit.LoadState == "masked" && kind != "stop":
		return nil, machine.ErrMasked
	case kind == "reload" && !s.def.CanReload:
		return nil, fmt.Errorf("the unit knows no reload: %w", fettle.ErrNotSupported)
	}
	if s.job != nil && s.job.shares(kind) {
		return s.job, nil
	}
	e.finish(s, "canceled")
	j := &job{kind: kind, by: by, issued: e.now(), done: make(chan struct{})}
	s.job, s.unit.Job = j, kind
	e.apply(s, e.advance(s))
	return j, nil
}

// Tell reports happenings.
func (e *Engine) Tell(events ...Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range events {
		if s := e.states[ev.Unit]; s != nil {
			e.apply(s, []Event{ev})
		}
	}
}

// ResetFailed makes a failed unit inactive; on any other it does nothing.
func (e *Engine) ResetFailed(name string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.states[name]
	if s == nil {
		return fmt.Errorf("reset-failed %s: no such unit: %w", name, fs.ErrNotExist)
	}
	if s.unit.ActiveState == "failed" {
		s.unit.ActiveState, s.unit.SubState, s.unit.StateChanged = "inactive", "dead", e.now()
	}
	s.unit.Result, s.unit.NRestarts = "success", 0
	e.Board.Put(s.unit)
	return nil
}

// Kill sends a signal to the main process.
func (e *Engine) Kill(name string, signal int) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.states[name]
	switch {
	case s == nil:
		return fmt.Errorf("kill %s: no such unit: %w", name, fs.ErrNotExist)
	case s.unit.MainPID == 0:
		return fmt.Errorf("kill %s: %w", name, machine.ErrNotRunning)
	case signal < 1 || signal > 64:
		return fmt.Errorf("kill %s: signal %d: %w", name, signal, syscall.EINVAL)
	}
	e.apply(s, e.hands.Signal(name, s.unit.InvocationID, syscall.Signal(signal), false))
	return nil
}
