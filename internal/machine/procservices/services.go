package procservices

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"fettle/internal/machine"
	"fettle/internal/machine/units"
)

var _ machine.Services = (*Services)(nil)

// errStopped: Run has ended, so nothing can be started any more.
var errStopped = errors.New("this service manager has stopped")

// Services runs child processes. Nothing starts before Run runs. All methods may
// be called concurrently.
type Services struct {
	engine *units.Engine

	mu          sync.Mutex
	definitions map[string]Definition
	children    map[string]*child // by unit name
	logs        map[string]*ring
	queue       []order
	closed      bool
	wake        chan struct{} // holds a token while queue is not empty

	watchers sync.WaitGroup // goroutines of children
}

// order is a process to be started.
type order struct{ name, invocation string }

// New returns a service manager without services. now is the machine's
// Clock.Now.
func New(now func() time.Time) *Services {
	s := &Services{
		definitions: map[string]Definition{},
		children:    map[string]*child{},
		logs:        map[string]*ring{},
		wake:        make(chan struct{}, 1),
	}
	s.engine = units.NewEngine(hands{s}, now, func() string {
		var id [16]byte
		rand.Read(id[:]) // never fails, by its documentation
		return hex.EncodeToString(id[:])
	})
	return s
}

// Units lists the defined services.
func (s *Services) Units(ctx context.Context, patterns ...string) ([]machine.Unit, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list units: %w", err)
	}
	return s.engine.Board.List(patterns)
}

// Unit returns one service, LoadState not-found where there is none.
func (s *Services) Unit(ctx context.Context, name string) (machine.Unit, error) {
	if err := ctx.Err(); err != nil {
		return machine.Unit{}, fmt.Errorf("unit %s: %w", name, err)
	}
	return s.engine.Board.Get(name), nil
}

// Watch tells the present states, and then each change at once.
func (s *Services) Watch(ctx context.Context, emit func(machine.Unit), patterns ...string) error {
	return s.engine.Board.Watch(ctx, emit, patterns...)
}

// Start starts a service and waits until it is ready.
func (s *Services) Start(ctx context.Context, name string) (machine.JobResult, error) {
	return s.do(ctx, "start", name, machine.BySelf)
}

// Stop stops a service: SIGTERM, and SIGKILL after its StopTimeout.
func (s *Services) Stop(ctx context.Context, name string) (machine.JobResult, error) {
	return s.do(ctx, "stop", name, machine.BySelf)
}

// StopAsPerson stops a service in the name of whoever asked for it; it then
// shows as stopped by a person.
func (s *Services) StopAsPerson(ctx context.Context, name string) (machine.JobResult, error) {
	return s.do(ctx, "stop", name, machine.ByPerson)
}

// Restart stops a service, if it runs, and starts it.
func (s *Services) Restart(ctx context.Context, name string) (machine.JobResult, error) {
	return s.do(ctx, "restart", name, machine.BySelf)
}

// Reload sends the service the signal of its definition. That it was sent is all
// that is known: the job is done then.
func (s *Services) Reload(ctx context.Context, name string) (machine.JobResult, error) {
	return s.do(ctx, "reload", name, machine.BySelf)
}

func (s *Services) do(ctx context.Context, kind, name, by string) (machine.JobResult, error) {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed && kind != "stop" {
		return machine.JobResult{}, fmt.Errorf("%s %s: %w", kind, name, errStopped)
	}
	return s.engine.Do(ctx, kind, name, by)
}

// ResetFailed makes a failed service inactive.
func (s *Services) ResetFailed(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("reset-failed %s: %w", name, err)
	}
	return s.engine.ResetFailed(name)
}

// Kill sends a signal to the main process.
func (s *Services) Kill(ctx context.Context, name string, signal int) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("kill %s: %w", name, err)
	}
	return s.engine.Kill(name, signal)
}

// DaemonReload does nothing: definitions are changed by Define.
func (s *Services) DaemonReload(ctx context.Context) error { return ctx.Err() }

// Log returns the last lines that the service wrote since it was last started.
func (s *Services) Log(ctx context.Context, name string, lines int) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("log of %s: %w", name, err)
	}
	s.mu.Lock()
	r := s.logs[name]
	s.mu.Unlock()
	if r == nil {
		return nil, fmt.Errorf("log of %s: no such unit: %w", name, fs.ErrNotExist)
	}
	return r.last(lines), nil
}
