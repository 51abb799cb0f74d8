package incident

import (
	"fmt"
	"slices"
	"strings"

	"fettle/internal/fettle"
	"fettle/internal/judge/guard"
)

// fightsAfter is how often the same trouble may be put right, seen to be right, and be
// set back by somebody else, before Fettle stops. Once may be a job that had begun
// before; twice is somebody who means it.
const fightsAfter = 2

// fought reports whether somebody sets back what Fettle puts right, again and again.
// Then it has given the incident to a person, naming whom the facts name: two
// automations that undo each other mend nothing, and the other may have been told to.
// A trouble that comes back with nobody named is the ladder's: it goes on to the next
// rung, and ends with a person too.
func (m *Mind) fought(r *Record) bool {
	who := m.actors(r.Cause.Subject)
	if len(who) == 0 {
		return false
	}
	since := m.now.Add(-guard.Rate(m.policy).Window)
	var before []string
	for _, id := range m.past[r.Cause] {
		if o := m.records[id]; o != r && o.Cause == r.Cause && o.State == fettle.Resolved && o.begun() && !o.Progress.Mine && !o.Ended.Before(since) {
			before = append(before, id)
		}
	}
	if len(before) < fightsAfter {
		return false
	}
	slices.Sort(before)
	m.takeOver(r, fmt.Sprintf("it was put right %d times (incidents %s), and each time %s set it back; Fettle does not fight, and does no more about it: decide who is to have it, and tell the other",
		len(before), strings.Join(before, ", "), strings.Join(who, " and ")))
	return true
}

// actors are who, by the facts of a subject, changed it last, other than Fettle.
func (m *Mind) actors(s fettle.Subject) []string {
	var who []string
	for _, o := range m.world.Observations(s) {
		for _, c := range m.cats {
			for _, p := range c.Probes {
				if p.Name != o.Probe {
					continue
				}
				for _, f := range p.Facts {
					if by, ok := o.Facts.Str(f.Name); ok && f.Actor && by != "" && by != "fettle" {
						who = append(who, by)
					}
				}
			}
		}
	}
	slices.Sort(who)
	return slices.Compact(who)
}
