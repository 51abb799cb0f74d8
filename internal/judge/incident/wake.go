package incident

import (
	"maps"
	"slices"

	"fettle/internal/fettle"
)

// advanceAll moves every open incident as far as it goes without waiting that an input
// can have moved, in the order of their names.
func (m *Mind) advanceAll(in Input) {
	m.armStale()
	m.wake(in)
	ids := slices.Sorted(maps.Keys(m.woken))
	if m.thorough {
		ids = slices.Clone(m.sortedOpen())
	}
	clear(m.woken)
	for _, id := range ids {
		if r := m.records[id]; m.isOpen(r) {
			was := r.pace()
			m.advance(r, in)
			m.arm(r)
			if is := r.pace(); is != was && m.isOpen(r) {
				m.woken[id] = true
			}
		}
	}
}

// pace is what a look at an incident whose success is awaited may have changed.
type pace struct {
	Phase
	key             string
	done, step, try int
	since, deadline int64
	acted, due      int64
}

func (r *Record) pace() pace {
	p := &r.Progress
	return pace{p.Phase, p.Key, len(p.Done), p.Step, p.Try, p.Since.UnixNano(), p.Deadline.UnixNano(), p.Acted.UnixNano(), p.Due.UnixNano()}
}

// wake adds those for which this input, or its time, is.
func (m *Mind) wake(in Input) {
	wake := func(id string) { m.woken[id] = true }
	m.due.ring(m.now, wake)
	m.limits.ring(m.now, wake)
	if id := m.gathers[in.Gathered]; id != "" {
		wake(id)
	}
	if in.Outcome != nil {
		if id := m.outcomes[in.Outcome.Key]; id != "" {
			wake(id)
		}
	}
	maps.Copy(m.woken, m.always)
}

// notice takes in what has changed in the world: whom it wakes, and whose cause is
// raised no more, or again.
func (m *Mind) notice() {
	moves := m.world.Moves()
	for _, s := range moves.Subjects {
		maps.Copy(m.woken, m.reads[s])
		if s.Kind() == fettle.KindHost {
			m.hear(s)
		}
	}
	for _, k := range moves.Turned {
		if id, ok := m.byCause[k]; ok {
			m.woken[id] = true
			m.rest(m.records[id])
		}
		m.reap(k) // also of one that is judged for the first time after a restart, which is no change to tell
		if c, ok := m.world.Condition(k); !ok || c.State == fettle.No {
			delete(m.earlier, k)
		}
	}
	m.rise(moves.Risen)
	for _, k := range moves.Risen {
		delete(m.earlier, k)
	}
	if moves.Arcs && len(m.rises) > 0 {
		// any order: each is looked at by itself
		for id, before := range m.before {
			if before < len(m.rises) { // what could not have followed from its step may now
				m.woken[id] = true
			}
		}
	}
}

// hear notes whether a host has told everything.
func (m *Mind) hear(host fettle.Subject) {
	if all, known := m.world.Fact(host, "settled").(bool); known && !all {
		m.unheard[host] = true
	} else {
		delete(m.unheard, host)
	}
}

// rest notes whether the cause of an incident is raised.
func (m *Mind) rest(r *Record) {
	if c, ok := m.world.Condition(r.Cause); !ok || !c.Raised() {
		m.restless[r.ID] = true
	} else {
		delete(m.restless, r.ID)
	}
}

// rise wakes those from whose step a condition that was raised can follow. It keeps
// which were while the success of a step was awaited: harm is among them. What an
// incident of before a restart was about was there already, and only its word comes now.
func (m *Mind) rise(keys []fettle.ConditionKey) {
	if len(m.before) == 0 {
		m.rises = nil
		return
	}
	m.foldRises()
	for _, k := range keys {
		spec := m.specs[k.Code]
		if spec == nil || spec.Severity != fettle.Critical || m.earlier[k] {
			continue
		}
		m.rises = append(m.rises, k)
		for _, path := range m.leads[k.Code] {
			for _, s := range m.world.Related(k.Subject, path) {
				maps.Copy(m.woken, m.targets[s])
			}
		}
	}
}

// foldRises keeps the list of what was raised short: of a condition that comes and goes
// while a step is awaited that nobody hears of, the last time is enough.
func (m *Mind) foldRises() {
	const most = 1 << 12
	if len(m.rises) < most || len(m.rises) < 2*m.distinct {
		return
	}
	last := make(map[fettle.ConditionKey]int, m.distinct)
	for i, k := range m.rises {
		last[k] = i
	}
	m.distinct = len(last)
	kept := make([]int, 0, len(last))
	for i, k := range m.rises {
		if last[k] == i {
			m.rises[len(kept)] = k
			kept = append(kept, i)
		}
	}
	m.rises = m.rises[:len(kept)]
	// any order: each is counted by itself
	for id, before := range m.before {
		m.before[id], _ = slices.BinarySearch(kept, before)
	}
}

// sinceIntent are the critical conditions that may have been raised since an
// incident's step in flight was intended, sorted and without repeats.
func (m *Mind) sinceIntent(r *Record) []fettle.ConditionKey {
	keys := slices.Clone(m.rises[min(m.before[r.ID], len(m.rises)):])
	slices.SortFunc(keys, fettle.ConditionKey.Compare)
	return slices.Compact(keys)
}
