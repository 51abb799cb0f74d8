package filesystem

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"math"
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
	err = writeAll(ctx, w, math.MaxInt64)
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

// writeAll writes zeros until there are that many, or no more fit: then its error
// is ENOSPC. Large blocks first, then smaller ones, until not even the smallest
// fits.
func writeAll(ctx context.Context, w io.Writer, bytes int64) error {
	var err error
	for block := make([]byte, 1<<20); len(block) >= 4096; block = block[:len(block)/2] {
		for err = nil; err == nil && bytes > 0; {
			if err = ctx.Err(); err != nil {
				return err
			}
			var n int
			n, err = w.Write(block[:min(int64(len(block)), bytes)])
			bytes -= int64(n)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			break
		}
	}
	return err
}

type revert func(context.Context) error

func (r revert) Revert(ctx context.Context) error { return r(ctx) }
