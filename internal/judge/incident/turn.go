package incident

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"fettle/internal/fettle"
)

// turnWait is how often an incident that waits for its turn asks again, when
// nothing else wakes it.
const turnWait = 5 * time.Second

// itsTurn reports whether a plan of this incident may begin now. It may not while
// another incident's plan is at work on the same thing: each would falsify what
// the other foretold, and take for its own doing what the other did. Where not, it
// has said so. A plan that a person took over keeps nobody waiting.
func (m *Mind) itsTurn(r *Record) bool {
	for _, id := range m.mayMeet(r) {
		other := m.records[id]
		if other == r || !other.atWork() {
			continue
		}
		if on, yes := m.meet(r, other); yes {
			m.hold(r, fmt.Sprintf("incident %s (%s) is at work on %s; this one waits for its end (`fettle incident refuse %s` hands that one to a person)", other.ID, other.Cause, on, other.ID), turnWait)
			return false
		}
	}
	return true
}

// mayMeet are the incidents whose plans are at work on something that meet may find.
func (m *Mind) mayMeet(r *Record) []string {
	m.armStale()
	ids := map[string]bool{}
	for _, s := range subjects(r) {
		maps.Copy(ids, m.works[s])
		path := fettle.Path(">uses")
		if s.Kind() == fettle.KindUnit {
			path = "<uses"
		}
		for _, other := range m.world.Related(s, path) {
			maps.Copy(ids, m.works[other])
		}
	}
	return slices.Sorted(maps.Keys(ids))
}

// atWork reports whether a plan has touched something and is not at its end.
func (r *Record) atWork() bool {
	return r.Plan != nil && !r.Progress.Mine && (r.begun() || r.inFlight() || r.Progress.Undoing)
}

// meet finds something that both incidents are about: the same subject, or a
// service and what runs as it. What else a thing uses (its filesystem) is mended
// under it: it may be what keeps the other plan from going on.
func (m *Mind) meet(r, other *Record) (fettle.Subject, bool) {
	mine, theirs := subjects(r), subjects(other)
	for _, s := range theirs {
		if slices.Contains(mine, s) && !(onlyStarts(r, s) && onlyStarts(other, s)) {
			return s, true
		}
	}
	if s, yes := m.runsAs(theirs, mine); yes {
		return s, true
	}
	return m.runsAs(mine, theirs)
}

// runsAs finds one of these that runs as one of those services.
func (m *Mind) runsAs(these, those []fettle.Subject) (fettle.Subject, bool) {
	for _, s := range these {
		for _, used := range m.world.Related(s, ">uses") {
			if s.Kind() != fettle.KindUnit && used.Kind() == fettle.KindUnit && slices.Contains(those, used) {
				return s, true
			}
		}
	}
	return "", false
}

// subjects are what an incident is about and what its plan, if it has one, works
// on, quorum groups included.
func subjects(r *Record) []fettle.Subject {
	list := []fettle.Subject{r.Cause.Subject}
	if r.Plan != nil {
		for _, s := range r.Plan.Steps {
			list = append(list, s.Target)
			if s.Group != "" {
				list = append(list, s.Group)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// onlyStarts reports whether all that a plan does to a quorum group is to start
// members of it. Of a group without a quorum several must be started at once: one
// alone does not come up.
func onlyStarts(r *Record, group fettle.Subject) bool {
	if r.Plan == nil || r.Cause.Subject == group {
		return false
	}
	for _, s := range r.Plan.Steps {
		if s.Target == group {
			return false
		}
		if s.Group == group && slices.ContainsFunc(s.Effects, func(e fettle.EffectSpec) bool {
			return e.Quorum != "" && e.Quorum != fettle.QuorumStart
		}) {
			return false
		}
	}
	return true
}
