package linuxmachine

import (
	"encoding/hex"
	"path/filepath"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"

	"fettle/internal/machine"
)

// unitState is a unit as systemd's properties say, kept up to date by its signals.
type unitState struct {
	unit  machine.Unit
	clock *clock

	path    dbus.ObjectPath
	kind    string        // Type= of a service
	asOf    dbus.Sequence // signals before this one are older than what was read
	jobID   uint32
	jobPath dbus.ObjectPath
	// CLOCK_MONOTONIC in µs when ActiveState last went over each of its borders.
	borders struct{ inactiveExit, activeEnter, activeExit, inactiveEnter uint64 }
	needs   [4][]string // Requires, Requisite, BindsTo, Wants
	needed  [4][]string // RequiredBy, RequisiteOf, BoundBy, WantedBy
}

// typeIface is the interface of a unit's own type, "" for types that have no
// Result.
func typeIface(name string) string {
	switch filepath.Ext(name) {
	case ".service":
		return "org.freedesktop.systemd1.Service"
	case ".socket":
		return "org.freedesktop.systemd1.Socket"
	case ".mount":
		return "org.freedesktop.systemd1.Mount"
	case ".timer":
		return "org.freedesktop.systemd1.Timer"
	case ".scope":
		return "org.freedesktop.systemd1.Scope"
	case ".path":
		return "org.freedesktop.systemd1.Path"
	}
	return ""
}

// typeProperties are read one by one: all of a service's would make systemd read
// the files of its cgroup, some hundred values to throw away.
func typeProperties(name string) []string {
	if filepath.Ext(name) == ".service" {
		return []string{"MainPID", "Result", "ExecMainCode", "ExecMainStatus", "NRestarts", "Restart", "Type"}
	}
	return []string{"Result"}
}

// merge takes over what of props is known here.
func (s *unitState) merge(props map[string]dbus.Variant) {
	for name, v := range props {
		s.set(name, v)
	}
	b := s.borders
	if last := max(b.inactiveExit, b.activeEnter, b.activeExit, b.inactiveEnter); last > 0 {
		s.unit.StateChanged = s.clock.at(time.Duration(last) * time.Microsecond)
	}
	if s.jobID == 0 {
		s.unit.Job = ""
	}
}

func (s *unitState) set(name string, v dbus.Variant) {
	u := &s.unit
	switch name {
	case "Id":
		take(v, &u.Name)
	case "LoadState":
		take(v, &u.LoadState)
	case "ActiveState":
		take(v, &u.ActiveState)
	case "SubState":
		take(v, &u.SubState)
	case "UnitFileState":
		take(v, &u.UnitFileState)
	case "FragmentPath":
		take(v, &u.FragmentPath)
	case "NeedDaemonReload":
		take(v, &u.NeedsDaemonReload)
	case "Result":
		take(v, &u.Result)
	case "Restart":
		take(v, &u.Restart)
	case "Type":
		take(v, &s.kind)
	case "MainPID":
		number(v, &u.MainPID)
	case "ExecMainCode":
		number(v, &u.ExecMainCode)
	case "ExecMainStatus":
		number(v, &u.ExecMainStatus)
	case "NRestarts":
		number(v, &u.NRestarts)
	case "InvocationID":
		if id, ok := v.Value().([]byte); ok {
			u.InvocationID = hex.EncodeToString(id)
		}
	case "Job":
		if job, ok := v.Value().([]any); ok && len(job) == 2 {
			s.jobID, _ = job[0].(uint32)
			s.jobPath, _ = job[1].(dbus.ObjectPath)
		}
	case "InactiveExitTimestampMonotonic":
		take(v, &s.borders.inactiveExit)
	case "ActiveEnterTimestampMonotonic":
		take(v, &s.borders.activeEnter)
	case "ActiveExitTimestampMonotonic":
		take(v, &s.borders.activeExit)
	case "InactiveEnterTimestampMonotonic":
		take(v, &s.borders.inactiveEnter)
	default:
		s.setNeeds(name, v)
	}
}

func (s *unitState) setNeeds(name string, v dbus.Variant) {
	list, ok := v.Value().([]string)
	if !ok {
		return
	}
	if i := slices.Index([]string{"Requires", "Requisite", "BindsTo", "Wants"}, name); i >= 0 {
		s.needs[i] = list
		s.unit.Wants = union(s.needs)
	}
	if i := slices.Index([]string{"RequiredBy", "RequisiteOf", "BoundBy", "WantedBy"}, name); i >= 0 {
		s.needed[i] = list
		s.unit.WantedBy = union(s.needed)
	}
}

func union(lists [4][]string) []string {
	all := slices.Concat(lists[:]...)
	slices.Sort(all)
	return slices.Compact(all)
}

// take stores a property of the type that it is known to have; another type is a
// systemd that we do not know, and leaves what was there.
func take[T any](v dbus.Variant, to *T) {
	if x, ok := v.Value().(T); ok {
		*to = x
	}
}

func number(v dbus.Variant, to *int) {
	switch n := v.Value().(type) {
	case uint32:
		*to = int(n)
	case int32:
		*to = int(n)
	}
}

// up reports that the unit runs, or is on the way there or down from there.
func up(u machine.Unit) bool {
	switch u.ActiveState {
	case "inactive", "failed", "":
		return false
	}
	return true
}
