package executor

import (
	"context"
	"fmt"

	"fettle/internal/fettle"
)

// Routed is an action that finds, when it is called, the adapter's configuration that it
// is for.
type Routed struct {
	Name string
	// Candidates returns the actions of this name that are open on the machine, and
	// those among them whose configuration is known to see the target.
	Candidates func(ctx context.Context, name string, target fettle.Subject) (all, own []fettle.Action)
}

// Route returns an action for each that the catalogues name.
func Route(catalogues []fettle.Catalogue, candidates func(ctx context.Context, name string, target fettle.Subject) (all, own []fettle.Action)) map[string]fettle.Action {
	out := map[string]fettle.Action{}
	for _, c := range catalogues {
		for _, spec := range c.Actions {
			out[spec.Name] = &Routed{Name: spec.Name, Candidates: candidates}
		}
	}
	return out
}

// find returns the action of the one who sees the step's target; where that is
// nobody (after a restart), of the only one who has the action, or of the only one
// that does not refuse to preview it. The error is of class Refused: nothing was
// touched.
func (r *Routed) find(ctx context.Context, step fettle.Step) (fettle.Action, error) {
	all, own := r.Candidates(ctx, r.Name, step.Target)
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
			return nil, fettle.Refuse(r.Name, step.Target, "wait until the agent has seen it, or look at the adapters' configurations",
				"of %d configurations of the adapter %d know the target", len(all), len(know))
		}
		all = know
	}
	if len(all) == 0 {
		return nil, fettle.Refuse(r.Name, step.Target, "configure the adapter on this machine", "no open adapter on this machine can do it")
	}
	return all[0], nil
}

// Preview implements fettle.Action.
func (r *Routed) Preview(ctx context.Context, s fettle.Step) (fettle.Preview, error) {
	a, err := r.find(ctx, s)
	if err != nil {
		return fettle.Preview{}, err
	}
	return a.Preview(ctx, s)
}

// Apply implements fettle.Action.
func (r *Routed) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	a, err := r.find(ctx, d.Step)
	if err != nil {
		return fettle.Result{}, err
	}
	return a.Apply(ctx, d)
}

// Recover implements fettle.Action. Who does not know the target knows nothing of
// what became of the key.
func (r *Routed) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	a, err := r.find(ctx, d.Step)
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, fmt.Errorf("recover %s: %w", d.Key, err)
	}
	return a.Recover(ctx, d)
}

// Undo implements fettle.Action.
func (r *Routed) Undo(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	a, err := r.find(ctx, d.Step)
	if err != nil {
		return fettle.Result{}, err
	}
	return a.Undo(ctx, d)
}

// Before implements fettle.Armable.
func (r *Routed) Before(ctx context.Context, d fettle.Dispatch) (fettle.PutBack, error) {
	a, err := r.find(ctx, d.Step)
	if err != nil {
		return fettle.PutBack{}, err
	}
	armable, ok := a.(fettle.Armable)
	if !ok {
		return fettle.PutBack{}, fettle.Refuse(r.Name, d.Step.Target, "this is a defect of the adapter", "it cannot say how to put back what is there")
	}
	return armable.Before(ctx, d)
}
