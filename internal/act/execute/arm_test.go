package execute

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"fettle/internal/act/armed"
	"fettle/internal/fettle"
)

// arms is a fake that keeps the order in which it was called.
type arms struct {
	calls []string
	fails string // the call that fails
	err   error
	order armed.Order
	state armed.State
	none  bool // it was never armed
}

func (a *arms) State(context.Context, string) (armed.State, bool, error) {
	return a.state, !a.none, nil
}

func (a *arms) call(name string) error {
	a.calls = append(a.calls, name)
	if a.fails == name {
		return a.err
	}
	return nil
}

func (a *arms) Arm(_ context.Context, o armed.Order) (time.Duration, error) {
	a.order = o
	return time.Minute, a.call("arm")
}

func (a *arms) Ended(_ context.Context, _ string, ok bool, _ fettle.Result) error {
	if ok {
		return a.call("ended well")
	}
	return a.call("ended badly")
}

func (a *arms) Cancel(context.Context, string) error { return a.call("cancel") }

// armable is a fake that can say how to put back.
type armable struct {
	*fake
	arms *arms
	err  error
}

func (a armable) Before(context.Context, fettle.Dispatch) (fettle.PutBack, error) {
	return fettle.PutBack{Program: "nft", Says: "as it was"}, errors.Join(a.err, a.arms.call("before"))
}

// armedRig has an executor whose action can cut the machine off.
func armedRig(t *testing.T, change func(*Executor, *fettle.ActionSpec)) (*rig, *arms) {
	t.Helper()
	r := newRig(t)
	a := &arms{err: errors.New("no")}
	r.o.Actions = map[string]fettle.Action{"test.do": armable{fake: r.action, arms: a}}
	r.o.Arms = a
	spec := r.specs["test.do"]
	spec.Takes, spec.Armed = []fettle.Taking{fettle.TakesReachability}, true
	if change != nil {
		change(r.Executor, &spec)
	}
	r.specs["test.do"] = spec
	touch := func(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
		a.calls = append(a.calls, "touch")
		return succeed(ctx, d)
	}
	r.action.apply, r.action.undo = touch, touch
	return r, a
}

// TestArmedBeforeTheTouch (S8).
func TestArmedBeforeTheTouch(t *testing.T) {
	for _, undo := range []bool{false, true} {
		r, a := armedRig(t, nil)
		d := r.dispatch("k1")
		d.Undo = undo
		want(t, r.Do(t.Context(), d), fettle.Running, "")
		if !slices.Equal(a.calls, []string{"before", "arm", "touch", "ended well"}) || a.order.Key != "k1" || a.order.PutBack.Says != "as it was" {
			t.Errorf("undo %v: %v, %+v", undo, a.calls, a.order)
		}
	}
}

// TestUnarmedIsNotTouched (S8): whatever keeps a revert from being armed, keeps the
// machine from being touched. Take the arming out of carryOut, and this fails.
func TestUnarmedIsNotTouched(t *testing.T) {
	for name, change := range map[string]func(*Executor, *fettle.ActionSpec, *arms){
		"nothing can arm here":              func(e *Executor, _ *fettle.ActionSpec, _ *arms) { e.o.Arms = nil },
		"no revert could be armed":          func(_ *Executor, _ *fettle.ActionSpec, a *arms) { a.fails = "arm" },
		"what is there cannot be put back":  func(_ *Executor, _ *fettle.ActionSpec, a *arms) { a.fails = "before" },
		"the catalogue forgot to say armed": func(_ *Executor, s *fettle.ActionSpec, a *arms) { s.Armed, a.fails = false, "arm" },
		"the action is not armable": func(e *Executor, _ *fettle.ActionSpec, _ *arms) {
			e.o.Actions["test.do"] = e.o.Actions["test.do"].(armable).fake
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, a := armedRig(t, nil)
			spec := r.specs["test.do"]
			change(r.Executor, &spec, a)
			r.specs["test.do"] = spec
			want(t, r.Do(t.Context(), r.dispatch("k1")), fettle.NeverWillBe, fettle.Refused)
			if slices.Contains(a.calls, "touch") || r.action.touched.Load() != 0 {
				t.Errorf("touched: %v", a.calls)
			}
		})
	}
}

// TestStepThatTakesReachabilityIsArmed: also where only the plan says that it does.
func TestStepThatTakesReachabilityIsArmed(t *testing.T) {
	r, a := armedRig(t, func(_ *Executor, s *fettle.ActionSpec) { s.Armed, s.Takes = false, nil })
	d := r.dispatch("k1")
	d.Step.Takes = []fettle.Taking{fettle.TakesReachability}
	want(t, r.Do(t.Context(), d), fettle.Running, "")
	if !slices.Contains(a.calls, "arm") {
		t.Errorf("%v", a.calls)
	}
}

// TestAbleToArm: what cannot be armed here is not offered to the server.
func TestAbleToArm(t *testing.T) {
	r, _ := armedRig(t, nil)
	if r.Able()["test.do"] == 0 {
		t.Error("not offered")
	}
	r.o.Arms = nil
	if r.Able()["test.do"] != 0 {
		t.Error("offered, and it could not be armed")
	}
}

// TestArmedEnds: a refusal cancels the arm; everything but success leaves it armed.
func TestArmedEnds(t *testing.T) {
	r, a := armedRig(t, nil)
	r.action.apply = func(context.Context, fettle.Dispatch) (fettle.Result, error) {
		return fettle.Result{}, fettle.Refuse("test.do", target, "", "not now")
	}
	want(t, r.Do(t.Context(), r.dispatch("k1")), fettle.NeverWillBe, fettle.Refused)
	if !slices.Equal(a.calls, []string{"before", "arm", "cancel"}) {
		t.Errorf("refused: %v", a.calls)
	}
	a.calls = nil
	r.action.apply = func(context.Context, fettle.Dispatch) (fettle.Result, error) {
		return fettle.Result{}, errors.New("half-way")
	}
	want(t, r.Do(t.Context(), r.dispatch("k2")), fettle.Done, fettle.Broken)
	if !slices.Equal(a.calls, []string{"before", "arm", "ended badly"}) {
		t.Errorf("broken: %v", a.calls)
	}
	a.calls, a.fails, a.err = nil, "ended well", armed.ErrReverted
	r.action.apply = succeed
	want(t, r.Do(t.Context(), r.dispatch("k3")), fettle.Done, fettle.Broken)
}

// TestRecoverOfArmed: what the external system says is true of now; what is to be
// taken back is not over.
func TestRecoverOfArmed(t *testing.T) {
	for _, c := range []struct {
		state armed.State
		none  bool
		says  fettle.Fate // of the external system; "": done
		fate  fettle.Fate
		class fettle.Class
	}{
		{state: armed.State{}, fate: fettle.Running},
		{state: armed.State{Ended: true}, fate: fettle.Running},
		{state: armed.State{Decision: armed.Confirmed, Ended: true}, fate: fettle.Done},
		{state: armed.State{Decision: armed.Reverting}, fate: fettle.Running},
		{state: armed.State{Decision: armed.Reverting, Done: true}, fate: fettle.Done, class: fettle.Broken},
		{state: armed.State{Decision: armed.Cancelled}, fate: fettle.NeverWillBe},
		{none: true, fate: fettle.Done},
		{none: true, says: fettle.UnknownFate, fate: fettle.NeverWillBe},
	} {
		r, a := armedRig(t, nil)
		a.state, a.none = c.state, c.none
		r.action.recover = func(context.Context, fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
			return cmp.Or(c.says, fettle.Done), fettle.Result{}, nil
		}
		c.state.Result = fettle.Result{Outputs: fettle.Facts{"id": "7"}}
		a.state = c.state
		o := r.Recover(t.Context(), r.dispatch("k1"))
		want(t, o, c.fate, c.class)
		if c.state.Decision == armed.Confirmed && o.Result.Outputs["id"] != "7" {
			t.Errorf("what it produced is lost: %+v", o.Result)
		}
	}
}
