package incident

import (
	"slices"
	"time"

	"fettle/internal/judge/guard"
)

// memoryWindows is for how many of the ladder's windows an incident that has ended is
// remembered, however little room there is: a window may be widened, and what was tried in
// it must count then (S10).
const memoryWindows = 2

// Forgettable returns the incidents that can go to a file, the one that ended first
// first: they ended before a time, and are not among so many that ended last. What the
// ladder, a fight or an aftermath may still ask for is not among them.
func (m *Mind) Forgettable(newest int, before time.Time) []string {
	if floor := m.remembers(); before.After(floor) {
		before = floor
	}
	var list []*Record
	// any order: they are sorted below
	for _, r := range m.records {
		if r.State.Ended() {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b *Record) int {
		if c := a.Ended.Compare(b.Ended); c != 0 {
			return c
		}
		return cmpText(a.ID, b.ID)
	})
	var ids []string
	for _, r := range list[:max(0, len(list)-newest)] {
		if r.Ended.Before(before) {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// remembers is since when nothing is forgotten.
func (m *Mind) remembers() time.Time {
	return m.now.Add(-memoryWindows * guard.Rate(m.policy).Window)
}

// forget lets go of incidents that are in files. One that is not Forgettable any more,
// since somebody asked to have it taken back, stays.
func (m *Mind) forget(ids []string) {
	floor := m.remembers()
	for _, id := range ids {
		if r := m.records[id]; r != nil && r.State.Ended() && r.Ended.Before(floor) && !m.dirty[id] {
			m.unremember(r)
		}
	}
	if len(ids) > 0 {
		m.attempts = slices.DeleteFunc(m.attempts, func(a guard.Attempt) bool { return a.At.Before(floor) })
	}
}
