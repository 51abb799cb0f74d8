package systemd

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// loopWindow is the time over which starts are counted.
const loopWindow = 10 * time.Minute

// starts counts the invocations of each unit that were seen. It is measured, not
// judged: the manager's own counter (NRestarts) has no time in it.
type starts struct {
	mu    sync.Mutex
	units map[string]*seen
}

type seen struct {
	last string // invocation
	at   []time.Time
}

func newStarts() *starts { return &starts{units: map[string]*seen{}} }

// count notes an invocation and returns how many began within the window. The
// one that was there when the unit was first seen began no later than the unit's
// state last changed; where that is not known it does not count.
func (s *starts) count(unit, invocation string, changed, now time.Time) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.units[unit]
	if u == nil {
		u = &seen{last: invocation}
		s.units[unit] = u
		if invocation != "" && !changed.IsZero() {
			u.at = append(u.at, changed)
		}
	}
	if invocation != "" && invocation != u.last {
		u.last = invocation
		u.at = append(u.at, now)
	}
	for len(u.at) > 0 && now.Sub(u.at[0]) > loopWindow {
		u.at = u.at[1:]
	}
	return int64(len(u.at))
}

// known returns the names of the units that were seen, sorted.
func (s *starts) known() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.units))
}
