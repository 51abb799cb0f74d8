package incident

import (
	"slices"

	"fettle/internal/fettle"
	"fettle/internal/judge/guard"
)

// Merged is what an agent went through alone while it was cut off, as far as it is
// about incidents. Whoever feeds it has checked that the agent speaks for its host.
type Merged struct {
	Alone   fettle.Alone `json:"alone"`
	Records []Record     `json:"records"` // the agent's own, times on our clock
}

// merge takes incidents of an agent that was cut off among those that are remembered.
// None is gone on with: what is left of the trouble is seen and has an incident of its
// own. What was tried counts (S10). The same told twice changes nothing; an incident of
// anybody else is never replaced.
func (m *Mind) merge(in Merged) {
	for i := range in.Records {
		r := in.Records[i].clone()
		was := m.records[r.ID]
		if was != nil && (!was.Alone.Same(in.Alone) || was.Alone.Events >= len(r.Story)) {
			continue
		}
		// Only what a person may want back, and what counts, is taken over.
		r.Progress = Progress{Phase: PhaseIdle, Since: m.now, Attempt: r.Progress.Attempt, Rung: r.Progress.Rung, Try: r.Progress.Try, Attempts: r.Progress.Attempts,
			Done: r.Progress.Done, Left: r.Progress.Left}
		if r.Plan == nil {
			r.Progress.Done = nil
		}
		alone := in.Alone
		alone.Events = len(r.Story)
		r.Alone = &alone
		m.remember(r)
		m.dirty[r.ID] = true
		if was != nil { // told again, their times may differ by what clocks are unsure of
			m.attempts = slices.DeleteFunc(m.attempts, func(a guard.Attempt) bool { return slices.Contains(was.Progress.Attempts, a) })
		}
		for _, a := range r.Progress.Attempts {
			if a.Cause == r.Cause {
				m.attempts = append(m.attempts, a)
			}
		}
		if !r.State.Ended() {
			const why = "its agent is in contact again: what is left of it is looked after from here"
			m.tell(r, fettle.Event{Kind: fettle.EvNote, Text: why})
			m.end(r, fettle.Closed, why)
		}
	}
	slices.SortStableFunc(m.attempts, func(a, b guard.Attempt) int { return a.At.Compare(b.At) })
}

// Busy reports whether a step is under way or its success is awaited: what a mind that
// stops should wait for.
func (m *Mind) Busy() bool {
	// any order: one is enough
	for _, id := range m.byCause {
		switch r := m.records[id]; r.Progress.Phase {
		case PhaseIntent, PhaseRecover, PhaseVerify, PhaseHold:
			return true
		case PhaseClear:
			if !r.Progress.Mine {
				return true
			}
		}
	}
	return false
}

// Policy returns what the owners of the fleet permit, as this mind has it.
func (m *Mind) Policy() fettle.Policy { return m.policy }
