package linuxmachine

import (
	"context"
	"fmt"

	"github.com/godbus/dbus/v5"

	"fettle/internal/machine"
)

// handle works on one signal of systemd. Signals of a form that it does not know
// are passed over.
func (w *watch) handle(ctx context.Context, sig *dbus.Signal) error {
	var name, result string
	var path dbus.ObjectPath
	var id uint32
	switch sig.Name {
	case propertyIface + ".PropertiesChanged":
		return w.propertiesChanged(ctx, sig)
	case managerIface + ".UnitNew":
		if dbus.Store(sig.Body, &name, &path) == nil && machine.MatchUnit(name, w.patterns) {
			return w.appeared(ctx, name, path)
		}
	case managerIface + ".JobRemoved":
		if dbus.Store(sig.Body, &id, &path, &name, &result) == nil {
			if wu := w.units[unitPath(name)]; wu != nil && wu.job == id {
				w.jobEnded(wu, result)
			}
		}
	case managerIface + ".Reloading":
		var begins bool
		if dbus.Store(sig.Body, &begins) == nil && !begins {
			w.stale = true
		}
	case managerIface + ".UnitFilesChanged":
		w.stale = true
	}
	// UnitRemoved says that systemd forgot a unit which nothing needs: it stays as
	// it was told, down.
	return nil
}

// appeared reads a unit that systemd has loaded. A unit that is gone again is not
// read: reading would load it, which would be told here, without end.
func (w *watch) appeared(ctx context.Context, name string, path dbus.ObjectPath) error {
	if there, err := present(ctx, w.l, name); err != nil || !there {
		return err
	}
	states, err := w.s.read(ctx, w.l, []dbus.ObjectPath{path})
	if err != nil {
		return fmt.Errorf("unit %s: %w", name, err)
	}
	w.s.whoStoppedAll(ctx, states)
	w.adopt(states[0])
	return nil
}

// propertiesChanged merges what systemd says. It sends the properties of the
// unit's own type first and those of every unit last, so that after the second
// the unit is whole (bus_unit_send_change_signal in systemd's source).
func (w *watch) propertiesChanged(ctx context.Context, sig *dbus.Signal) error {
	var iface string
	var changed map[string]dbus.Variant
	var invalidated []string
	if dbus.Store(sig.Body, &iface, &changed, &invalidated) != nil {
		return nil
	}
	wu := w.units[sig.Path]
	if wu == nil {
		if name := unitName(sig.Path); machine.MatchUnit(name, w.patterns) {
			return w.appeared(ctx, name, sig.Path)
		}
		return nil
	}
	if sig.Sequence < wu.asOf {
		return nil // from before it was read
	}
	before := wu.unit
	wu.merge(changed)
	if iface != unitIface {
		return nil
	}
	w.changed(ctx, wu, up(before))
	return nil
}

// changed decides what to tell of a unit whose properties are whole again.
func (w *watch) changed(ctx context.Context, wu *watchedUnit, wasUp bool) {
	isUp := up(wu.unit)
	if wu.jobID != 0 && wu.jobID != wu.job {
		wu.job, wu.jobFromUp = wu.jobID, wasUp
		wu.jobKind = jobType(ctx, w.l, wu.jobPath)
		wu.unit.Job = wu.jobKind
	}
	switch {
	case isUp:
		if wu.held { // down and up again within one job: both are told
			wu.held = false
			now := wu.unit
			wu.unit = wu.down
			w.tell(wu)
			wu.unit = now
		}
		wu.unit.StoppedBy = ""
	case wasUp && wu.jobID != 0 && wu.jobKind == "":
		wu.held, wu.down = true, wu.unit
		return
	case wasUp && wu.jobID != 0 && wu.jobKind == "stop":
		w.stopped(wu, w.s.stops.asked(wu.unit.Name, wu.unit.InvocationID))
	case wasUp: // by itself, or on its way up again
		w.stopped(wu, "")
	case wu.held && wu.jobID == 0:
		w.jobEnded(wu, "done")
		return
	case wu.held:
		return
	}
	w.tell(wu)
}

// jobEnded says who stopped a unit that went down with a job which was over
// before it could be asked what it was. One that was queued for a running unit
// and is done with the unit down was a stop.
func (w *watch) jobEnded(wu *watchedUnit, result string) {
	if wu.held {
		by := ""
		if wu.jobFromUp && result == "done" {
			by = w.s.stops.asked(wu.unit.Name, wu.unit.InvocationID)
		}
		w.stopped(wu, by)
	}
	wu.held, wu.jobID, wu.unit.Job = false, 0, ""
	w.tell(wu)
}

func (w *watch) stopped(wu *watchedUnit, by string) {
	wu.unit.StoppedBy = by
	w.s.stops.record(wu.unit.Name, wu.unit.InvocationID, by)
}
