package machine

import (
	"errors"
	"fmt"
	"path"
)

// Who asked for the stop of a unit that does not run (Unit.StoppedBy). Anybody
// who is not this program counts as a person (S11): an administrator, a package
// script, another tool.
const (
	ByPerson  = "person"
	BySelf    = "fettle"  // through this Services, or by an earlier run of this program
	ByUnknown = "unknown" // the manager's log could not be read: treat as ByPerson where that is safer
)

// Errors that callers decide on. They are wrapped with operation and subject.
var (
	// ErrMasked: the unit is masked; somebody decided that it must not start.
	ErrMasked = errors.New("unit is masked")
	// ErrNotRunning: the unit has no main process to act on.
	ErrNotRunning = errors.New("unit is not running")
	// ErrHung: too many earlier calls to this mount point have not come back, so
	// this one was not made.
	ErrHung = errors.New("earlier calls hang in the kernel")
	// ErrOtherProcess: the process that was meant is gone; its number may be
	// another's by now.
	ErrOtherProcess = errors.New("not the process that was meant")
	// ErrLost: the connection to the manager broke; what was asked may have
	// been done.
	ErrLost = errors.New("connection to the service manager was lost")
)

// CheckPatterns returns path.ErrBadPattern, with the pattern, if one of the
// patterns for unit names is malformed.
func CheckPatterns(patterns []string) error {
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("unit pattern %q: %w (use *, ? and [a-z] as in path.Match)", p, err)
		}
	}
	return nil
}

// MatchUnit reports whether name matches one of the patterns; with none given,
// whether it is a service.
func MatchUnit(name string, patterns []string) bool {
	if len(patterns) == 0 {
		return path.Ext(name) == ".service"
	}
	for _, p := range patterns {
		if ok, err := path.Match(p, name); err == nil && ok {
			return true
		}
	}
	return false
}
