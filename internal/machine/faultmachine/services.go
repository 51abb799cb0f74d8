package faultmachine

import (
	"context"

	"fettle/internal/machine"
)

type services struct {
	m *Machine
	machine.Services
}

func (s services) Units(ctx context.Context, patterns ...string) ([]machine.Unit, error) {
	return get(ctx, s.m, "services.units", "", func() ([]machine.Unit, error) { return s.Services.Units(ctx, patterns...) })
}

func (s services) Unit(ctx context.Context, name string) (machine.Unit, error) {
	return get(ctx, s.m, "services.unit", name, func() (machine.Unit, error) { return s.Services.Unit(ctx, name) })
}

func (s services) Watch(ctx context.Context, emit func(machine.Unit), patterns ...string) error {
	return watch(ctx, s.m, "services.watch", func(u machine.Unit) string { return u.Name }, emit,
		func(ctx context.Context, emit func(machine.Unit)) error {
			return s.Services.Watch(ctx, emit, patterns...)
		})
}

func (s services) Start(ctx context.Context, name string) (machine.JobResult, error) {
	return get(ctx, s.m, "services.start", name, func() (machine.JobResult, error) { return s.Services.Start(ctx, name) })
}

func (s services) Stop(ctx context.Context, name string) (machine.JobResult, error) {
	return get(ctx, s.m, "services.stop", name, func() (machine.JobResult, error) { return s.Services.Stop(ctx, name) })
}

func (s services) Restart(ctx context.Context, name string) (machine.JobResult, error) {
	return get(ctx, s.m, "services.restart", name, func() (machine.JobResult, error) { return s.Services.Restart(ctx, name) })
}

func (s services) Reload(ctx context.Context, name string) (machine.JobResult, error) {
	return get(ctx, s.m, "services.reload", name, func() (machine.JobResult, error) { return s.Services.Reload(ctx, name) })
}

func (s services) ResetFailed(ctx context.Context, name string) error {
	return s.m.do(ctx, "services.resetfailed", name, func() error { return s.Services.ResetFailed(ctx, name) })
}

func (s services) Kill(ctx context.Context, name string, signal int) error {
	return s.m.do(ctx, "services.kill", name, func() error { return s.Services.Kill(ctx, name, signal) })
}

func (s services) DaemonReload(ctx context.Context) error {
	return s.m.do(ctx, "services.daemonreload", "", func() error { return s.Services.DaemonReload(ctx) })
}

func (s services) Log(ctx context.Context, name string, lines int) ([]string, error) {
	return get(ctx, s.m, "services.log", name, func() ([]string, error) { return s.Services.Log(ctx, name, lines) })
}
