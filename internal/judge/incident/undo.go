package incident

import (
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/guard"
)

// beginUndo takes back what the plan did, last step first; for a person, also what
// plans did that failed before it.
func (m *Mind) beginUndo(r *Record, why string, byPerson bool) {
	r.Progress.Undoing, r.Progress.UndoWhy, r.Progress.UndoAll = true, why, byPerson
	if !byPerson {
		m.tell(r, fettle.Event{Kind: fettle.EvFailed, Text: why + "; what was done is taken back"})
	}
	r.State, r.Why = fettle.Undoing, why
	r.Progress.Again = 0
	m.startUndo(r)
}

func lastDone(r *Record) *DoneStep {
	for i := len(r.Progress.Done) - 1; i >= 0; i-- {
		if d := &r.Progress.Done[i]; !d.Undone && !d.Skipped {
			return d
		}
	}
	return nil
}

func (m *Mind) startUndo(r *Record) {
	d := lastDone(r)
	if d == nil && r.Progress.UndoAll && len(r.Progress.Left) > 0 {
		last := len(r.Progress.Left) - 1
		left := r.Progress.Left[last]
		r.Plan, r.Progress.Done, r.Progress.Left = &left.Plan, left.Done, r.Progress.Left[:last]
		d = lastDone(r)
	}
	if d == nil {
		m.takeOver(r, "everything was taken back ("+r.Progress.UndoWhy+"); a person must go on from here")
		return
	}
	looks := append(m.looksAt(d.Step.Target), d.Step.Looks...)
	if d.Step.Group != "" {
		looks = append(looks, m.looksAt(d.Step.Group)...)
	}
	m.gather(r, m.notFreshByAll(looks, m.freshFrom(r, d.Step.Fresh)), d.Key+".undo?", d.Step.Fresh)
}

// decideUndo asks the guards: an undo is a guarded step.
func (m *Mind) decideUndo(r *Record) {
	d := lastDone(r)
	verdicts := m.guarded(guard.Check(m.question(r, d.Step, m.world, true)))
	if !guard.Allowed(verdicts) {
		no := guard.Refusals(verdicts)[0]
		m.tell(r, fettle.Event{Kind: fettle.EvRefused, Step: d.ID, Text: "taking back " + d.ID + " refused by " + no.Guard + " (" + no.Invariant + "): " + no.Why, Verdicts: verdicts})
		if no.Guard == "freshness" && r.Progress.Again < restAfter { // it is looked at anew, as for a step ahead
			r.Progress.Again++
			m.phase(r, PhaseIdle, m.now.Add(backoff(r.Progress.Again)))
			return
		}
		m.takeOver(r, "it could not be taken back: "+no.Why)
		return
	}
	r.Progress.Again = 0
	m.intend(r, d.Step, verdicts, true, d.Outputs)
}

func (m *Mind) undone(r *Record, o fettle.Outcome) {
	d := lastDone(r)
	m.world.Release(r.Progress.Key)
	d.Undone = true
	m.tell(r, fettle.Event{Kind: fettle.EvUndone, Step: d.ID, Key: o.Key, Text: "taken back", Took: o.Took})
	m.phase(r, PhaseIdle, time.Time{})
	m.startUndo(r)
}
