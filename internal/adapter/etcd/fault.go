package etcd

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"fettle/internal/fettle"
)

// reverting makes a function an injected fault.
type reverting func(context.Context) error

// Revert implements fettle.Injected.
func (r reverting) Revert(ctx context.Context) error { return r(ctx) }

// startTimeout is how long a fault waits for a service to start.
const startTimeout = 40 * time.Second

// tryStart starts the service and takes no notice of how that ends: with its data
// gone or damaged it fails, and that is the fault. It waits no longer than a
// member with its data takes.
func (in *instance) tryStart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	_, err := in.m.Services.Start(ctx, in.config.Unit)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

func (in *instance) stopService(ctx context.Context) error {
	r, err := in.m.Services.Stop(ctx, in.config.Unit)
	if err == nil && r.Result != "done" {
		err = fmt.Errorf("the stop of %s ended as %q", in.config.Unit, r.Result)
	}
	return err
}

// stamp names what a fault sets aside.
func (in *instance) stamp() string {
	return "fault-" + strconv.FormatInt(in.m.Clock.Wall().UnixMilli(), 36)
}

// killFault is etcd.kill.
type killFault struct{ *cluster }

// Inject implements fettle.Fault.
func (f killFault) Inject(ctx context.Context, target fettle.Subject, _ fettle.Facts) (fettle.Injected, error) {
	in, err := f.here("etcd.kill", target)
	if err != nil {
		return nil, err
	}
	if err := in.m.Services.Kill(ctx, in.config.Unit, int(syscall.SIGKILL)); err != nil {
		return nil, classOr("etcd.kill", target, err)
	}
	return reverting(func(ctx context.Context) error {
		u, err := in.m.Services.Unit(ctx, in.config.Unit)
		if err == nil && !serves(u) {
			err = in.tryStart(ctx)
		}
		return classOr("revert etcd.kill", target, err)
	}), nil
}

// wipeFault is etcd.wipe.
type wipeFault struct{ *cluster }

// Inject implements fettle.Fault.
func (f wipeFault) Inject(ctx context.Context, target fettle.Subject, _ fettle.Facts) (fettle.Injected, error) {
	const op = "etcd.wipe"
	in, err := f.here(op, target)
	if err != nil {
		return nil, err
	}
	if err := in.stopService(ctx); err != nil {
		return nil, classOr(op, target, err)
	}
	data := in.data(ctx, false)
	if !data.Present {
		return nil, fettle.Refuse(op, target, "there is nothing to take away", "there is no %s", in.memberDir())
	}
	dir, err := in.asideFor(ctx, in.stamp())
	if err != nil {
		return nil, classOr(op, target, err)
	}
	if err := in.m.Files.MkdirAll(ctx, dir, 0o700); err != nil {
		return nil, classOr(op, target, err)
	}
	if err := in.m.Files.Rename(ctx, in.memberDir(), path.Join(dir, "member")); err != nil {
		return nil, classOr(op, target, err)
	}
	back := reverting(func(ctx context.Context) error {
		const op = "revert etcd.wipe"
		s, err := in.look(ctx)
		if err != nil {
			return classOr(op, target, err)
		}
		v, _ := s.round.of(in.member)
		if s.data.Present && s.data.State == logWhole || s.logState == logRunning || s.standing != "" && v.id != data.Member {
			return nil // it has been replaced: its old data is of no more use to it
		}
		if err := in.stopService(ctx); err != nil {
			return classOr(op, target, err)
		}
		if s.data.Present { // what a start without data left behind
			if err := in.m.Files.Rename(ctx, in.memberDir(), path.Join(dir, "left-behind")); err != nil {
				return classOr(op, target, err)
			}
		}
		if err := in.m.Files.Rename(ctx, path.Join(dir, "member"), in.memberDir()); err != nil {
			return classOr(op, target, err)
		}
		return classOr(op, target, in.tryStart(ctx))
	})
	return back, classOr(op, target, in.tryStart(ctx))
}

// fillFault is etcd.fill_quota.
type fillFault struct{ *cluster }

const (
	fillKey   = "fettle/fill-quota"
	fillBytes = 512 << 10 // well below the largest request that etcd takes (1.5 MiB)
	fillMost  = 1 << 14   // puts: 8 GiB, the largest quota that etcd suggests
)

// Inject implements fettle.Fault.
func (f fillFault) Inject(ctx context.Context, target fettle.Subject, _ fettle.Facts) (fettle.Injected, error) {
	const op = "etcd.fill_quota"
	if target != f.subject {
		return nil, fettle.Refuse(op, target, "", "this adapter looks after %s", f.subject)
	}
	revert := reverting(func(ctx context.Context) error {
		_, _, e, err := f.leader(ctx)
		if err == nil {
			_, err = e.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte(fillKey)})
		}
		return classOr("revert "+op, target, err)
	})
	_, _, e, err := f.leader(ctx)
	if err != nil {
		return nil, unseen(op, target, err)
	}
	value := make([]byte, fillBytes)
	for i := range value {
		value[i] = byte('a' + i%26)
	}
	for range fillMost {
		_, err := e.kv.Put(ctx, &pb.PutRequest{Key: []byte(fillKey), Value: value})
		switch sortError(err) {
		case fine:
		case noSpace:
			return revert, nil
		default:
			return revert, outcome(op, target, err)
		}
	}
	return revert, broken(op, target, fmt.Errorf("%d bytes were written, and the quota is not reached", int64(fillMost)*fillBytes), "is the quota larger than 8 GiB?")
}
