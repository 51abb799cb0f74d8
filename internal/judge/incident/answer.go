package incident

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/runbook"
)

// level is the policy's on the present plan.
func (m *Mind) level(r *Record) (fettle.Level, string) {
	return m.Level(*r.Plan)
}

// CheckAnswer says whether a person's answer can be taken, before it is fed to
// Take. The error ends in what to do instead.
func (m *Mind) CheckAnswer(a Answer) error {
	r := m.records[a.Incident]
	switch {
	case r == nil:
		return fmt.Errorf("incident %s: there is none of this name (see `fettle incidents`)", a.Incident)
	case a.By == "":
		return fmt.Errorf("incident %s: an answer needs the name of who gives it", a.Incident)
	}
	switch a.Say {
	case SayApprove:
		switch {
		case r.State.Ended():
			return fmt.Errorf("incident %s: it has ended (%s); there is nothing to approve", a.Incident, r.State)
		case r.Plan == nil:
			return fmt.Errorf("incident %s: it has no plan to approve (%s)", a.Incident, r.Why)
		case r.begun() || r.inFlight():
			return fmt.Errorf("incident %s: its plan has begun; there is nothing to approve", a.Incident)
		case a.Plan != r.Plan.Hash:
			return fmt.Errorf("incident %s: the plan is now %.12s, not %.12s (look at it again with `fettle incident show %s`)", a.Incident, r.Plan.Hash, a.Plan, a.Incident)
		case !a.Until.After(m.now):
			return fmt.Errorf("incident %s: the approval has ended already", a.Incident)
		}
	case SayRefuse:
		if r.State.Ended() {
			return fmt.Errorf("incident %s: it has ended (%s)", a.Incident, r.State)
		}
	case SayUndo:
		switch {
		case lastDone(r) == nil && len(r.Progress.Left) == 0:
			return fmt.Errorf("incident %s: nothing was done that could be taken back", a.Incident)
		case r.State.Ended() && m.byCause[r.Cause] != "" && m.byCause[r.Cause] != r.ID:
			return fmt.Errorf("incident %s: incident %s is open on the same trouble; refuse that one first, then take this one back", a.Incident, m.byCause[r.Cause])
		case r.inFlight():
			return fmt.Errorf("incident %s: a step is under way; refuse it first, then take back", a.Incident)
		}
	default:
		return fmt.Errorf("incident %s: unknown answer %q; known: approve, refuse, undo", a.Incident, a.Say)
	}
	return nil
}

// answer takes a person's answer in. One that cannot be taken is told in the
// story and changes nothing.
func (m *Mind) answer(in Input) {
	if in.Freeze != nil || in.Thaw || in.Policy != nil || in.Leader != nil || in.Window != nil || in.EndWindow != "" {
		for _, id := range m.sortedOpen() {
			m.poke(m.records[id])
		}
	}
	if in.Answer == nil {
		return
	}
	a := *in.Answer
	if err := m.CheckAnswer(a); err != nil {
		if r := m.records[a.Incident]; r != nil {
			m.tell(r, fettle.Event{Kind: fettle.EvNote, By: a.By, Text: "not taken: " + err.Error()})
		}
		return
	}
	r := m.records[a.Incident]
	text := string(a.Say)
	if a.Why != "" {
		text += ": " + a.Why
	}
	m.tell(r, fettle.Event{Kind: fettle.EvAnswered, By: a.By, Text: text})
	switch a.Say {
	case SayApprove:
		r.Progress.Approval = &guard.Approval{Plan: a.Plan, By: a.By, Until: a.Until, Note: a.Note, Certificate: a.Certificate}
		r.Progress.Again = 0
		r.Progress.Mine = false
		m.poke(r)
	case SayRefuse:
		m.takeOver(r, a.By+" took it over")
	case SayUndo:
		if r.State.Ended() {
			r.Ended = time.Time{}
			m.opens(r.Cause, r.ID)
		}
		r.Progress.Mine = false
		m.beginUndo(r, a.By+" asked for it", true)
	}
}

// Restore takes records back in after a restart, before the first input. What
// was in flight is asked for at the next Take.
func (m *Mind) Restore(records []Record, freeze *guard.Freeze) {
	slices.SortFunc(records, func(a, b Record) int { return cmpText(a.ID, b.ID) })
	m.freeze = freeze
	for i := range records {
		r := records[i].clone()
		m.remember(r)
		m.attempts = append(m.attempts, r.Progress.Attempts...)
		if r.State.Ended() {
			continue
		}
		m.opens(r.Cause, r.ID)
		r.restored = true
		for _, k := range r.Conditions {
			m.earlier[k] = true
		}
		m.poke(r)
		m.resume(r)
	}
	m.notice() // whatever was raised before the first input may be harm that came since
	slices.SortStableFunc(m.attempts, func(a, b guard.Attempt) int { return a.At.Compare(b.At) })
}

// resume makes an incident go on from its record: a dispatch that may be under
// way is recovered, everything else is looked at afresh.
func (m *Mind) resume(r *Record) {
	p := &r.Progress
	soon := time.Unix(0, 0).UTC() // due at once, whatever the clock says
	switch p.Phase {
	case PhaseIntent, PhaseRecover:
		p.Phase, p.Due = PhaseRecover, soon
		if step, undo := m.flying(r); !undo {
			m.world.Hold(p.Key, step.Claims)
		}
		m.before[r.ID] = 0
	case PhaseVerify, PhaseHold, PhaseClear:
		m.before[r.ID] = 0
		p.Due, p.Deadline = soon, time.Time{} // nobody looked while there was no server
	case PhaseGather, PhaseSettle:
		p.Phase, p.Due = PhaseIdle, soon
	default:
		p.Due = soon
	}
}

// Level returns what the policy says of a plan, and why.
func (m *Mind) Level(p fettle.Plan) (fettle.Level, string) {
	return runbook.Level(m.policy, p, runbook.Reversible(p))
}

// NotSkipped returns the steps of a plan that, on the facts as they are, would
// not be skipped.
func (m *Mind) NotSkipped(p fettle.Plan) []fettle.Step {
	r := &Record{Incident: fettle.Incident{Plan: &p, Cause: p.Cause}}
	var out []fettle.Step
	for _, s := range p.Steps {
		if skip, _ := m.skip(r, s); !skip {
			out = append(out, s)
		}
	}
	return out
}

// Severity returns a condition's severity; that of a code that no catalogue here
// has is critical: what is not known is not belittled.
func (m *Mind) Severity(code fettle.Code) fettle.Severity {
	if s := m.specs[code]; s != nil {
		return s.Severity
	}
	return fettle.Critical
}

// Signers are the certificates (DER) of the people who signed the approvals under which
// plans may go on.
func (m *Mind) Signers() [][]byte {
	var list [][]byte
	for _, id := range slices.Sorted(maps.Keys(m.records)) {
		r := m.records[id]
		a := r.Progress.Approval
		if !r.State.Ended() && a != nil && len(a.Certificate) > 0 && (r.begun() || m.now.Before(a.Until)) {
			list = append(list, a.Certificate)
		}
	}
	return list
}
