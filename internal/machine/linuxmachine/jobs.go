package linuxmachine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/godbus/dbus/v5"

	"fettle/internal/machine"
)

func (s *services) Start(ctx context.Context, name string) (machine.JobResult, error) {
	return s.job(ctx, "StartUnit", name)
}

func (s *services) Stop(ctx context.Context, name string) (machine.JobResult, error) {
	return s.ownStop(ctx, name, func() (machine.JobResult, error) { return s.job(ctx, "StopUnit", name) })
}

func (s *services) Restart(ctx context.Context, name string) (machine.JobResult, error) {
	return s.job(ctx, "RestartUnit", name)
}

func (s *services) Reload(ctx context.Context, name string) (machine.JobResult, error) {
	return s.job(ctx, "ReloadUnit", name)
}

// job queues a job in mode "replace" and waits for its end or the context's; the
// job goes on without us.
func (s *services) job(ctx context.Context, method, name string) (machine.JobResult, error) {
	l, err := s.bus.connected(ctx)
	if err != nil {
		return machine.JobResult{}, fmt.Errorf("%s %s: %w", method, name, err)
	}
	ended, _, err := l.job(ctx, method, name)
	if err != nil {
		return machine.JobResult{}, fmt.Errorf("%s %s: %w", method, name, err)
	}
	r := machine.JobResult{Issued: s.clock.Now()}
	select {
	case r.Result = <-ended:
		r.Took = s.clock.Now().Sub(r.Issued)
		return r, nil
	case <-ctx.Done():
		return r, fmt.Errorf("%s %s: waiting for the job: %w", method, name, ctx.Err())
	case <-l.conn.Context().Done():
		return r, fmt.Errorf("%s %s: waiting for the job: %w", method, name, machine.ErrLost)
	}
}

// ownStop notes that this program stops the unit's present invocation, before it
// does, so that it knows its own stop again even if it dies in between.
func (s *services) ownStop(ctx context.Context, name string, stop func() (machine.JobResult, error)) (machine.JobResult, error) {
	l, err := s.bus.connected(ctx)
	if err != nil {
		return machine.JobResult{}, fmt.Errorf("StopUnit %s: %w", name, err)
	}
	invocation := ""
	var v dbus.Variant
	if l.call(ctx, unitPath(name), propertyIface+".Get", unitIface, "InvocationID").Store(&v) == nil {
		var st unitState
		st.set("InvocationID", v)
		invocation = st.unit.InvocationID
	}
	if invocation == "" {
		return stop()
	}
	s.stops.own(name, invocation)
	r, err := stop()
	if err != nil && r.Issued.IsZero() { // it was never queued
		s.stops.disown(name, invocation)
	}
	return r, err
}

func (s *services) ResetFailed(ctx context.Context, name string) error {
	return s.manage(ctx, "ResetFailedUnit", name, nil, name)
}

// Kill sends a signal to the main process.
func (s *services) Kill(ctx context.Context, name string, signal int) error {
	return s.manage(ctx, "KillUnit", name, machine.ErrNotRunning, name, "main", int32(signal))
}

// manage calls a method of the manager that works on loaded units only. Of a unit
// that exists and is not loaded the answer is idle.
func (s *services) manage(ctx context.Context, method, name string, idle error, args ...any) error {
	l, err := s.bus.connected(ctx)
	if err == nil {
		err = explain(l.call(ctx, systemdPath, managerIface+"."+method, args...).Err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		u, unitErr := s.Unit(ctx, name)
		if unitErr == nil && u.LoadState != "not-found" {
			err = idle
		}
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, name, err)
	}
	return nil
}

func (s *services) DaemonReload(ctx context.Context) error {
	l, err := s.bus.connected(ctx)
	if err == nil {
		err = explain(l.call(ctx, systemdPath, managerIface+".Reload").Err)
	}
	if err != nil {
		return fmt.Errorf("daemon-reload: %w", err)
	}
	return nil
}
