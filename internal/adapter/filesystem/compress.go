package filesystem

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"fettle/internal/fettle"
)

// compressLogs replaces rotated logs by compressed copies.
type compressLogs struct{ *instance }

func (a compressLogs) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	mt, err := a.mountOf(ctx, step.Target)
	if err != nil {
		return fettle.Preview{}, fail(step.Action, step.Target, err)
	}
	files := a.rotatedLogs(ctx, mt.Device)
	return fettle.Preview{Would: []string{fmt.Sprintf("compress %d rotated logs, %d bytes", len(files), total(files))}}, nil
}

// Apply compresses the smallest first: on a full filesystem each makes the room
// that the next one needs.
func (a compressLogs) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	mt, err := a.mountOf(ctx, d.Step.Target)
	if err != nil {
		return fettle.Result{}, fail(d.Step.Action, d.Step.Target, err)
	}
	files := a.rotatedLogs(ctx, mt.Device)
	slices.SortFunc(files, func(x, y file) int { return int(min(max(x.stat.Allocated-y.stat.Allocated, -1), 1)) })
	r := fettle.Result{Outputs: fettle.Facts{"freed_bytes": int64(0)}}
	freed := int64(0)
	for _, f := range files {
		packed, err := a.one(ctx, f)
		if err != nil {
			return r, fail(d.Step.Action, d.Step.Target, fmt.Errorf("%s: %w", f.path, err))
		}
		freed += f.stat.Allocated - packed
		r.Outputs["freed_bytes"] = freed
		r.Receipts = append(r.Receipts, fettle.Receipt{What: f.path, Where: f.path + ".gz", Bytes: f.stat.Allocated, Back: "gunzip " + f.path + ".gz"})
	}
	if len(files) == 0 {
		r.Receipts = []fettle.Receipt{{What: "nothing: no rotated logs were left to compress"}}
	}
	r.Notes = []string{fmt.Sprintf("compressed %d rotated logs, %d bytes freed", len(files), freed)}
	return r, nil
}

// one compresses a file, reads the copy back, and only then lets the original
// go. It returns the copy's size.
func (a compressLogs) one(ctx context.Context, f file) (int64, error) {
	gz := f.path + ".gz"
	sum, err := a.write(ctx, f, gz)
	if err == nil {
		err = a.verify(ctx, gz, sum)
	}
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			return 0, err // not ours
		}
		return 0, errors.Join(err, a.m.Files.Remove(ctx, gz))
	}
	if err := a.m.Files.Chown(ctx, gz, f.stat.UID, f.stat.GID, false); err != nil {
		return 0, err
	}
	packed, err := a.m.Files.Stat(ctx, gz)
	if err != nil {
		return 0, err
	}
	return packed.Allocated, a.m.Files.Remove(ctx, f.path)
}

func (a compressLogs) write(ctx context.Context, f file, gz string) ([]byte, error) {
	in, err := a.m.Files.Open(ctx, f.path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	out, err := a.m.Files.Create(ctx, gz, f.stat.Mode.Perm())
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	buffered := bufio.NewWriterSize(out, 1<<20)
	z := gzip.NewWriter(buffered)
	_, err = io.Copy(io.MultiWriter(z, h), in)
	err = errors.Join(err, z.Close(), buffered.Flush(), out.Sync(), out.Close())
	return h.Sum(nil), err
}

func (a compressLogs) verify(ctx context.Context, gz string, want []byte) error {
	in, err := a.m.Files.Open(ctx, gz)
	if err != nil {
		return err
	}
	defer in.Close()
	z, err := gzip.NewReader(bufio.NewReader(in))
	if err != nil {
		return err
	}
	h := sha256.New()
	if _, err := io.Copy(h, z); err != nil { //nolint:gosec // our own output, as long as its input
		return err
	}
	if got := h.Sum(nil); string(got) != string(want) {
		return errors.New("the compressed copy does not hold what the original does")
	}
	return nil
}

func (a compressLogs) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	mt, err := a.mountOf(ctx, d.Step.Target)
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, fail(d.Step.Action, d.Step.Target, err)
	}
	return leftToDo(len(a.rotatedLogs(ctx, mt.Device)))
}

func (a compressLogs) Undo(context.Context, fettle.Dispatch) (fettle.Result, error) {
	return fettle.Result{}, fettle.ErrNotSupported
}
