package executor

import (
	"context"
	"errors"
	"fmt"

	"fettle/internal/act/execute"
	"fettle/internal/fleet/permit"
)

// Word is what a server said that holds while no server is there. Only the permit is
// signed; of the rest the agent is believed, which can withhold it as well.
type Word struct {
	Permit *permit.Signed `json:"permit,omitempty"` // nil: none came
	// FleetFrozen: the fleet is frozen; nil: nothing is said of that.
	FleetFrozen *bool `json:"fleet_frozen,omitempty"`
	// Windows are all windows of maintenance that this host is in, each the JSON of a
	// guard.Window; nil: nothing is said of them.
	Windows [][]byte `json:"windows"`
}

// Standing is the standing permit of this host.
type Standing struct {
	Kept execute.Kept `json:"kept"`          // zero: there is none
	Why  string       `json:"why,omitempty"` // why it is of no use now; "": it is
}

// Told implements Hands.
func (e *Executor) Told(_ context.Context, w Word) error {
	e.telling.Lock()
	defer e.telling.Unlock()
	var errs []error
	if w.FleetFrozen != nil {
		if err := e.freeze.told(*w.FleetFrozen); err != nil {
			errs = append(errs, fmt.Errorf("that the fleet was frozen or thawed is not kept over a restart: %w", err))
		}
	}
	if w.Windows != nil {
		if err := e.windows.told(w.Windows); err != nil {
			errs = append(errs, fmt.Errorf("what the server says of maintenance is not all kept; the next start knows less of it: %w", err))
		}
	}
	if w.Permit != nil {
		if err := e.permits.take(*w.Permit, e.o.Trust(), e.o.Clock.Wall()); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Permit implements Hands.
func (e *Executor) Permit(context.Context) (Standing, error) {
	k, err := e.ex.Permit()
	return Standing{Kept: k, Why: text(err)}, nil
}

// paused says why nothing may be done under a permit; "": nothing stands against it.
func (e *Executor) paused() string {
	if e.freeze.fleetFrozen() {
		return "the fleet was frozen when a server was last heard"
	}
	why, _ := e.windows.here(e.o.Clock.Wall())
	return why
}
