package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"fettle/internal/fettle"
)

// routed is an action that finds, when it is called, the adapter's configuration
// that it is for.
type routed struct {
	name string
	crew *crew
}

// find returns the action of the one who sees the step's target; where that is
// nobody (after a restart), of the only one who has the action, or of the only one
// that does not refuse to preview it. The error is of class Refused: nothing was
// touched.
func (r *routed) find(ctx context.Context, step fettle.Step) (fettle.Action, error) {
	all, own := r.candidates(step.Target)
	if len(own) > 0 {
		all = own
	}
	if len(all) > 1 {
		var know []fettle.Action
		for _, a := range all {
			if _, err := a.Preview(ctx, step); fettle.ClassOf(err) != fettle.Refused {
				know = append(know, a)
			}
		}
		if len(know) != 1 {
			return nil, fettle.Refuse(r.name, step.Target, "wait until the agent has seen it, or look at the adapters' configurations",
				"of %d configurations of the adapter %d know the target", len(all), len(know))
		}
		all = know
	}
	if len(all) == 0 {
		return nil, fettle.Refuse(r.name, step.Target, "configure the adapter on this machine", "no open adapter on this machine can do it")
	}
	return all[0], nil
}

// candidates returns the actions of this name, and those among them whose
// configuration sees the target.
func (r *routed) candidates(target fettle.Subject) (all, own []fettle.Action) {
	c := r.crew
	c.mu.Lock()
	defer c.mu.Unlock()
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
	return all, own
}

// Preview implements fettle.Action.
func (r *routed) Preview(ctx context.Context, s fettle.Step) (fettle.Preview, error) {
	a, err := r.find(ctx, s)
	if err != nil {
		return fettle.Preview{}, err
	}
	return a.Preview(ctx, s)
}

// Apply implements fettle.Action.
func (r *routed) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	a, err := r.find(ctx, d.Step)
	if err != nil {
		return fettle.Result{}, err
	}
	return a.Apply(ctx, d)
}

// Recover implements fettle.Action. Who does not know the target knows nothing of
// what became of the key.
func (r *routed) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	a, err := r.find(ctx, d.Step)
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, fmt.Errorf("recover %s: %w", d.Key, err)
	}
	return a.Recover(ctx, d)
}

// Undo implements fettle.Action.
func (r *routed) Undo(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	a, err := r.find(ctx, d.Step)
	if err != nil {
		return fettle.Result{}, err
	}
	return a.Undo(ctx, d)
}
