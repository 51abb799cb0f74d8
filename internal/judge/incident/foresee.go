package incident

import (
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/world"
)

// foresee asks the guards about every step after the present one, on the world as
// the steps before it are foretold to leave it. It returns the first that would be
// refused, with what was said of it, and nothing where none would: a plan is not
// begun to be stopped half-way by what is known beforehand. Each step is judged
// again, on fresh facts, when its turn comes.
func (m *Mind) foresee(r *Record) (fettle.Step, []fettle.Verdict) {
	var view world.View = m.world
	for i, step := range r.Plan.Steps[r.Progress.Step:] {
		if step.When != "" {
			if needed, _ := m.ask3(step.When, r, step, view); needed == fettle.No {
				continue
			}
		}
		if i > 0 {
			if verdicts := m.guarded(guard.Foresee(m.askedAhead(r, step, view))); !guard.Allowed(verdicts) {
				return step, verdicts
			}
		}
		_, next, err := m.predict(r, view, step)
		if err != nil {
			return step, []fettle.Verdict{{Guard: "foreseen", Invariant: "S2", Why: "what it leaves behind cannot be foretold: " + err.Error(), Lifts: "a new plan from the facts as they are now"}}
		}
		view = next
	}
	return fettle.Step{}, nil
}

// askedAhead is the question about a later step. Of a plan that waits for a
// person's approval it is asked as if it were given: that it is missing is said of
// the first step.
func (m *Mind) askedAhead(r *Record, step fettle.Step, view world.View) guard.Question {
	q := m.question(r, step, view, false)
	if q.Approval == nil && q.Level < fettle.Automatic {
		q.Approval = &guard.Approval{Plan: r.Plan.Hash, Until: m.now.Add(time.Minute)}
	}
	return q
}
