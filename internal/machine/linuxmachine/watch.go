package linuxmachine

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"

	"fettle/internal/machine"
)

// Watch is told by systemd: nothing is polled, and a change goes to emit without
// another question to systemd. It returns machine.ErrLost when the connection
// breaks (also when systemd re-executes itself): call it again.
func (s *services) Watch(ctx context.Context, emit func(machine.Unit), patterns ...string) error {
	if err := machine.CheckPatterns(patterns); err != nil {
		return err
	}
	l, err := s.bus.connected(ctx)
	if err == nil {
		err = l.subscribe(ctx)
	}
	if err != nil {
		return fmt.Errorf("watch units: %w", err)
	}
	w := &watch{s: s, l: l, emit: emit, patterns: patterns, units: map[dbus.ObjectPath]*watchedUnit{}, sub: newSubscription()}
	l.mu.Lock()
	l.watches[w.sub] = true
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.watches, w.sub)
		l.mu.Unlock()
	}()
	err = w.run(ctx)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case !l.conn.Connected():
		return fmt.Errorf("watch units: %w", machine.ErrLost)
	}
	return fmt.Errorf("watch units: %w", err)
}

// watch is one running Watch. It is used by one goroutine.
type watch struct {
	s        *services
	l        *link
	emit     func(machine.Unit)
	patterns []string
	units    map[dbus.ObjectPath]*watchedUnit
	sub      *subscription
	stale    bool // unit files were read again: read all units again
}

// watchedUnit is a unit with what was told of it.
type watchedUnit struct {
	*unitState
	told      machine.Unit // what was emitted last
	everTold  bool
	job       uint32       // the last job seen
	jobKind   string       // "" where it was over before it could be asked
	jobFromUp bool         // the unit was up when the job was queued
	held      bool         // it is down with a job of unknown kind: the job's end tells why
	down      machine.Unit // as it is while it is held
}

func (w *watch) run(ctx context.Context) error {
	rules := propertyRules(nil)
	if len(w.patterns) > 0 && !slices.ContainsFunc(w.patterns, func(p string) bool { return !literal(p) }) {
		var paths []dbus.ObjectPath
		for _, name := range w.patterns {
			path, err := loadUnit(ctx, w.l, name) // an alias has another's object
			if err != nil {
				return fmt.Errorf("unit %s: %w", name, err)
			}
			paths = append(paths, path)
		}
		rules = propertyRules(paths)
	}
	for _, rule := range rules {
		if err := w.l.match(ctx, "AddMatch", rule); err != nil {
			return err
		}
		defer w.unmatch(rule)
	}
	if err := w.readAgain(ctx); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.l.conn.Context().Done():
			return machine.ErrLost
		case <-w.sub.wake:
		}
		for _, sig := range w.sub.take() {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := w.handle(ctx, sig); err != nil {
				return err
			}
		}
		if w.stale {
			if err := w.readAgain(ctx); err != nil {
				return err
			}
		}
	}
}

// unmatchTimeout bounds taking a rule back, when the context has ended already.
const unmatchTimeout = time.Second

func (w *watch) unmatch(rule string) {
	ctx, cancel := context.WithTimeout(context.Background(), unmatchTimeout)
	defer cancel()
	// If the bus does not answer, the rule goes with the connection.
	_ = w.l.match(ctx, "RemoveMatch", rule)
}

// readAgain reads all units that match, and those that did and are not loaded any
// more, and tells what has changed.
func (w *watch) readAgain(ctx context.Context) error {
	w.stale = false
	states, err := w.s.readAll(ctx, w.l, w.patterns)
	if err != nil {
		return err
	}
	seen := map[dbus.ObjectPath]bool{}
	var fresh []*unitState
	for _, st := range states {
		seen[st.path] = true
		if w.units[st.path] == nil {
			fresh = append(fresh, st)
		}
	}
	w.s.whoStoppedAll(ctx, fresh)
	for _, st := range states {
		w.renew(st)
	}
	var unseen []dbus.ObjectPath
	for path := range w.units {
		if !seen[path] {
			unseen = append(unseen, path)
		}
	}
	slices.Sort(unseen)
	states, err = w.s.read(ctx, w.l, unseen) // loads them for a moment, if they still exist
	for _, st := range states {
		w.renew(st)
		if st.unit.LoadState == "not-found" {
			delete(w.units, st.path)
		}
	}
	return err
}

// renew takes over a unit that was read. Of a known one only what its files say:
// how it does is told by signals, all of them and in order, and a state that was
// read would hide what led to it.
func (w *watch) renew(st *unitState) {
	wu := w.units[st.path]
	if wu == nil {
		w.adopt(st)
		return
	}
	known, u := &wu.unit, st.unit
	known.LoadState, known.UnitFileState, known.FragmentPath = u.LoadState, u.UnitFileState, u.FragmentPath
	known.Restart, known.NeedsDaemonReload = u.Restart, u.NeedsDaemonReload
	known.Wants, known.WantedBy, wu.needs, wu.needed = u.Wants, u.WantedBy, st.needs, st.needed
	if !wu.held {
		w.tell(wu)
	}
}

// adopt begins to follow a unit, or follows one again that had been forgotten,
// from the state that was read, StoppedBy set.
func (w *watch) adopt(st *unitState) {
	wu := &watchedUnit{unitState: st}
	if old := w.units[st.path]; old != nil {
		wu.told, wu.everTold = old.told, true
	}
	w.units[st.path] = wu
	wu.job, wu.jobKind, wu.jobFromUp = st.jobID, st.unit.Job, up(st.unit)
	w.tell(wu)
}

// tell emits a unit if it is another than was told last.
func (w *watch) tell(wu *watchedUnit) {
	if wu.everTold && (reflect.DeepEqual(wu.told, wu.unit) || wu.halfway()) {
		return
	}
	wu.told, wu.everTold = wu.unit, true
	u := wu.unit
	u.Wants, u.WantedBy = slices.Clone(u.Wants), slices.Clone(u.WantedBy)
	w.emit(u)
}

// halfway reports a unit that has begun a new invocation and still shows the
// state of the one before: systemd tells what it has before each change of state.
func (wu *watchedUnit) halfway() bool {
	return !up(wu.unit) && wu.unit.InvocationID != wu.told.InvocationID && wu.unit.StateChanged.Equal(wu.told.StateChanged)
}
