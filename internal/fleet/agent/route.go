package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"fettle/internal/fettle"
)

// routed is an action that finds, when it is called, the adapter's configuration
// that it is for: the one that sees the target.
type routed struct {
	name string
	crew *crew
}

// find returns the action of the hand that sees the target. Where one hand only
// has the action, it is that one. The error is of class Refused: nothing was
// touched.
func (r *routed) find(target fettle.Subject) (fettle.Action, error) {
	c := r.crew
	c.mu.Lock()
	defer c.mu.Unlock()
	var all, own []fettle.Action
	for _, key := range slices.Sorted(maps.Keys(c.hands)) {
		h := c.hands[key]
		action, ok := h.instance.Actions()[r.name]
		if !ok {
			continue
		}
		all = append(all, action)
		if c.owner[target][h] {
			own = append(own, action)
		}
	}
	switch {
	case len(own) == 1:
		return own[0], nil
	case len(own) == 0 && len(all) == 1:
		return all[0], nil
	case len(all) == 0:
		return nil, fettle.Refuse(r.name, target, "configure the adapter on this machine", "no open adapter on this machine can do it")
	}
	return nil, fettle.Refuse(r.name, target, "wait until the agent has seen it, or look at the adapters' configurations",
		"%d configurations of the adapter are open, and %d of them see the target", len(all), len(own))
}

// Preview implements fettle.Action.
func (r *routed) Preview(ctx context.Context, s fettle.Step) (fettle.Preview, error) {
	a, err := r.find(s.Target)
	if err != nil {
		return fettle.Preview{}, err
	}
	return a.Preview(ctx, s)
}

// Apply implements fettle.Action.
func (r *routed) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	a, err := r.find(d.Step.Target)
	if err != nil {
		return fettle.Result{}, err
	}
	return a.Apply(ctx, d)
}

// Recover implements fettle.Action. Who is not known to have the target knows
// nothing of what became of the key.
func (r *routed) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	a, err := r.find(d.Step.Target)
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, fmt.Errorf("recover %s: %w", d.Key, err)
	}
	return a.Recover(ctx, d)
}

// Undo implements fettle.Action.
func (r *routed) Undo(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	a, err := r.find(d.Step.Target)
	if err != nil {
		return fettle.Result{}, err
	}
	return a.Undo(ctx, d)
}
