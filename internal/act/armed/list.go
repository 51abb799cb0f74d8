package armed

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"fettle/internal/fettle"
)

// kept is how many changes that are over stay to be looked at.
const kept = 16

// State is what is known of one armed change.
type State struct {
	ID       string         `json:"id"`
	Key      string         `json:"key"`
	Action   string         `json:"action"`
	Target   fettle.Subject `json:"target"`
	Says     string         `json:"says"` // what is put back
	Decision Decision       `json:"decision,omitempty"`
	Why      string         `json:"why,omitempty"`
	Done     bool           `json:"done,omitempty"`    // it was put back
	Left     time.Duration  `json:"left_ns,omitempty"` // until it is taken back, while it is open
	Ended    bool           `json:"ended,omitempty"`   // the action has returned in this boot, and all went well
	At       time.Duration  `json:"ended_ns,omitempty"`
	Result   fettle.Result  `json:"result,omitzero"` // of the action
	BootID   string         `json:"boot_id"`
	ThisBoot bool           `json:"this_boot,omitempty"` // it was armed in the present one
	Trouble  string         `json:"trouble,omitempty"`   // why putting back failed, the last time that it did
	armed    time.Duration
}

// open reports whether its end is not known yet. A record that cannot be read is
// not waited for: its unit says what is wrong.
func (s State) open() bool {
	return s.Key != "" && (s.Decision == Open || s.Decision == Reverting && !s.Done)
}

// List is all changes that are armed or were of late, those of this boot last. One
// that cannot be read is in it with the reason as its Trouble.
func (a *Arms) List(ctx context.Context) ([]State, error) {
	entries, err := a.m.Files.ReadDir(ctx, a.o.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	now, err := a.uptime(ctx)
	if err != nil {
		return nil, err
	}
	var list []State
	for _, e := range entries {
		if checkID(e.Name) != nil {
			continue
		}
		s, err := a.state(ctx, e.Name, now)
		switch {
		case errors.Is(err, fs.ErrNotExist): // not armed yet
		case err != nil:
			list = append(list, State{ID: e.Name, Trouble: err.Error()})
		default:
			list = append(list, s)
		}
	}
	slices.SortStableFunc(list, func(x, y State) int {
		mine := func(s State) int {
			if s.BootID == a.m.Identity.BootID {
				return 1
			}
			return 0
		}
		if c := mine(x) - mine(y); c != 0 {
			return c
		}
		return int((x.armed - y.armed) / time.Millisecond)
	})
	return list, nil
}

func (a *Arms) state(ctx context.Context, id string, now time.Duration) (State, error) {
	r, err := a.record(ctx, id)
	if err != nil {
		return State{}, err
	}
	s := State{ID: id, Key: r.Key, Action: r.Action, Target: r.Target, Says: r.PutBack.Says, BootID: r.BootID, ThisBoot: r.BootID == a.m.Identity.BootID, armed: r.Armed}
	d, err := a.decision(ctx, id)
	if err != nil {
		return State{}, err
	}
	s.Decision, s.Why = d.Decision, d.Why
	var end ended
	has, err := a.read(ctx, id, "ended", &end)
	if err != nil {
		return State{}, err
	}
	s.Ended, s.At, s.Result = has && end.OK && r.BootID == a.m.Identity.BootID, end.At, end.Result
	if s.Done, err = a.there(ctx, id, "done"); err != nil {
		return State{}, err
	}
	if s.Decision == Open && r.BootID == a.m.Identity.BootID {
		s.Left = max(0, r.Deadline-now)
	}
	if _, err := a.read(ctx, id, "trouble", &s.Trouble); err != nil {
		return State{}, err
	}
	return s, nil
}

// State is what is known of the change of a key; false, when it was never armed.
func (a *Arms) State(ctx context.Context, key string) (State, bool, error) {
	now, err := a.uptime(ctx)
	if err != nil {
		return State{}, false, err
	}
	s, err := a.state(ctx, ID(key), now)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, false, nil
	}
	return s, err == nil, err
}

// Tidy forgets what has been over for longest, but for the last sixteen, and what
// still starts the units of those that are over.
func (a *Arms) Tidy(ctx context.Context) error {
	list, err := a.List(ctx)
	if err != nil {
		return err
	}
	var over []State
	for _, s := range list {
		if s.Decision == Confirmed || s.Decision == Cancelled || s.Done {
			over = append(over, s)
			if err := a.disable(ctx, s.ID); err != nil {
				return err
			}
		}
	}
	for len(over) > kept {
		if err := a.forget(ctx, over[0].ID); err != nil {
			return err
		}
		over = over[1:]
	}
	return nil
}

// forget removes a folder, the record first: without it nothing is done.
func (a *Arms) forget(ctx context.Context, id string) error {
	if err := a.m.Files.Remove(ctx, a.file(id, "record")); err != nil {
		return err
	}
	entries, err := a.m.Files.ReadDir(ctx, a.file(id, ""))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := a.m.Files.Remove(ctx, a.file(id, e.Name)); err != nil {
			return err
		}
	}
	return a.m.Files.Remove(ctx, a.file(id, ""))
}
