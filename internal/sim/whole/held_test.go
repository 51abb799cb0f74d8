package whole_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// held is an adapter of which each action is shown to the checkers before it touches
// the machine, and does not touch it for an agent that is dead.
type held struct {
	machine.Adapter
	l *agentLife
}

// Open implements machine.Adapter.
func (a held) Open(ctx context.Context, m machine.Machine, config []byte) (fettle.Instance, error) {
	i, err := a.Adapter.Open(ctx, m, config)
	if err != nil {
		return nil, err
	}
	return heldInstance{i, a.l}, nil
}

type heldInstance struct {
	fettle.Instance
	l *agentLife
}

// Actions implements fettle.Instance.
func (i heldInstance) Actions() map[string]fettle.Action {
	out := map[string]fettle.Action{}
	for name, a := range i.Instance.Actions() {
		out[name] = heldAction{a, i.l}
	}
	return out
}

type heldAction struct {
	fettle.Action
	l *agentLife
}

var errDead = errors.New("this process is dead")

// reach lets the time pass that it takes to begin; an agent may be killed in it.
func (a heldAction) reach(ctx context.Context, d fettle.Dispatch) error {
	err := sleep(ctx, a.l.h.r.later(fmt.Sprint(a.l.h.name, d.Step.Action, a.l.h.r.elapsed().Round(time.Second)), time.Millisecond, 200*time.Millisecond))
	if a.l.p.dead() {
		err = errDead
	}
	if err != nil {
		return &fettle.Error{Op: d.Step.Action, Subject: d.Step.Target, Class: fettle.NoAnswer, Err: err}
	}
	a.l.h.r.touch(a.l, d)
	return nil
}

// Apply implements fettle.Action.
func (a heldAction) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	if err := a.reach(ctx, d); err != nil {
		return fettle.Result{}, err
	}
	return a.Action.Apply(ctx, d)
}

// Undo implements fettle.Action.
func (a heldAction) Undo(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	if err := a.reach(ctx, d); err != nil {
		return fettle.Result{}, err
	}
	return a.Action.Undo(ctx, d)
}
