package systemd

import (
	"context"
	"syscall"

	"fettle/internal/fettle"
)

// kill is SIGKILL to the main process.
type kill struct{ *instance }

// Inject implements fettle.Fault.
func (f kill) Inject(ctx context.Context, target fettle.Subject, _ fettle.Facts) (fettle.Injected, error) {
	if err := f.m.Services.Kill(ctx, target.Name(), int(syscall.SIGKILL)); err != nil {
		return nil, fail("systemd.kill", target, err)
	}
	return revert(func(ctx context.Context) error {
		u, err := f.m.Services.Unit(ctx, target.Name())
		if err != nil {
			return fail("revert systemd.kill", target, err)
		}
		if u.ActiveState == "active" {
			return nil
		}
		r, err := f.m.Services.Start(ctx, target.Name())
		return jobDone("revert systemd.kill", target, r, err)
	}), nil
}

// freeze is SIGSTOP to the main process.
type freeze struct{ *instance }

// Inject implements fettle.Fault.
func (f freeze) Inject(ctx context.Context, target fettle.Subject, _ fettle.Facts) (fettle.Injected, error) {
	if err := f.m.Services.Kill(ctx, target.Name(), int(syscall.SIGSTOP)); err != nil {
		return nil, fail("systemd.freeze", target, err)
	}
	return revert(func(ctx context.Context) error {
		if err := f.m.Services.Kill(ctx, target.Name(), int(syscall.SIGCONT)); err != nil {
			return fail("revert systemd.freeze", target, err)
		}
		return nil
	}), nil
}

type revert func(context.Context) error

func (r revert) Revert(ctx context.Context) error { return r(ctx) }
