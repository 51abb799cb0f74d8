package filesystem

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"fettle/internal/fettle"
)

// compressLogs replaces rotated logs by compressed copies.
type compressLogs struct{ *instance }

func (a compressLogs) all(ctx context.Context, s fettle.Subject) ([]file, error) {
	mt, err := a.mountOf(ctx, s)
	if err != nil {
		return nil, err
	}
	return a.rotatedLogs(ctx, mt.Device)
}

func (a compressLogs) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	files, err := a.all(ctx, step.Target)
	if err != nil {
		return fettle.Preview{}, fail(step.Action, step.Target, err)
	}
	return fettle.Preview{Would: []string{fmt.Sprintf("compress %d rotated logs, %d bytes", len(files), total(files))}}, nil
}

// Apply compresses the smallest first: on a full filesystem each makes the room
// that the next one needs.
func (a compressLogs) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	op, s := d.Step.Action, d.Step.Target
	files, err := a.all(ctx, s)
	if err != nil {
		return fettle.Result{}, fail(op, s, err)
	}
	slices.SortFunc(files, func(x, y file) int {
		return cmp.Or(cmp.Compare(x.stat.Allocated, y.stat.Allocated), cmp.Compare(x.path, y.path))
	})
	r := fettle.Result{Outputs: fettle.Facts{"freed_bytes": int64(0)}}
	freed := int64(0)
	for _, f := range files {
		packed, err := a.pack(ctx, f)
		var left leftAsIs
		if errors.As(err, &left) {
			r.Notes = append(r.Notes, f.path+" stays as it is: "+left.why)
			continue
		}
		if err != nil {
			return r, fail(op, s, fmt.Errorf("compress %s: %w", f.path, err))
		}
		freed += f.stat.Allocated - packed
		r.Outputs["freed_bytes"] = freed
		r.Receipts = append(r.Receipts, fettle.Receipt{What: f.path, Where: f.path + ".gz", Bytes: f.stat.Allocated, Back: "gunzip " + quoted(f.path+".gz")})
	}
	r.Notes = append(r.Notes, fmt.Sprintf("compressed %d rotated logs, %d bytes freed", len(r.Receipts), freed))
	if len(r.Receipts) == 0 {
		r.Receipts = []fettle.Receipt{{What: "nothing: no rotated logs were left to compress"}}
	}
	return r, nil
}

// leftAsIs is why one log is not compressed and the others are.
type leftAsIs struct{ why string }

func (l leftAsIs) Error() string { return l.why }

// pack compresses a log into a copy that has another name until it is known to
// hold everything, and only then lets the original go. It returns the copy's
// size. Cut off anywhere, it leaves the original, or both, and goes on from
// there when it is called again.
func (a compressLogs) pack(ctx context.Context, f file) (int64, error) {
	gz, temp := f.path+".gz", f.path+".gz.fettle-part"
	if err := a.m.Files.Remove(ctx, temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err // left by a call that was cut off
	}
	if there, err := a.m.Files.Stat(ctx, gz); err == nil {
		return there.Allocated, a.packedBefore(ctx, f, gz)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	packed, err := a.copy(ctx, f, temp)
	if err == nil {
		err = a.m.Files.Rename(ctx, temp, gz)
	}
	if err != nil {
		rerr := a.m.Files.Remove(context.WithoutCancel(ctx), temp)
		if rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
		return 0, err
	}
	return packed, a.m.Files.Remove(ctx, f.path)
}

// packedBefore lets the original go if the copy beside it holds the same, as
// after a call that was cut off in between.
func (a compressLogs) packedBefore(ctx context.Context, f file, gz string) error {
	sum, err := a.sum(ctx, f.path)
	if err != nil {
		return err
	}
	if err := a.verify(ctx, gz, sum); err != nil {
		if ctx.Err() != nil {
			return err
		}
		return leftAsIs{gz + " is there already and is not its copy"}
	}
	if err := a.unchanged(ctx, f); err != nil {
		return err
	}
	return a.m.Files.Remove(ctx, f.path)
}

// copy makes a verified copy and returns its size on disk.
func (a compressLogs) copy(ctx context.Context, f file, temp string) (int64, error) {
	sum, err := a.write(ctx, f, temp)
	if err != nil {
		return 0, err
	}
	if err := a.verify(ctx, temp, sum); err != nil {
		return 0, err
	}
	if err := a.m.Files.Chown(ctx, temp, f.stat.UID, f.stat.GID, false); err != nil {
		return 0, err
	}
	packed, err := a.m.Files.Stat(ctx, temp)
	if err != nil {
		return 0, err
	}
	if packed.Allocated >= f.stat.Allocated {
		return 0, leftAsIs{"compressed it is no smaller"}
	}
	return packed.Allocated, a.unchanged(ctx, f)
}

// unchanged says so if somebody wrote to a log since it was listed: a daemon
// that was not told of the rotation writes on, and its lines are in no copy.
func (a compressLogs) unchanged(ctx context.Context, f file) error {
	now, err := a.m.Files.Stat(ctx, f.path)
	if err != nil {
		return err
	}
	if now.Inode != f.stat.Inode || now.Bytes != f.stat.Bytes || !now.Modified.Equal(f.stat.Modified) {
		return leftAsIs{"it is still being written to"}
	}
	return nil
}

func (a compressLogs) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	files, err := a.all(ctx, d.Step.Target)
	if err != nil {
		return lost(d.Step.Action, d.Step.Target, err)
	}
	return leftToDo(len(files) > 0)
}

func (a compressLogs) Undo(context.Context, fettle.Dispatch) (fettle.Result, error) {
	return fettle.Result{}, fettle.ErrNotSupported
}
