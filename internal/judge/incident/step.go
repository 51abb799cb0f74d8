package incident

import (
	"fmt"
	"slices"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/plan"
	"fettle/internal/judge/runbook"
	"fettle/internal/judge/world"
)

// gatherWait bounds the gathering of fresh facts where the step's own bound on
// their age is longer.
const gatherWait = 3 * time.Second

// stepTries is how often one step is dispatched again after its key was fenced
// without effect.
const stepTries = 3

// advance moves an incident as far as it goes without waiting. What it reads, wait.go
// must know of.
func (m *Mind) advance(r *Record, in Input) {
	p := &r.Progress
	due := !p.Due.IsZero() && !m.now.Before(p.Due)
	switch p.Phase {
	case PhaseIdle:
		if due {
			p.Due = time.Time{} // it has come: who considers and finds nothing to do is not asked again at once
		}
		if due || r.poked {
			m.consider(r)
		}
	case PhaseSettle:
		if in.Gathered == p.Key || due {
			m.phase(r, PhaseIdle, time.Time{})
			m.consider(r)
		}
	case PhaseGather:
		if in.Gathered == p.Key || due {
			m.decide(r)
		}
	case PhaseIntent, PhaseRecover:
		if in.Outcome != nil && in.Outcome.Key == p.Key {
			m.outcome(r, *in.Outcome)
		} else if due {
			m.recover(r)
		}
	case PhaseVerify, PhaseHold:
		m.check(r, due, in.Gathered == p.Key+"!")
	case PhaseClear:
		m.awaitClear(r, due, in.Gathered == p.Key+"!")
	}
}

// goOn continues a plan that has begun, at a safe point at the latest asking
// whether it still should.
func (m *Mind) goOn(r *Record) {
	if g, yes := m.explained(r); yes && m.atSafePoint(r) {
		m.supersede(r, g)
		return
	}
	m.startStep(r)
}

func (m *Mind) atSafePoint(r *Record) bool {
	i := r.Progress.Step
	return r.Plan == nil || i == 0 || i >= len(r.Plan.Steps) || r.Plan.Steps[i-1].SafePoint
}

// startStep gathers what the present step is to be judged on.
func (m *Mind) startStep(r *Record) {
	step := r.step()
	if step == nil {
		m.lastStepDone(r)
		return
	}
	looks := append(slices.Clone(step.Looks), m.looksAt(step.Target)...)
	if step.Group != "" {
		looks = append(looks, m.looksAt(step.Group)...)
	}
	if !r.begun() {
		looks = append(looks, m.suspects(r.Cause)...)
		looks = append(looks, m.looksAt(r.Cause.Subject)...)
	}
	looks = append(looks, m.looksAtVotes(step.Target)...)
	m.gather(r, m.notFreshByAll(looks, m.freshFrom(r, step.Fresh)), fmt.Sprintf("%s.%d.%s", r.ID, r.Progress.Try+1, step.ID), step.Fresh)
}

func (m *Mind) gather(r *Record, looks []fettle.Look, key string, fresh time.Duration) {
	r.Progress.Key = key
	within := gatherWait
	if fresh > 0 {
		within = min(within, fresh)
	}
	m.phase(r, PhaseGather, m.now.Add(within+time.Second))
	if len(looks) == 0 {
		m.decide(r)
		return
	}
	m.decisions = append(m.decisions, Decision{Kind: Gather, Incident: r.ID, Key: key, Looks: looks, Within: within})
}

// looksAt asks everyone who sees a subject to look again.
func (m *Mind) looksAt(s fettle.Subject) []fettle.Look {
	var looks []fettle.Look
	for _, o := range m.world.Observations(s) {
		looks = append(looks, fettle.Look{Subject: s, Probe: o.Probe})
	}
	return looks
}

// looksAtVotes asks about the groups whose members hang on a subject: the guards
// count votes that a step does not name.
func (m *Mind) looksAtVotes(s fettle.Subject) []fettle.Look {
	var looks []fettle.Look
	for _, member := range append(m.world.Related(s, "<uses"), m.world.Related(s, "<uses <uses")...) {
		for _, group := range m.world.Related(member, ">part-of") {
			if _, ok := m.world.Quorum(group, time.Time{}); ok {
				looks = append(looks, m.looksAt(group)...)
			}
		}
	}
	return looks
}

// freshFrom is from when on an answer is fresh enough for a step: half of its
// bound is left for the way to the dispatch, and what was asked for before the
// trouble began tells of a world that is no more.
func (m *Mind) freshFrom(r *Record, fresh time.Duration) time.Time {
	since := m.now.Add(-fresh / 2)
	if onset := m.onset(r); onset.After(since) {
		return onset
	}
	return since
}

// onset is when the world became what it is: when the cause was first seen in this
// episode, or when the plan's last step was done. What was asked for before that
// tells of a world that is no more.
func (m *Mind) onset(r *Record) time.Time {
	c, _ := m.world.Condition(r.Cause)
	if acted := r.Progress.Acted; r.begun() && acted.After(c.FirstSeen) {
		return acted
	}
	return c.FirstSeen
}

// notFresh leaves out what anybody answered since, and repeats.
func (m *Mind) notFresh(looks []fettle.Look, since time.Time) []fettle.Look {
	return m.stillAsked(looks, since, func(answered, _ bool) bool { return !answered })
}

// notFreshByAll leaves out only what was answered since by everybody who sees it,
// and repeats: where several are counted, who looked earlier would outvote who
// looked since.
func (m *Mind) notFreshByAll(looks []fettle.Look, since time.Time) []fettle.Look {
	return m.stillAsked(looks, since, func(answered, old bool) bool { return !answered || old })
}

// stillAsked keeps the looks that are wanted, given whether somebody answered since,
// and whether somebody's word is from before.
func (m *Mind) stillAsked(looks []fettle.Look, since time.Time, want func(answered, old bool) bool) []fettle.Look {
	var out []fettle.Look
	for _, l := range looks {
		answered, old := false, false
		for _, o := range m.world.Observations(l.Subject) {
			switch {
			case o.Probe != l.Probe || !o.Known() && o.Reason != fettle.Unreachable: // it says nothing
			case o.Asked.Before(since):
				old = true
			default:
				answered = true
			}
		}
		if want(answered, old) && !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return out
}

// decide asks the guards and, when all allow, decides on the dispatch.
func (m *Mind) decide(r *Record) {
	if r.Progress.Undoing {
		m.decideUndo(r)
		return
	}
	if cond, ok := m.world.Condition(r.Cause); !r.begun() && (!ok || !cond.Raised()) {
		m.phase(r, PhaseIdle, time.Time{})
		m.consider(r)
		return
	}
	if !r.begun() && !m.itsTurn(r) {
		return
	}
	step, err := plan.Fill(*r.step(), r.outputs())
	if err != nil {
		m.failed(r, err.Error())
		return
	}
	if skip, why := m.skip(r, step); skip {
		m.tell(r, fettle.Event{Kind: fettle.EvSkipped, Step: step.ID, Text: "not needed: " + step.When})
		r.Progress.Done = append(r.Progress.Done, DoneStep{ID: step.ID, Step: step, Skipped: true})
		r.Progress.Step++
		m.startStep(r)
		return
	} else if why != "" {
		m.refused(r, step, []fettle.Verdict{{Guard: "when", Invariant: "S1", Why: "whether the step is needed cannot be decided: " + why, Lifts: "the missing fact"}})
		return
	}
	q := m.question(r, step, m.world, false)
	verdicts := m.guarded(guard.Check(q))
	if !guard.Allowed(verdicts) {
		m.refused(r, step, verdicts)
		return
	}
	if !r.begun() {
		if later, no := m.foresee(r); len(no) > 0 {
			m.refused(r, later, no)
			return
		}
	}
	m.intend(r, step, verdicts, false, nil)
}

func (m *Mind) skip(r *Record, step fettle.Step) (skip bool, why string) {
	if step.When == "" {
		return false, ""
	}
	says, err := m.ask3(step.When, r, step, m.counted(r, m.world, step))
	switch {
	case says == fettle.No:
		return true, ""
	case says == fettle.Unknown && err != nil:
		return false, err.Error()
	case says == fettle.Unknown:
		return false, step.When
	}
	return false, ""
}

// question puts together what the guards may know, on the world as it is or as a
// plan foretells it.
func (m *Mind) question(r *Record, step fettle.Step, view world.View, undo bool) guard.Question {
	level, why := m.level(r)
	if !undo {
		view = m.withdrawn(view)
	}
	policy := m.policy
	policy.Budgets = runbook.Budgets(policy)
	q := guard.Question{
		Plan: *r.Plan, Step: step, View: view, Now: m.now, Onset: m.onset(r), Policy: policy,
		Undo: undo, Begun: r.begun() || r.Progress.Undoing, Level: level, LevelWhy: why, Approval: r.Progress.Approval,
		Freeze: m.freeze, Windows: m.windows, Leader: m.leader, Permit: m.permit, Attempts: m.attempts,
		Ill: m.ill, Doubtful: m.doubtful, Stopped: m.stopped, Action: m.acts[step.Action],
	}
	if c, ok := m.world.Condition(r.Cause); ok {
		q.Flapping = c.Flapping
	}
	for _, src := range step.Requires {
		says, err := m.ask3(src, r, step, m.counted(r, view, step))
		a := guard.Answer{Says: says}
		if err != nil {
			a.Why = err.Error()
		}
		q.Requires = append(q.Requires, a)
	}
	if undo {
		q.Requires, q.Step.Requires, q.Step.Generations = nil, nil, nil
	}
	if step.Group != "" {
		if preds, _, err := m.predict(r, view, step); err == nil {
			for _, p := range preds {
				if p.Subject == step.Group && p.Quorum != nil {
					q.Predicted = p.Quorum
				}
			}
		}
	}
	return q
}

// counted is a view in which only those have a say about votes whose word is as
// fresh as the guards demand: counted with everybody who looked earlier, a member
// that is down by now would serve still, and could be spent.
func (m *Mind) counted(r *Record, view world.View, step fettle.Step) world.View {
	since := m.now.Add(-step.Fresh)
	if onset := m.onset(r); onset.After(since) {
		since = onset
	}
	return world.Counting(view, since)
}

// predict foretells a step.
func (m *Mind) predict(r *Record, view world.View, step fettle.Step) ([]fettle.Prediction, *world.Overlay, error) {
	return plan.Predict(m.counted(r, view, step), step, nil, r.outputs(), m.env)
}

// ask3 evaluates a condition of a step on a view of the facts.
func (m *Mind) ask3(src string, r *Record, step fettle.Step, view viewer) (fettle.Tri, error) {
	prog, ok := m.programs[src]
	if !ok {
		var err error
		if prog, err = m.env.Compile(src, expr.Bool); err != nil {
			return fettle.Unknown, err
		}
		m.programs[src] = prog
	}
	outs := r.outputs()
	return prog.Bool(expr.Scope{
		View: view, Cause: r.Cause.Subject, Target: step.Target, Host: step.Host, Group: step.Group,
		With: step.Params, Out: outs[step.ID], Steps: outs,
	})
}

// ill reports whether a subject has a raised condition worse than a notice.
func (m *Mind) ill(s fettle.Subject) bool {
	for _, c := range m.world.ConditionsOf(s) {
		if spec := m.specs[c.Code]; c.Raised() && spec != nil && spec.Severity != fettle.Notice {
			return true
		}
	}
	return false
}

// stopped finds what says that a person stopped a subject, or something that it
// uses, on purpose.
func (m *Mind) stopped(s fettle.Subject) (fettle.ConditionKey, bool) {
	for _, at := range append([]fettle.Subject{s}, m.world.Related(s, ">uses")...) {
		for _, c := range m.world.ConditionsOf(at) {
			if spec := m.specs[c.Code]; c.Raised() && spec != nil && spec.Explains {
				return c.ConditionKey, true
			}
		}
	}
	return fettle.ConditionKey{}, false
}

// refused writes the refusal into the story and asks again later.
func (m *Mind) refused(r *Record, step fettle.Step, verdicts []fettle.Verdict) {
	no := guard.Refusals(verdicts)
	why := no[0].Why
	if no[0].Arithmetic != "" {
		why += " (" + no[0].Arithmetic + ")"
	}
	m.tell(r, fettle.Event{Kind: fettle.EvRefused, Step: step.ID, Text: fmt.Sprintf("%s refused by %s (%s): %s", step.ID, no[0].Guard, no[0].Invariant, no[0].Why), Verdicts: verdicts})
	r.Progress.Again++
	if slices.ContainsFunc(no, func(v fettle.Verdict) bool { return v.Guard == "ladder" }) {
		m.escalate(r, why)
		r.Progress.Due = m.now.Add(time.Minute)
		return
	}
	if no[0].Lifts != "" {
		why += "; what would lift it: " + no[0].Lifts
	}
	r.State, r.Why = fettle.Held, why
	m.phase(r, PhaseIdle, m.now.Add(backoff(r.Progress.Again)))
	m.tellOfRefusals(r, no, why)
}

// intend decides on a dispatch. The intent is durable before it is sent.
func (m *Mind) intend(r *Record, step fettle.Step, verdicts []fettle.Verdict, undo bool, outputs fettle.Facts) {
	p := &r.Progress
	if !undo && !r.begun() {
		a := guard.Attempt{At: m.now, Cause: r.Cause, Rung: r.Plan.Runbook + "/" + r.Plan.Rung}
		p.Attempts = append(p.Attempts, a)
		m.attempts = append(m.attempts, a)
		p.Attempt++
	}
	p.Try++
	p.Key = fmt.Sprintf("%s.%d.%s", r.ID, p.Try, step.ID)
	if undo {
		p.Key += ".undo"
	}
	p.Predicted, p.Baseline, p.Intended = nil, nil, m.now
	m.before[r.ID] = len(m.rises)
	if !undo {
		if preds, _, err := m.predict(r, m.world, step); err == nil {
			p.Predicted = preds
		}
	}
	for _, c := range m.world.Raised() {
		p.Baseline = append(p.Baseline, c.ConditionKey)
	}
	m.world.Hold(p.Key, step.Claims)
	r.State, r.Why = fettle.Acting, ""
	if undo {
		r.State = fettle.Undoing
	}
	m.phase(r, PhaseIntent, m.now.Add(step.Timeout+10*time.Second))
	verb := step.Action
	if undo {
		verb = "undo " + verb
	}
	m.tell(r, fettle.Event{Kind: fettle.EvIntent, Step: step.ID, Key: p.Key, Text: fmt.Sprintf("%s on %s", verb, step.Target), Verdicts: verdicts})
	m.decisions = append(m.decisions, Decision{
		Kind: Intend, Incident: r.ID, Key: p.Key, Plan: r.Plan.Hash, Step: &step, Undo: undo, Outputs: outputs, Claims: step.Claims,
		Approval: signed(r),
	})
}

// signed is the person's signed approval of the present plan, nil where there is none.
func signed(r *Record) *fettle.Approval {
	a := r.Progress.Approval
	if a == nil || len(a.Note) == 0 || a.Plan != r.Plan.Hash {
		return nil
	}
	return &fettle.Approval{Plan: plan.Text(*r.Plan), Note: a.Note, Certificate: a.Certificate}
}

// recover asks what became of the dispatch whose answer did not come.
func (m *Mind) recover(r *Record) {
	p := &r.Progress
	step, undo := m.flying(r)
	p.Again++
	m.phase(r, PhaseRecover, m.now.Add(backoff(p.Again)+5*time.Second))
	m.tell(r, fettle.Event{Kind: fettle.EvNote, Step: step.ID, Text: "asking what became of " + p.Key})
	m.decisions = append(m.decisions, Decision{Kind: Recover, Incident: r.ID, Key: p.Key, Plan: r.Plan.Hash, Step: &step, Undo: undo})
}

// flying returns the step whose dispatch is in flight, as it was dispatched.
func (m *Mind) flying(r *Record) (fettle.Step, bool) {
	if r.Progress.Undoing {
		if d := lastDone(r); d != nil {
			return d.Step, true
		}
	}
	step, err := plan.Fill(*r.step(), r.outputs())
	if err != nil {
		return *r.step(), false
	}
	return step, false
}
