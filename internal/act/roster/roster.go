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
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

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

// Open opens every adapter. dir holds files ADAPTER.yaml and ADAPTER-NAME.yaml;
// an adapter that has none there is asked what it finds. A file that no adapter
// here is named by, or one that is wrong, is an error: what an administrator
// wrote is meant.
func Open(ctx context.Context, adapters []machine.Adapter, m machine.Machine, dir string) (*Roster, error) {
	files, err := configs(dir)
	if err != nil {
		return nil, err
	}
	r := &Roster{}
	for _, a := range adapters {
		name := a.Catalogue().Adapter
		if own := files[name]; len(own) > 0 {
			delete(files, name)
			for _, f := range own {
				if err := r.fromFile(ctx, a, m, f); err != nil {
					return nil, errors.Join(err, r.Close())
				}
			}
			continue
		}
		r.discover(ctx, a, m)
	}
	for name, own := range files {
		return nil, errors.Join(fmt.Errorf("%s: no adapter here is called %q (see `fettle adapters`)", own[0], name), r.Close())
	}
	return r, nil
}

func configs(dir string) (map[string][]string, error) {
	out := map[string][]string{}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || dir == "" {
		return out, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the adapters' configuration: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() || filepath.Ext(e.Name()) != ".yaml" {
			continue
		}
		adapter, _, _ := strings.Cut(strings.TrimSuffix(e.Name(), ".yaml"), "-")
		out[adapter] = append(out[adapter], filepath.Join(dir, e.Name()))
	}
	for _, list := range out {
		slices.Sort(list)
	}
	return out, nil
}

func (r *Roster) fromFile(ctx context.Context, a machine.Adapter, m machine.Machine, file string) error {
	src, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	in, err := a.Open(ctx, m, src)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	r.Instances = append(r.Instances, in)
	name := strings.TrimSuffix(filepath.Base(file), ".yaml")
	r.Items = append(r.Items, Item{Adapter: a.Catalogue().Adapter, Name: name, From: file})
	return nil
}

// discoverWithin bounds what one adapter may take to find what it looks after:
// one that hangs must not keep the others from being opened.
const discoverWithin = 10 * time.Second

func (r *Roster) discover(ctx context.Context, a machine.Adapter, m machine.Machine) {
	ctx, cancel := context.WithTimeout(ctx, discoverWithin)
	defer cancel()
	adapter := a.Catalogue().Adapter
	found, err := a.Discover(ctx, m)
	if err != nil {
		r.Items = append(r.Items, Item{Adapter: adapter, Name: adapter, From: "looked for it", Error: err.Error()})
	}
	for _, f := range found {
		item := Item{Adapter: adapter, Name: f.Name, From: f.Why}
		in, err := a.Open(ctx, m, f.Config)
		if err != nil {
			item.Error = err.Error()
		} else {
			r.Instances = append(r.Instances, in)
		}
		r.Items = append(r.Items, item)
	}
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
