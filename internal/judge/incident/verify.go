package incident

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/plan"
	"fettle/internal/judge/world"
)

type viewer = world.View

// outcome takes in what an agent says became of a dispatch.
func (m *Mind) outcome(r *Record, o fettle.Outcome) {
	p := &r.Progress
	step, undo := m.flying(r)
	if o.Class != fettle.Refused && o.Fate == fettle.Done { // its agent took it: what was refused before is over
		p.Again, p.Refused, p.RefusalTold = 0, time.Time{}, false
	}
	switch {
	case o.Class == fettle.Refused && o.Fate == fettle.NeverWillBe:
		m.world.Release(p.Key)
		if !undo && !r.begun() {
			m.unattempt(r)
		}
		m.refused(r, step, []fettle.Verdict{{Guard: "agent", Invariant: "S7", Why: "the agent refused: " + o.Error, Lifts: "see the reason"}})
	case o.Fate == fettle.NeverWillBe:
		m.world.Release(p.Key)
		m.tell(r, fettle.Event{Kind: fettle.EvNote, Step: step.ID, Key: o.Key, Text: o.Key + " was never done and never will be"})
		if !undo && !r.begun() {
			m.unattempt(r)
		}
		if p.Again++; p.Try > stepTries*len(r.Plan.Steps)+stepTries {
			m.failed(r, "it could not be brought to happen: "+o.Error)
			return
		}
		r.State, r.Why = fettle.Held, "the step never reached its machine: "+o.Error
		m.phase(r, PhaseIdle, m.now.Add(backoff(p.Again)))
	case o.Fate != fettle.Done:
		if p.Phase == PhaseIntent {
			p.Again = 0
		}
		m.phase(r, PhaseRecover, m.now.Add(backoff(p.Again)))
		m.unanswered(r, step, o)
		if p.Again > 8 {
			m.stuck(r, o)
		}
	case o.Class != "":
		m.failedStep(r, step, fmt.Sprintf("%s: %s", o.Class, o.Error))
	case undo:
		m.undone(r, o)
	default:
		m.done(r, step, o)
	}
}

// unanswered says why an agent does not say what became of a dispatch. A refusal is no
// word about it: who is asked may have begun the step before it came to refuse.
func (m *Mind) unanswered(r *Record, step fettle.Step, o fettle.Outcome) {
	if o.Class != fettle.Refused {
		return
	}
	why := "the agent refuses to say what became of " + o.Key + ": " + o.Error
	if r.Why == why {
		return
	}
	r.Why = why
	m.tell(r, fettle.Event{Kind: fettle.EvNote, Step: step.ID, Key: o.Key, Text: why})
}

// unattempt forgets the last attempt: its first step was never done, so nothing
// was tried, the plan is still the one that a person may have approved, and the
// ladder need not remember it.
func (m *Mind) unattempt(r *Record) {
	p := &r.Progress
	if len(p.Attempts) == 0 {
		return
	}
	last := p.Attempts[len(p.Attempts)-1]
	p.Attempts = p.Attempts[:len(p.Attempts)-1]
	p.Attempt--
	if i := slices.Index(m.attempts, last); i >= 0 {
		m.attempts = slices.Delete(m.attempts, i, i+1)
	}
}

// done goes from the step's answer to its verification.
func (m *Mind) done(r *Record, step fettle.Step, o fettle.Outcome) {
	p := &r.Progress
	text := "done"
	if len(o.Result.Notes) > 0 {
		text = strings.Join(o.Result.Notes, "; ")
	}
	m.tell(r, fettle.Event{Kind: fettle.EvDone, Step: step.ID, Key: o.Key, Text: text, Took: o.Took})
	p.Done = append(p.Done, DoneStep{ID: step.ID, Step: step, Key: o.Key, Outputs: o.Result.Outputs})
	r.Receipts = append(r.Receipts, o.Result.Receipts...)
	if v := guard.CheckReceipts(step, o.Result); !v.Allow {
		m.world.Release(p.Key)
		m.takeOver(r, v.Why)
		return
	}
	p.Predicted = m.complete(r, step, o.Result.Outputs)
	p.Acted, p.Again = m.now, 0
	p.Deadline = m.now.Add(step.Within)
	r.State = fettle.Verifying
	m.phase(r, PhaseVerify, m.now)
	m.check(r, true, false)
}

// complete adds to the prediction what depends on the step's outputs.
func (m *Mind) complete(r *Record, step fettle.Step, out fettle.Facts) []fettle.Prediction {
	before := r.Progress.Predicted
	late, _, err := plan.Predict(m.world, step, out, r.outputs(), m.env)
	if err != nil {
		return before
	}
	list := slices.Clone(before)
	for _, l := range late {
		i := slices.IndexFunc(list, func(p fettle.Prediction) bool { return p.Subject == l.Subject })
		if i < 0 {
			list = append(list, fettle.Prediction{Step: l.Step, Subject: l.Subject, Facts: l.Facts})
			continue
		}
		facts := list[i].Facts.Clone()
		// any order: each name is put under itself
		for name, v := range l.Facts {
			if _, has := facts[name]; !has {
				if facts == nil {
					facts = fettle.Facts{}
				}
				facts[name] = v
			}
		}
		list[i].Facts = facts
	}
	return list
}

// check holds the step's expectation and prediction against what was observed
// since it was done. due: it is time to look again; looked: a look came back.
func (m *Mind) check(r *Record, due, looked bool) {
	p := &r.Progress
	step := p.Done[len(p.Done)-1].Step
	if harm := m.harm(r, step); len(harm) > 0 {
		m.world.Release(p.Key)
		m.beginUndo(r, "new harm after "+step.ID+": "+strings.Join(harm, ", "), false)
		return
	}
	if p.Deadline.IsZero() {
		wait := max(step.Within, returnWait)
		if p.Phase == PhaseHold {
			wait = step.Hold
		}
		p.Deadline = m.now.Add(wait)
	}
	missing := m.missing(r, step)
	switch {
	case len(missing) == 0 && p.Phase == PhaseVerify:
		if step.Hold == 0 {
			m.verified(r, step)
			return
		}
		m.phase(r, PhaseHold, m.now.Add(step.Hold))
		p.Deadline = m.now.Add(step.Hold)
		return
	case len(missing) == 0 && !m.now.Before(p.Deadline):
		if !looked { // the end of a hold is looked at, not remembered
			p.Acted = m.now
			m.lookAgain(r, step)
			p.Deadline = m.now
			p.Phase = PhaseVerify
			p.Deadline = m.now.Add(max(step.Within, gatherWait))
			r.Progress.Done[len(p.Done)-1].Step.Hold = 0
			return
		}
		m.verified(r, step)
		return
	case p.Phase == PhaseHold && len(missing) > 0 && !onlyUnseen(missing):
		m.failedStep(r, step, "it did not hold: "+join(missing))
		return
	case p.Phase == PhaseVerify && !m.now.Before(p.Deadline) && onlyUnseen(missing) && m.now.Before(p.Deadline.Add(returnWait)):
		// Who would see it is away: that is not to see that it failed.
	case p.Phase == PhaseVerify && !m.now.Before(p.Deadline) && len(missing) > 0:
		m.failedStep(r, step, fmt.Sprintf("not observed within %v: %s", step.Within, join(missing)))
		return
	}
	if due || looked {
		m.again(r, step, due && !looked)
	}
}

// again looks now, or plans the next look: soon at first, then ever slower.
func (m *Mind) again(r *Record, step fettle.Step, now bool) {
	p := &r.Progress
	if now {
		m.lookAgain(r, step)
		return
	}
	p.Again++
	next := m.now.Add(min(100*time.Millisecond<<min(p.Again, 5), 2*time.Second))
	if p.Deadline.Before(next) && p.Deadline.After(m.now) {
		next = p.Deadline
	}
	p.Due = next
}

func (m *Mind) lookAgain(r *Record, step fettle.Step) {
	p := &r.Progress
	looks := append(slices.Clone(step.Looks), m.looksAt(step.Target)...)
	for _, pr := range p.Predicted {
		looks = append(looks, m.looksAt(pr.Subject)...)
	}
	if step.Group != "" {
		looks = append(looks, m.looksAt(step.Group)...)
	}
	looks = append(looks, m.looksAt(r.Cause.Subject)...)
	p.Due = m.now.Add(gatherWait + time.Second)
	m.decisions = append(m.decisions, Decision{Kind: Gather, Incident: r.ID, Key: p.Key + "!", Looks: dedupe(looks), Within: gatherWait})
}

func dedupe(looks []fettle.Look) []fettle.Look {
	var out []fettle.Look
	for _, l := range looks {
		if !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return out
}

type lack struct {
	text   string
	unseen bool // nobody has looked yet, as opposed to seen otherwise
}

func onlyUnseen(list []lack) bool {
	return !slices.ContainsFunc(list, func(l lack) bool { return !l.unseen })
}

func join(list []lack) string {
	texts := make([]string, len(list))
	for i, l := range list {
		texts[i] = l.text
	}
	return strings.Join(texts, "; ")
}

// missing is what keeps the step from being verified.
func (m *Mind) missing(r *Record, step fettle.Step) []lack {
	var out []lack
	traced := m.world.Traced()
	view := traced.Since(r.Progress.Acted)
	if step.Expect != "" {
		switch says, err := m.ask3(step.Expect, r, step, view); {
		case says == fettle.No:
			out = append(out, lack{"expected " + step.Expect, false})
		case says == fettle.Unknown && err != nil:
			out = append(out, lack{"expected " + step.Expect + ", which cannot be known: " + err.Error(), true})
		case says == fettle.Unknown:
			out = append(out, lack{"expected " + step.Expect + ", not known yet", true})
		}
	}
	for _, d := range plan.Compare(r.Progress.Predicted, traced, r.Progress.Acted) {
		out = append(out, lack{d.Text, d.Unseen})
	}
	reads, only := traced.Read()
	m.hangs(r, reads, !only)
	return out
}

// harmMargin is how much before the step's intent a condition must have been seen
// first to be none of its doing: more than the clocks of two machines are apart.
const harmMargin = time.Second

// harm lists the conditions that were raised since the step was begun, are not
// part of this trouble, and can by the catalogues follow from what it touched.
func (m *Mind) harm(r *Record, step fettle.Step) []string {
	var out []string
	for _, k := range m.sinceIntent(r) {
		c, _ := m.world.Condition(k)
		if _, was := slices.BinarySearchFunc(r.Progress.Baseline, k, fettle.ConditionKey.Compare); was || !c.Raised() || slices.Contains(r.Conditions, k) {
			continue
		}
		if !c.FirstSeen.IsZero() && c.FirstSeen.Before(r.Progress.Intended.Add(-harmMargin)) {
			continue // it was there before, and who sees it told of it only now
		}
		spec := m.specs[c.Code]
		if spec == nil || spec.Severity != fettle.Critical || m.claimedBy(step, c.Subject) {
			continue
		}
		if m.reaches(step.Target, c.ConditionKey) {
			out = append(out, c.String())
		}
	}
	return out
}

func (m *Mind) claimedBy(step fettle.Step, s fettle.Subject) bool {
	return s == step.Target || slices.ContainsFunc(step.Claims, func(c fettle.Claim) bool { return c.Member == s })
}

// reaches reports whether some condition of a subject can, by the catalogues,
// bring this one about, in at most two hops.
func (m *Mind) reaches(from fettle.Subject, key fettle.ConditionKey) bool {
	for _, up := range m.causes[key.Code] {
		for _, s := range m.world.Related(key.Subject, up.path) {
			if s == from {
				return true
			}
			for _, up2 := range m.causes[up.code] {
				if slices.Contains(m.world.Related(s, up2.path), from) {
					return true
				}
			}
		}
	}
	return false
}

// verified goes on to the next step, or rests at a safe point of a freeze.
func (m *Mind) verified(r *Record, step fettle.Step) {
	m.world.Release(r.Progress.Key)
	m.tell(r, fettle.Event{Kind: fettle.EvVerified, Step: step.ID, Text: "observed as predicted", Took: m.now.Sub(r.Progress.Acted)})
	r.Progress.Step++
	r.Progress.Again = 0
	m.phase(r, PhaseIdle, time.Time{})
	m.goOn(r)
}

// lastStepDone waits for the cause to clear.
func (m *Mind) lastStepDone(r *Record) {
	if m.clear(r) {
		m.cleared(r)
		return
	}
	r.State = fettle.Verifying
	r.Progress.Deadline = m.now.Add(clearWait)
	m.phase(r, PhaseClear, m.now.Add(time.Second))
	m.lookAtCause(r)
}

func (m *Mind) lookAtCause(r *Record) {
	if looks := m.looksAt(r.Cause.Subject); len(looks) > 0 {
		m.decisions = append(m.decisions, Decision{Kind: Gather, Incident: r.ID, Key: r.Progress.Key + "!", Looks: dedupe(looks), Within: gatherWait})
	}
}

// clear reports whether the cause is known to be clear, or was seen to end with its
// subject. That nothing is known of it, as after a restart, is no end.
func (m *Mind) clear(r *Record) bool {
	c, ok := m.world.Condition(r.Cause)
	return ok && c.State == fettle.No || !ok && r.over
}

func (m *Mind) awaitClear(r *Record, due, looked bool) {
	if m.clear(r) {
		m.cleared(r)
		return
	}
	if r.Progress.Deadline.IsZero() {
		r.Progress.Deadline = m.now.Add(clearWait)
	}
	if !m.now.Before(r.Progress.Deadline) {
		m.failed(r, fmt.Sprintf("every step was done, and %s is not seen to be clear after %v", r.Cause, clearWait))
		return
	}
	if looked || due {
		r.Progress.Due = m.now.Add(time.Second)
	}
	if due {
		m.lookAtCause(r)
	}
}

// failedStep ends the step in flight as failed.
func (m *Mind) failedStep(r *Record, step fettle.Step, why string) {
	m.world.Release(r.Progress.Key)
	m.tell(r, fettle.Event{Kind: fettle.EvFailed, Step: step.ID, Key: r.Progress.Key, Text: why})
	switch {
	case r.Progress.Undoing:
		m.takeOver(r, "taking back "+step.ID+" failed: "+why)
	case step.ForwardOnly != "" && step.Risk != fettle.LowRisk:
		m.takeOver(r, "a forward-only step failed, and nothing more is done by itself: "+step.ID+": "+why)
	default:
		m.nextRung(r)
	}
}

// failed ends the plan as failed.
func (m *Mind) failed(r *Record, why string) {
	m.world.Release(r.Progress.Key)
	m.tell(r, fettle.Event{Kind: fettle.EvFailed, Text: why})
	m.nextRung(r)
}

// nextRung leaves the plan and goes up the ladder, from the world as it is now.
func (m *Mind) nextRung(r *Record) {
	n := 0
	for _, book := range m.books.For(r.Cause.Code) {
		for _, rung := range book.Rungs {
			if r.Plan != nil && book.Name == r.Plan.Runbook && rung.Name == r.Plan.Rung {
				r.Progress.Rung = n + 1
			}
			n++
		}
	}
	if lastDone(r) != nil {
		r.Progress.Left = append(r.Progress.Left, LeftPlan{Plan: *r.Plan, Done: r.Progress.Done})
	}
	r.Plan, r.Progress.Done, r.Progress.Approval = nil, nil, nil
	r.Progress.Step, r.Progress.Again = 0, 0
	m.phase(r, PhaseIdle, time.Time{})
	m.consider(r)
}

// takeOver gives the incident to a person: nothing more is done by itself.
func (m *Mind) takeOver(r *Record, why string) {
	r.Progress.Mine = true
	r.Progress.Undoing = false
	m.escalate(r, why)
}
