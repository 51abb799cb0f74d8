// Package roster opens the adapters of a machine: each with the configurations
// that an administrator wrote for it, or else with those that it finds by itself.
//
// It is not the adapters' list (that is handed in) and runs nothing. An adapter
// that cannot be opened is named with its reason and left out; the others work.
package roster

import (
	"context"
	"errors"
	"fmt"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// Roster is what was opened. Close it when it is no longer used.
type Roster struct {
	Instances []fettle.Instance
	Items     []Item
}

// Item is one configuration of one adapter and what became of it.
type Item struct {
	Adapter string `json:"adapter"`
	Name    string `json:"name"`
	From    string `json:"from"`            // the file, or why it was found
	Error   string `json:"error,omitempty"` // not empty: it is not looked after, and why
}

// Open opens every adapter: with its files in dir, ADAPTER.yaml and
// ADAPTER-NAME.yaml, or else with what it finds. A file that no adapter here is
// named by, or one that is wrong, is an error: what an administrator wrote is meant.
func Open(ctx context.Context, adapters []machine.Adapter, m machine.Machine, dir string) (*Roster, error) {
	written, err := Written(dir, adapters)
	if err != nil {
		return nil, err
	}
	r := &Roster{}
	for _, c := range written {
		if c.Err != nil {
			return nil, errors.Join(c.Err, r.Close())
		}
		if c.Off() {
			continue
		}
		if err := r.open(ctx, m, c); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", c.From, err), r.Close())
		}
	}
	for _, c := range Found(ctx, adapters, m, written, func(adapter string, err error) {
		r.Items = append(r.Items, Item{Adapter: adapter, Name: adapter, From: "looked for it", Error: err.Error()})
	}) {
		if err := r.open(ctx, m, c); err != nil {
			r.Items[len(r.Items)-1].Error = err.Error()
		}
	}
	return r, nil
}

func (r *Roster) open(ctx context.Context, m machine.Machine, c Conf) error {
	r.Items = append(r.Items, Item{Adapter: c.AdapterName(), Name: c.Key(), From: c.From})
	in, err := c.Adapter.Open(ctx, m, c.Text)
	if err != nil {
		return err
	}
	r.Instances = append(r.Instances, in)
	return nil
}

// Actions returns the actions of all instances, by name. Two instances of one
// adapter have the same names; each of its actions goes to the instance that
// knows the target.
func (r *Roster) Actions() map[string]fettle.Action {
	out := map[string]fettle.Action{}
	for _, in := range r.Instances {
		for name, act := range in.Actions() {
			if before, ok := out[name]; ok {
				act = either{before, act}
			}
			out[name] = act
		}
	}
	return out
}

// Close closes all instances.
func (r *Roster) Close() error {
	var all error
	for _, in := range r.Instances {
		all = errors.Join(all, in.Close())
	}
	return all
}

// either is the same action of two instances: the second is asked where the
// first does not know the target, which it says by refusing its Preview.
type either struct{ first, second fettle.Action }

func (e either) pick(ctx context.Context, s fettle.Step) fettle.Action {
	if _, err := e.first.Preview(ctx, s); fettle.ClassOf(err) == fettle.Refused {
		return e.second
	}
	return e.first
}

func (e either) Preview(ctx context.Context, s fettle.Step) (fettle.Preview, error) {
	return e.pick(ctx, s).Preview(ctx, s)
}

func (e either) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	return e.pick(ctx, d.Step).Apply(ctx, d)
}

func (e either) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	return e.pick(ctx, d.Step).Recover(ctx, d)
}

func (e either) Undo(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	return e.pick(ctx, d.Step).Undo(ctx, d)
}
