package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// fail turns an error of the service manager into one with a class and a hint.
func fail(op string, s fettle.Subject, err error) error {
	e := &fettle.Error{Op: op, Subject: s, Class: fettle.Broken, Err: err, Hint: "systemctl status " + s.Name() + " on its host"}
	switch {
	case errors.Is(err, fs.ErrPermission):
		e.Class, e.Hint = fettle.Denied, "the agent needs the right to manage units"
	case errors.Is(err, machine.ErrMasked):
		e.Class, e.Hint = fettle.Refused, "somebody masked it; systemctl unmask, if that is no longer meant"
	case errors.Is(err, machine.ErrLost), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		e.Class = fettle.NoAnswer
	case errors.Is(err, fettle.ErrNotSupported):
		e.Class = fettle.Unsupported
	}
	return e
}

// jobDone turns a job's end into an error unless it was done.
func jobDone(op string, s fettle.Subject, r machine.JobResult, err error) error {
	if err != nil {
		return fail(op, s, err)
	}
	if r.Result != "done" && r.Result != "skipped" {
		return fail(op, s, fmt.Errorf("the job ended with %q", r.Result))
	}
	return nil
}

func (i *instance) preview(ctx context.Context, op string, s fettle.Subject, would string) (fettle.Preview, error) {
	u, err := i.m.Services.Unit(ctx, s.Name())
	if err != nil {
		return fettle.Preview{}, fail(op, s, err)
	}
	return fettle.Preview{Would: []string{fmt.Sprintf("%s %s, which is %s (%s, result %s)", would, u.Name, u.ActiveState, u.SubState, u.Result)}}, nil
}

// invocation is what identifies the start that a step made.
func (i *instance) invocation(ctx context.Context, unit string) fettle.Facts {
	u, err := i.m.Services.Unit(ctx, unit)
	if err != nil {
		return nil
	}
	return fettle.Facts{"invocation_id": u.InvocationID}
}

// before returns the invocation that the plan was made on, pinned by the step.
func before(d fettle.Dispatch) (string, bool) {
	for _, g := range d.Step.Generations {
		if g.Subject == d.Step.Target && g.Fact == "invocation_id" {
			id, ok := g.Value.(string)
			return id, ok
		}
	}
	return "", false
}

// became tells from the manager's own state what became of a job that brings
// the unit up under a new invocation.
func (i *instance) became(ctx context.Context, op string, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	u, err := i.m.Services.Unit(ctx, d.Step.Target.Name())
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, fail(op, d.Step.Target, err)
	}
	was, pinned := before(d)
	switch {
	case u.Job != "" || u.ActiveState == "activating":
		return fettle.Running, fettle.Result{}, nil
	case !pinned:
		return fettle.UnknownFate, fettle.Result{}, nil
	case u.InvocationID != was:
		return fettle.Done, fettle.Result{Outputs: fettle.Facts{"invocation_id": u.InvocationID}, Notes: []string{"it was started anew"}}, nil
	}
	return fettle.NeverWillBe, fettle.Result{}, nil
}

type start struct{ *instance }

func (a start) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	return a.preview(ctx, step.Action, step.Target, "start")
}

func (a start) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	name := d.Step.Target.Name()
	r, err := a.m.Services.Start(ctx, name)
	if err := jobDone(d.Step.Action, d.Step.Target, r, err); err != nil {
		return fettle.Result{}, err
	}
	return fettle.Result{
		Outputs: a.invocation(ctx, name),
		Notes:   []string{fmt.Sprintf("start job issued at %s, done after %v", r.Issued.Format("15:04:05.000000"), r.Took)},
	}, nil
}

func (a start) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	return a.became(ctx, d.Step.Action, d)
}

func (a start) Undo(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	r, err := a.m.Services.Stop(ctx, d.Step.Target.Name())
	return fettle.Result{}, jobDone("undo "+d.Step.Action, d.Step.Target, r, err)
}

type stop struct{ *instance }

func (a stop) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	return a.preview(ctx, step.Action, step.Target, "stop")
}

func (a stop) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	r, err := a.m.Services.Stop(ctx, d.Step.Target.Name())
	return fettle.Result{}, jobDone(d.Step.Action, d.Step.Target, r, err)
}

func (a stop) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	u, err := a.m.Services.Unit(ctx, d.Step.Target.Name())
	switch {
	case err != nil:
		return fettle.UnknownFate, fettle.Result{}, fail(d.Step.Action, d.Step.Target, err)
	case u.Job != "" || u.ActiveState == "deactivating":
		return fettle.Running, fettle.Result{}, nil
	case u.ActiveState == "inactive" || u.ActiveState == "failed":
		return fettle.Done, fettle.Result{}, nil
	}
	return fettle.NeverWillBe, fettle.Result{}, nil
}

func (a stop) Undo(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	r, err := a.m.Services.Start(ctx, d.Step.Target.Name())
	return fettle.Result{}, jobDone("undo "+d.Step.Action, d.Step.Target, r, err)
}

type restart struct{ *instance }

func (a restart) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	return a.preview(ctx, step.Action, step.Target, "restart")
}

func (a restart) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	name := d.Step.Target.Name()
	r, err := a.m.Services.Restart(ctx, name)
	if err := jobDone(d.Step.Action, d.Step.Target, r, err); err != nil {
		return fettle.Result{}, err
	}
	return fettle.Result{Outputs: a.invocation(ctx, name)}, nil
}

func (a restart) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	return a.became(ctx, d.Step.Action, d)
}

func (a restart) Undo(context.Context, fettle.Dispatch) (fettle.Result, error) {
	return fettle.Result{}, fettle.ErrNotSupported
}

type resetFailed struct{ *instance }

func (a resetFailed) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	return a.preview(ctx, step.Action, step.Target, "forget the failure of")
}

func (a resetFailed) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	if err := a.m.Services.ResetFailed(ctx, d.Step.Target.Name()); err != nil {
		return fettle.Result{}, fail(d.Step.Action, d.Step.Target, err)
	}
	return fettle.Result{}, nil
}

func (a resetFailed) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	u, err := a.m.Services.Unit(ctx, d.Step.Target.Name())
	switch {
	case err != nil:
		return fettle.UnknownFate, fettle.Result{}, fail(d.Step.Action, d.Step.Target, err)
	case u.ActiveState == "failed":
		return fettle.NeverWillBe, fettle.Result{}, nil
	}
	return fettle.Done, fettle.Result{}, nil
}

func (a resetFailed) Undo(context.Context, fettle.Dispatch) (fettle.Result, error) {
	return fettle.Result{}, fettle.ErrNotSupported
}

type reload struct{ *instance }

func (a reload) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	return a.preview(ctx, step.Action, step.Target, "reload")
}

func (a reload) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	r, err := a.m.Services.Reload(ctx, d.Step.Target.Name())
	return fettle.Result{}, jobDone(d.Step.Action, d.Step.Target, r, err)
}

// Recover: a reload leaves no trace in the manager, and doing it twice harms
// nothing, so unless its job is still queued it is as if never done.
func (a reload) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	u, err := a.m.Services.Unit(ctx, d.Step.Target.Name())
	switch {
	case err != nil:
		return fettle.UnknownFate, fettle.Result{}, fail(d.Step.Action, d.Step.Target, err)
	case u.Job != "":
		return fettle.Running, fettle.Result{}, nil
	}
	return fettle.NeverWillBe, fettle.Result{}, nil
}

func (a reload) Undo(context.Context, fettle.Dispatch) (fettle.Result, error) {
	return fettle.Result{}, fettle.ErrNotSupported
}
