package filesystem

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// askReopen asks the holder of a deleted file to open its files anew.
type askReopen struct{ *instance }

func (a askReopen) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	p, err := a.holder(ctx, step)
	if err != nil {
		return fettle.Preview{}, err
	}
	if sig, ok := a.config.reopenSignal(p.UnitName); ok {
		return fettle.Preview{Would: []string{fmt.Sprintf("send %v to process %d of %s, on which it reopens its files", sig, p.PID, p.UnitName)}}, nil
	}
	return fettle.Preview{Would: []string{"ask " + p.UnitName + " to reload"}}, nil
}

func (a askReopen) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	op, s := d.Step.Action, d.Step.Target
	p, err := a.holder(ctx, d.Step)
	if err != nil {
		return fettle.Result{}, err
	}
	if sig, ok := a.config.reopenSignal(p.UnitName); ok {
		if err := a.m.Processes.Signal(ctx, p.PID, p.StartTicks, int(sig)); err != nil {
			return fettle.Result{}, fail(op, s, err)
		}
		return fettle.Result{Notes: []string{fmt.Sprintf("sent %v to %s (process %d)", sig, p.UnitName, p.PID)}}, nil
	}
	r, err := a.m.Services.Reload(ctx, p.UnitName)
	if err == nil && r.Result != "done" {
		err = fmt.Errorf("the reload of %s ended with %q", p.UnitName, r.Result)
	}
	if err != nil {
		return fettle.Result{}, byHand(fail(op, s, err), p.UnitName)
	}
	return fettle.Result{Notes: []string{"asked " + p.UnitName + " to reload"}}, nil
}

func byHand(err error, unit string) error {
	var e *fettle.Error
	if errors.As(err, &e) && e.Hint == "" {
		e.Hint = "restart " + unit + " by hand, or name its signal under `reopen` in the configuration"
	}
	return err
}

// holder finds the very process that was seen to hold the file, and refuses if
// it is not, or no longer, of the unit that is to be asked.
func (a askReopen) holder(ctx context.Context, step fettle.Step) (machine.Process, error) {
	unit, _ := step.Params.Str("unit")
	pid, _ := step.Params.Int("pid")
	list, err := a.m.Processes.List(ctx)
	if err != nil {
		return machine.Process{}, fail(step.Action, step.Target, err)
	}
	n := slices.IndexFunc(list, func(p machine.Process) bool { return int64(p.PID) == pid })
	switch {
	case n < 0:
		return machine.Process{}, fettle.Refuse(step.Action, step.Target, "look again at who holds it", "process %d has ended", pid)
	case list[n].UnitName == "":
		return machine.Process{}, fettle.Refuse(step.Action, step.Target, "end it by hand, if it may end",
			"process %d (%s) is in no unit, so nobody knows how to ask it", pid, list[n].Command)
	case list[n].UnitName != unit:
		return machine.Process{}, fettle.Refuse(step.Action, step.Target, "look again at who holds it",
			"process %d is of %s, not of %q", pid, list[n].UnitName, unit)
	}
	return list[n], nil
}

// Recover asks the kernel whether the process still holds deleted files of this
// filesystem. Asking it twice harms nothing.
func (a askReopen) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	mt, err := a.mountOf(ctx, d.Step.Target)
	if err != nil {
		return lost(d.Step.Action, d.Step.Target, err)
	}
	open, err := a.m.Processes.DeletedOpen(ctx, mt.Device)
	if err != nil {
		return lost(d.Step.Action, d.Step.Target, err)
	}
	pid, _ := d.Step.Params.Int("pid")
	if slices.ContainsFunc(open, func(o machine.OpenFile) bool { return int64(o.Process.PID) == pid }) {
		return fettle.NeverWillBe, fettle.Result{}, nil
	}
	return fettle.Done, fettle.Result{Notes: []string{"it holds no deleted file here any more"}}, nil
}

func (a askReopen) Undo(context.Context, fettle.Dispatch) (fettle.Result, error) {
	return fettle.Result{}, fettle.ErrNotSupported
}
