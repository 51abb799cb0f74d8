package filesystem

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"path"
	"syscall"

	"fettle/internal/fettle"
)

// holdName is what the file was called that the fault holds open.
const holdName = ".fettle-fault-held"

// holdDeleted holds a file open that has no name any more.
type holdDeleted struct{ *instance }

// Inject implements fettle.Fault. The name goes before the first byte is written:
// whenever this process dies, the kernel reverts the fault.
func (f holdDeleted) Inject(ctx context.Context, target fettle.Subject, params fettle.Facts) (fettle.Injected, error) {
	const op = "filesystem.hold_deleted"
	bytes, some := params.Int("bytes")
	switch {
	case some && bytes <= 0:
		return nil, fettle.Refuse(op, target, "leave it out to take all that is left", "bytes is %d", bytes)
	case !some:
		bytes = math.MaxInt64
	}
	mt, err := f.mountOf(ctx, target)
	if err != nil {
		return nil, err
	}
	p := path.Join(mt.Point, holdName)
	w, err := f.m.Files.Create(ctx, p, 0o600)
	if errors.Is(err, fs.ErrExist) { // left behind, empty, by one who died before he took its name away
		if err = f.m.Files.Remove(ctx, p); err == nil {
			w, err = f.m.Files.Create(ctx, p, 0o600)
		}
	}
	if err != nil {
		return nil, fail(op, target, err)
	}
	back := revert(func(context.Context) error {
		if err := w.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
			return fail("revert "+op, target, err)
		}
		return nil
	})
	if err := f.m.Files.Remove(ctx, p); err != nil {
		return nil, fail(op, target, errors.Join(err, back(ctx)))
	}
	err = writeAll(ctx, w, bytes)
	full := errors.Is(err, syscall.ENOSPC)
	if err == nil || full {
		err = w.Sync() // the room is taken when the blocks are, not when the kernel has the bytes
	}
	switch {
	case err == nil || full && errors.Is(err, syscall.ENOSPC):
		return back, nil
	default:
		return nil, fail(op, target, errors.Join(err, back(ctx)))
	}
}
