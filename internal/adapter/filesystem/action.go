package filesystem

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

func fail(op string, s fettle.Subject, err error) error {
	e := &fettle.Error{Op: op, Subject: s, Class: fettle.Broken, Err: err}
	var known *fettle.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, fs.ErrPermission):
		e.Class, e.Hint = fettle.Denied, "the agent needs root for this"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, machine.ErrHung), errors.Is(err, machine.ErrLost):
		e.Class = fettle.NoAnswer
	}
	return e
}

// gone makes the receipt of files that were let go by policy.
func gone(files []file) []fettle.Receipt {
	out := make([]fettle.Receipt, 0, len(files))
	for _, f := range files {
		out = append(out, fettle.Receipt{What: f.path, Bytes: f.stat.Allocated})
	}
	return out
}

func result(files []file, what string) fettle.Result {
	r := gone(files)
	if len(r) == 0 {
		// S5 wants a receipt also for nothing: it says that nothing went.
		r = []fettle.Receipt{{What: "nothing: no " + what + " were left to let go"}}
	}
	return fettle.Result{
		Outputs: fettle.Facts{"freed_bytes": total(files)}, Receipts: r,
		Notes: []string{fmt.Sprintf("let go %d %s, %d bytes", len(files), what, total(files))},
	}
}

// leftToDo is the answer of Recover for actions that are done when nothing is
// left to let go. While something is, it is as if never done: doing the rest
// under another key harms nothing.
func leftToDo(left bool) (fettle.Fate, fettle.Result, error) {
	if left {
		return fettle.NeverWillBe, fettle.Result{}, nil
	}
	return fettle.Done, fettle.Result{
		Outputs:  fettle.Facts{"freed_bytes": int64(0)},
		Receipts: []fettle.Receipt{{What: "unknown: the answer was lost; nothing of its kind is left"}},
	}, nil
}

func lost(op string, s fettle.Subject, err error) (fettle.Fate, fettle.Result, error) {
	return fettle.UnknownFate, fettle.Result{}, fail(op, s, err)
}

type cleanPackageCache struct{ *instance }

func (a cleanPackageCache) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	files, err := a.all(ctx, step.Target)
	if err != nil {
		return fettle.Preview{}, fail(step.Action, step.Target, err)
	}
	return fettle.Preview{Would: []string{fmt.Sprintf("remove %d downloaded packages, %d bytes", len(files), total(files))}}, nil
}

func (a cleanPackageCache) all(ctx context.Context, s fettle.Subject) ([]file, error) {
	mt, err := a.mountOf(ctx, s)
	if err != nil {
		return nil, err
	}
	return a.packages(ctx, mt.Device)
}

func (a cleanPackageCache) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	op, s := d.Step.Action, d.Step.Target
	files, err := a.all(ctx, s)
	if err != nil {
		return fettle.Result{}, fail(op, s, err)
	}
	if err := a.idle(ctx, op, s); err != nil {
		return fettle.Result{}, err
	}
	var done []file
	for _, f := range files {
		err := a.m.Files.Remove(ctx, f.path)
		switch {
		case err == nil:
			done = append(done, f)
		case !errors.Is(err, fs.ErrNotExist): // somebody else cleaned it: not ours to count
			return result(done, "packages"), fail(op, s, err)
		}
	}
	return result(done, "packages"), nil
}

// installers are the programs that install from the cache: what they have
// fetched and not yet unpacked is not disposable.
var installers = []string{"apt", "apt-get", "aptitude", "dpkg"}

// idle refuses while packages are being installed.
func (a cleanPackageCache) idle(ctx context.Context, op string, s fettle.Subject) error {
	list, err := a.m.Processes.List(ctx)
	if err != nil {
		return fail(op, s, err)
	}
	for _, p := range list {
		if slices.Contains(installers, p.Command) {
			return fettle.Refuse(op, s, "wait until it has ended", "process %d (%s) is installing packages", p.PID, p.Command)
		}
	}
	return nil
}

func (a cleanPackageCache) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	files, err := a.all(ctx, d.Step.Target)
	if err != nil {
		return lost(d.Step.Action, d.Step.Target, err)
	}
	return leftToDo(len(files) > 0)
}

func (a cleanPackageCache) Undo(context.Context, fettle.Dispatch) (fettle.Result, error) {
	return fettle.Result{}, fettle.ErrNotSupported
}
