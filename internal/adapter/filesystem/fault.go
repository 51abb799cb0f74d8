package filesystem

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"syscall"

	"fettle/internal/fettle"
)

// fillName is the file with which the fault fills a filesystem.
const fillName = ".fettle-fault-fill"

// fillUp fills a filesystem with one file of Fettle's own.
type fillUp struct{ *instance }

// Inject implements fettle.Fault.
func (f fillUp) Inject(ctx context.Context, target fettle.Subject, _ fettle.Facts) (fettle.Injected, error) {
	mt, err := f.mountOf(ctx, target)
	if err != nil {
		return nil, err
	}
	p := path.Join(mt.Point, fillName)
	w, err := f.m.Files.Create(ctx, p, 0o600)
	if err != nil {
		return nil, fail("filesystem.fill", target, err)
	}
	// Large blocks first, then smaller ones, until not even the smallest fits.
	for block := make([]byte, 1<<20); len(block) >= 4096; block = block[:len(block)/2] {
		for err = nil; err == nil && ctx.Err() == nil; {
			_, err = w.Write(block)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			break
		}
	}
	cerr := errors.Join(w.Sync(), w.Close())
	back := revert(func(ctx context.Context) error {
		if err := f.m.Files.Remove(ctx, p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fail("revert filesystem.fill", target, err)
		}
		return nil
	})
	if !errors.Is(err, syscall.ENOSPC) {
		return nil, fail("filesystem.fill", target, errors.Join(err, cerr, ctx.Err(), back(context.WithoutCancel(ctx))))
	}
	return back, nil
}

type revert func(context.Context) error

func (r revert) Revert(ctx context.Context) error { return r(ctx) }
