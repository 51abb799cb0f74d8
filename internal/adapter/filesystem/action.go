package filesystem

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"syscall"

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
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
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
		r = []fettle.Receipt{{What: "nothing: no " + what + " was left to let go"}}
	}
	return fettle.Result{
		Outputs: fettle.Facts{"freed_bytes": total(files)}, Receipts: r,
		Notes: []string{fmt.Sprintf("let go %d %s, %d bytes", len(files), what, total(files))},
	}
}

// leftToDo is the answer of Recover for actions that are done when nothing is
// left to let go: doing the rest under another key harms nothing.
func leftToDo(n int) (fettle.Fate, fettle.Result, error) {
	if n > 0 {
		return fettle.NeverWillBe, fettle.Result{}, nil
	}
	return fettle.Done, fettle.Result{
		Outputs:  fettle.Facts{"freed_bytes": int64(0)},
		Receipts: []fettle.Receipt{{What: "unknown: the answer was lost; nothing of its kind is left"}},
	}, nil
}

type vacuumJournal struct{ *instance }

func (a vacuumJournal) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	mt, err := a.mountOf(ctx, step.Target)
	if err != nil {
		return fettle.Preview{}, fail(step.Action, step.Target, err)
	}
	keep, _ := step.Params.Int("keep_bytes")
	files := a.journalFiles(ctx, mt.Device)
	return fettle.Preview{Would: []string{fmt.Sprintf("rotate the journal and let go its oldest archived files until %d of %d bytes are left", keep, total(files))}}, nil
}

func (a vacuumJournal) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	op, s := d.Step.Action, d.Step.Target
	mt, err := a.mountOf(ctx, s)
	if err != nil {
		return fettle.Result{}, fail(op, s, err)
	}
	keep, ok := d.Step.Params.Int("keep_bytes")
	if !ok || keep < 0 {
		return fettle.Result{}, fettle.Refuse(op, s, "give keep_bytes", "how much of the journal stays was not said")
	}
	before := a.journalFiles(ctx, mt.Device)
	for _, args := range a.vacuumCommands(keep) {
		out, err := a.m.Commands.Run(ctx, machine.Command{Path: "journalctl", Args: args})
		if err != nil {
			return fettle.Result{}, fail(op, s, err)
		}
		if out.Exit != 0 {
			return fettle.Result{}, fail(op, s, fmt.Errorf("journalctl %v: exit %d: %s", args, out.Exit, out.Stderr))
		}
	}
	return result(missing(before, a.journalFiles(ctx, mt.Device)), "journal files"), nil
}

// vacuumCommands are journalctl's argument lists. Rotating first archives what
// is being written, for only archived files can go.
func (a vacuumJournal) vacuumCommands(keep int64) [][]string {
	list := [][]string{{"--rotate"}}
	for _, dir := range a.config.JournalDirs {
		list = append(list, []string{"--directory=" + dir, "--vacuum-size=" + strconv.FormatInt(keep, 10)})
	}
	return list
}

func (a vacuumJournal) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	mt, err := a.mountOf(ctx, d.Step.Target)
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, fail(d.Step.Action, d.Step.Target, err)
	}
	keep, _ := d.Step.Params.Int("keep_bytes")
	if total(a.journalFiles(ctx, mt.Device)) > keep {
		return leftToDo(1)
	}
	return leftToDo(0)
}

func (a vacuumJournal) Undo(context.Context, fettle.Dispatch) (fettle.Result, error) {
	return fettle.Result{}, fettle.ErrNotSupported
}

// missing returns the files of before that are not in after.
func missing(before, after []file) []file {
	var out []file
	for _, f := range before {
		if !slices.ContainsFunc(after, func(g file) bool { return g.path == f.path && g.stat.Inode == f.stat.Inode }) {
			out = append(out, f)
		}
	}
	return out
}

type cleanPackageCache struct{ *instance }

func (a cleanPackageCache) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	mt, err := a.mountOf(ctx, step.Target)
	if err != nil {
		return fettle.Preview{}, fail(step.Action, step.Target, err)
	}
	files := a.packages(ctx, mt.Device)
	return fettle.Preview{Would: []string{fmt.Sprintf("remove %d downloaded packages, %d bytes", len(files), total(files))}}, nil
}

func (a cleanPackageCache) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	mt, err := a.mountOf(ctx, d.Step.Target)
	if err != nil {
		return fettle.Result{}, fail(d.Step.Action, d.Step.Target, err)
	}
	var done []file
	for _, f := range a.packages(ctx, mt.Device) {
		if err := a.m.Files.Remove(ctx, f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			r := result(done, "packages")
			return r, fail(d.Step.Action, d.Step.Target, err)
		}
		done = append(done, f)
	}
	return result(done, "packages"), nil
}

func (a cleanPackageCache) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	mt, err := a.mountOf(ctx, d.Step.Target)
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, fail(d.Step.Action, d.Step.Target, err)
	}
	return leftToDo(len(a.packages(ctx, mt.Device)))
}

func (a cleanPackageCache) Undo(context.Context, fettle.Dispatch) (fettle.Result, error) {
	return fettle.Result{}, fettle.ErrNotSupported
}

type askReopen struct{ *instance }

func (a askReopen) Preview(_ context.Context, step fettle.Step) (fettle.Preview, error) {
	unit, _ := step.Params.Str("unit")
	if sig, ok := a.config.reopenSignal(unit); ok {
		return fettle.Preview{Would: []string{fmt.Sprintf("send %v to %s, on which it reopens its files", sig, unit)}}, nil
	}
	return fettle.Preview{Would: []string{"ask " + unit + " to reload"}}, nil
}

func (a askReopen) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	op, s := d.Step.Action, d.Step.Target
	unit, _ := d.Step.Params.Str("unit")
	pid, _ := d.Step.Params.Int("pid")
	if unit == "" {
		return fettle.Result{}, fettle.Refuse(op, s, "end it by hand, if it may end", "process %d is in no unit, so nobody knows how to ask it", pid)
	}
	if sig, ok := a.config.reopenSignal(unit); ok {
		if err := a.signal(ctx, int(pid), unit, sig); err != nil {
			return fettle.Result{}, fail(op, s, err)
		}
		return fettle.Result{Notes: []string{fmt.Sprintf("sent %v to %s (process %d)", sig, unit, pid)}}, nil
	}
	r, err := a.m.Services.Reload(ctx, unit)
	if err != nil {
		return fettle.Result{}, &fettle.Error{Op: op, Subject: s, Class: fettle.Broken, Err: err, Hint: "restart " + unit + " by hand, or name its signal under `reopen` in the configuration"}
	}
	if r.Result != "done" {
		return fettle.Result{}, &fettle.Error{Op: op, Subject: s, Class: fettle.Broken, Err: fmt.Errorf("the reload of %s ended with %q", unit, r.Result), Hint: "restart it by hand"}
	}
	return fettle.Result{Notes: []string{"asked " + unit + " to reload"}}, nil
}

// signal sends a signal to the very process that was seen to hold the file.
func (a askReopen) signal(ctx context.Context, pid int, unit string, sig syscall.Signal) error {
	list, err := a.m.Processes.List(ctx)
	if err != nil {
		return err
	}
	for _, p := range list {
		if p.PID == pid && p.UnitName == unit {
			return a.m.Processes.Signal(ctx, pid, p.StartTicks, int(sig))
		}
	}
	return fmt.Errorf("process %d of %s: %w", pid, unit, machine.ErrOtherProcess)
}

// Recover: asking twice harms nothing, and asking leaves no trace.
func (a askReopen) Recover(context.Context, fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	return fettle.NeverWillBe, fettle.Result{}, nil
}

func (a askReopen) Undo(context.Context, fettle.Dispatch) (fettle.Result, error) {
	return fettle.Result{}, fettle.ErrNotSupported
}
