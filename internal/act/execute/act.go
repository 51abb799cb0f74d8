package execute

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"fettle/internal/fettle"
)

// act calls the action and turns what it returns, or its panic, into an outcome.
func (e *Executor) act(ctx context.Context, d fettle.Dispatch) (o fettle.Outcome) {
	o = fettle.Outcome{Schema: Schema, Key: d.Key, Fate: fettle.Done}
	result, err := guarded(func() (fettle.Result, error) {
		if d.Undo {
			return e.o.Actions[d.Step.Action].Undo(ctx, d)
		}
		return e.o.Actions[d.Step.Action].Apply(ctx, d)
	})
	o.Result = result
	if invalid := result.Outputs.Validate(); invalid != nil && err == nil {
		o.Result.Outputs = nil
		err = &fettle.Error{Op: d.Step.Action, Subject: d.Step.Target, Class: fettle.Broken, Err: invalid, Hint: "it was done, but its outputs cannot be used: a defect of the adapter"}
	}
	if err == nil {
		return o
	}
	o.Class, o.Error = fettle.ClassOf(err), err.Error()
	var crash *panicked
	switch {
	case o.Class == fettle.Refused:
		o.Fate = fettle.NeverWillBe
	case errors.As(err, &crash), o.Class == fettle.NoAnswer:
		o.Fate = fettle.UnknownFate
	case ctx.Err() != nil && o.Class == fettle.Broken:
		// It was cut off: what broke may be our own waiting.
		o.Class, o.Fate = fettle.NoAnswer, fettle.UnknownFate
	}
	return o
}

// panicked is the error of an action that panicked.
type panicked struct{ value any }

func (p *panicked) Error() string {
	return fmt.Sprintf("the action panicked: %v (a defect of the adapter; what it did is not known)", p.value)
}

// guarded calls an action and catches its panic. The stack goes to the notes.
func guarded(call func() (fettle.Result, error)) (result fettle.Result, err error) {
	defer func() {
		if v := recover(); v != nil {
			stack := debug.Stack()
			result = fettle.Result{Notes: []string{string(stack[:min(len(stack), 4096)])}}
			err = &panicked{v}
		}
	}()
	return call()
}
