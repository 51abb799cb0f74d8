package execute

import (
	"context"
	"slices"
	"time"

	"fettle/internal/act/armed"
	"fettle/internal/fettle"
)

// Arms sets a revert before a change that can cut this machine off (S8), as
// armed.Arms does.
type Arms interface {
	// Arm returns only when the revert will come whatever becomes of this process,
	// and how long the change may take.
	Arm(ctx context.Context, o armed.Order) (time.Duration, error)
	Ended(ctx context.Context, key string, ok bool, result fettle.Result) error
	Cancel(ctx context.Context, key string) error
	// State is what became of the arm of a key; false, when it was never armed.
	State(ctx context.Context, key string) (armed.State, bool, error)
}

// cutsOff reports whether a step can cut this machine off, whoever says so.
func cutsOff(spec fettle.ActionSpec, s fettle.Step) bool {
	return spec.Armed || slices.Contains(spec.Takes, fettle.TakesReachability) || slices.Contains(s.Takes, fettle.TakesReachability)
}

// actArmed acts behind an armed revert, or refuses and touches nothing. What went
// well stands only once it is confirmed; everything else is taken back.
func (e *Executor) actArmed(ctx context.Context, d fettle.Dispatch) fettle.Outcome {
	no := func(hint, why string, args ...any) fettle.Outcome {
		return e.refused(d, fettle.NeverWillBe, refuse(hint, why, args...))
	}
	action, ok := e.o.Actions[d.Step.Action].(fettle.Armable)
	switch {
	case !ok:
		return no("this is a defect of the adapter", "it can cut this machine off and cannot say how to put back what is there")
	case e.o.Arms == nil:
		return no("do it by hand, with a console at hand", "it can cut this machine off, and nothing here can arm a revert")
	}
	var back fettle.PutBack
	_, err := guarded(func() (res fettle.Result, err error) {
		back, err = action.Before(ctx, d)
		return res, err
	})
	if err != nil {
		return no("nothing was touched; mend that first", "what is there cannot be put back: %s", err)
	}
	left, err := e.o.Arms.Arm(ctx, armed.Order{Key: d.Key, Action: d.Step.Action, Target: d.Step.Target, PutBack: back})
	if err != nil {
		return no("nothing was touched; see `systemctl status 'fettle-revert@*'` on the host", "no revert could be armed: %s", err)
	}
	e.point("armed")
	// Whatever ends ctx, what became of it must be noted.
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer stop()
	e.mu.Lock()
	late := e.timely(d) // arming takes a while
	e.mu.Unlock()
	if late != nil {
		o := e.refused(d, fettle.NeverWillBe, late)
		e.noteArm(&o, e.o.Arms.Cancel(last, d.Key))
		return o
	}
	acting, done := context.WithTimeout(ctx, left)
	defer done()
	o := e.act(acting, d)
	last, stop = context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer stop()
	if o.Class == fettle.Refused && o.Fate == fettle.NeverWillBe {
		e.noteArm(&o, e.o.Arms.Cancel(last, d.Key))
		return o
	}
	well := o.Fate == fettle.Done && o.Class == ""
	switch err := e.o.Arms.Ended(last, d.Key, well, o.Result); {
	case err != nil: // without that it is never confirmed, and is taken back
		o.Fate, o.Class, o.Error = fettle.Done, fettle.Broken, "it was made and is taken back: "+err.Error()
	case well:
		// It is not over before it is confirmed; Recover tells.
		o.Fate = fettle.Running
		o.Result.Notes = append(o.Result.Notes, "it stands when it is confirmed over a new connection")
	}
	return o
}

func (e *Executor) noteArm(o *fettle.Outcome, err error) {
	if err != nil {
		o.Result.Notes = append(o.Result.Notes, "its revert could not be cancelled and puts back what is there: "+err.Error())
	}
}

// whatStands corrects what the external system says of a step that can cut this
// machine off: what waits for its confirmation, or is still to be taken back, is
// not over, and what was taken back did not last.
func (e *Executor) whatStands(ctx context.Context, d fettle.Dispatch, o *fettle.Outcome) {
	if e.o.Arms == nil || !cutsOff(e.specs[d.Step.Action], d.Step) {
		return
	}
	s, was, err := e.o.Arms.State(ctx, d.Key)
	note := func(text string) { o.Result.Notes = append(o.Result.Notes, text) }
	switch {
	case err != nil:
		o.Fate = fettle.UnknownFate
		note("what became of its revert cannot be told: " + err.Error())
	case !was && o.Fate == fettle.Done: // it is so, whoever did it
	case !was, s.Decision == armed.Cancelled:
		o.Fate, o.Class, o.Error = fettle.NeverWillBe, "", ""
	case s.Decision == armed.Confirmed:
		o.Fate, o.Class, o.Error, o.Result = fettle.Done, "", "", s.Result
		note("it was confirmed over a new connection")
	case s.Decision == armed.Reverting && s.Done:
		o.Fate, o.Class, o.Error = fettle.Done, fettle.Broken, armed.ErrReverted.Error()
		note("taken back: " + s.Says)
	default:
		o.Fate, o.Class, o.Error = fettle.Running, "", ""
		note("it is not confirmed, and is taken back when its time is over")
	}
}
