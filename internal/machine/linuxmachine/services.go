package linuxmachine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"

	"fettle/internal/machine"
)

// services is the Services port over systemd.
//
// Units are named by their Id: asked for an alias, it answers with the unit.
// StoppedBy is found so: a unit that went down while a stop job was queued for it
// was stopped, by this program if it queued the job, else by a person. Watch sees
// the jobs; of what happened before, systemd's own journal entries tell.
type services struct {
	cfg      Config
	bus      *bus
	clock    *clock
	commands machine.Commands
	stops    *stops
}

func newServices(cfg Config, b *bus, c *clock, commands machine.Commands, boot string) *services {
	return &services{cfg: cfg, bus: b, clock: c, commands: commands, stops: newStops(cfg.StateDir, cfg.StopsOf, boot)}
}

// literal reports that a pattern is a unit's name.
func literal(pattern string) bool { return !strings.ContainsAny(pattern, `*?[\`) }

func (s *services) Units(ctx context.Context, patterns ...string) ([]machine.Unit, error) {
	if err := machine.CheckPatterns(patterns); err != nil {
		return nil, err
	}
	l, err := s.bus.connected(ctx)
	if err != nil {
		return nil, fmt.Errorf("list units: %w", err)
	}
	states, err := s.readAll(ctx, l, patterns)
	if err != nil {
		return nil, fmt.Errorf("list units: %w", err)
	}
	s.whoStoppedAll(ctx, states)
	out := make([]machine.Unit, 0, len(states))
	for _, st := range states {
		if st.unit.LoadState == "not-found" && st.unit.ActiveState == "inactive" {
			continue // only something's wish for it is there
		}
		out = append(out, st.unit)
	}
	return out, nil
}

func (s *services) Unit(ctx context.Context, name string) (machine.Unit, error) {
	l, err := s.bus.connected(ctx)
	if err != nil {
		return machine.Unit{}, fmt.Errorf("unit %s: %w", name, err)
	}
	path, err := loadUnit(ctx, l, name)
	if err != nil {
		return machine.Unit{}, fmt.Errorf("unit %s: %w", name, err)
	}
	states, err := s.read(ctx, l, []dbus.ObjectPath{path})
	if err != nil {
		return machine.Unit{}, fmt.Errorf("unit %s: %w", name, err)
	}
	s.whoStoppedAll(ctx, states)
	return states[0].unit, nil
}

// loadUnit returns the object of a unit, loaded from its file if need be.
func loadUnit(ctx context.Context, l *link, name string) (dbus.ObjectPath, error) {
	var path dbus.ObjectPath
	err := l.call(ctx, systemdPath, managerIface+".LoadUnit", name).Store(&path)
	return path, explain(err)
}

// readAll reads the units that match, sorted by name: the loaded ones, and those
// named in full also when they are not loaded.
func (s *services) readAll(ctx context.Context, l *link, patterns []string) ([]*unitState, error) {
	var paths []dbus.ObjectPath
	globs := slices.DeleteFunc(slices.Clone(patterns), literal)
	if len(patterns) == 0 || len(globs) > 0 {
		var list []listedUnit
		// systemd's patterns differ from path.Match in rare cases: it is asked for
		// all units, and the choice is made here.
		if err := l.call(ctx, systemdPath, managerIface+".ListUnits").Store(&list); err != nil {
			return nil, explain(err)
		}
		for _, u := range list {
			if machine.MatchUnit(u.Name, patterns) {
				paths = append(paths, u.Path)
			}
		}
	}
	for _, p := range patterns {
		if literal(p) {
			path, err := loadUnit(ctx, l, p)
			if err != nil {
				return nil, fmt.Errorf("unit %s: %w", p, err)
			}
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	states, err := s.read(ctx, l, slices.Compact(paths))
	slices.SortFunc(states, func(a, b *unitState) int { return cmp.Compare(a.unit.Name, b.unit.Name) })
	return states, err
}

// listedUnit is an entry of ListUnits.
type listedUnit struct {
	Name, Description, LoadState, ActiveState, SubState, Following string
	Path                                                           dbus.ObjectPath
	JobID                                                          uint32
	JobType                                                        string
	JobPath                                                        dbus.ObjectPath
}

// readWindow is how many units are asked for before the first answer is awaited.
// On the message bus it is smaller: that allows 128 answers on the way for one
// connection (max_replies_per_connection, dbus-daemon(1)), each unit takes about
// ten, and a watch may be reading at the same time.
const (
	readWindow    = 32
	busReadWindow = 5
)

// read reads units by their objects.
func (s *services) read(ctx context.Context, l *link, paths []dbus.ObjectPath) ([]*unitState, error) {
	out := make([]*unitState, 0, len(paths))
	size := readWindow
	if !l.private {
		size = busReadWindow
	}
	for window := range slices.Chunk(paths, size) {
		asked := make([]*asking, 0, len(window))
		for _, p := range window {
			asked = append(asked, s.ask(ctx, l, p))
		}
		for _, a := range asked {
			st, err := a.answer()
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", unitName(a.state.path), err)
			}
			if st.jobID != 0 {
				st.unit.Job = jobType(ctx, l, st.jobPath)
			}
			out = append(out, st)
		}
	}
	return out, nil
}

// asking is a unit whose properties are on their way.
type asking struct {
	state  *unitState
	all    *dbus.Call
	names  []string
	single []*dbus.Call
}

func (s *services) ask(ctx context.Context, l *link, path dbus.ObjectPath) *asking {
	name := unitName(path)
	a := &asking{state: &unitState{clock: s.clock, path: path}}
	a.state.unit.Name = name
	a.all = l.begin(ctx, path, propertyIface+".GetAll", unitIface)
	if iface := typeIface(name); iface != "" {
		a.names = typeProperties(name)
		for _, p := range a.names {
			a.single = append(a.single, l.begin(ctx, path, propertyIface+".Get", iface, p))
		}
	}
	return a
}

func (a *asking) answer() (*unitState, error) {
	<-a.all.Done
	var props map[string]dbus.Variant
	if err := a.all.Store(&props); err != nil {
		return nil, explain(err)
	}
	a.state.asOf = a.all.ResponseSequence
	for i, call := range a.single {
		<-call.Done
		var v dbus.Variant
		switch err := call.Store(&v); {
		case err == nil:
			props[a.names[i]] = v
		case exceeded(err), errors.Is(explain(err), machine.ErrLost), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
			return nil, explain(err)
		} // else an older systemd without this property: it stays empty
	}
	a.state.merge(props)
	return a.state, nil
}

// exceeded reports whether the bus refused for want of room: what was asked for is
// there, and must not be taken for absent.
func exceeded(err error) bool {
	var e dbus.Error
	return errors.As(err, &e) && e.Name == "org.freedesktop.DBus.Error.LimitsExceeded"
}

// jobType asks what a queued job is; "" when it is over already.
func jobType(ctx context.Context, l *link, path dbus.ObjectPath) string {
	var v dbus.Variant
	if l.call(ctx, path, propertyIface+".Get", jobIface, "JobType").Store(&v) != nil {
		return ""
	}
	kind, _ := v.Value().(string)
	return kind
}

// present reports whether a unit is loaded, without loading it.
func present(ctx context.Context, l *link, name string) (bool, error) {
	var path dbus.ObjectPath
	err := explain(l.call(ctx, systemdPath, managerIface+".GetUnit", name).Store(&path))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
