package incident

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/plan"
	"fettle/internal/judge/runbook"
)

// settleWait is how long a settling look may take, and how often one is tried,
// before an open question stays open.
const (
	settleWait  = 2 * time.Second
	settleTries = 2
)

// wideWait is how long a look at everything about a cause may take: it includes
// probes that walk a filesystem.
const wideWait = 10 * time.Second

// clearWait is how long the cause may take to clear after the last step was
// verified: the observation that clears it may have to be polled for.
const clearWait = 60 * time.Second

// fitWait is how long after its beginning a trouble may be on its way to where a
// rung fits, before a person is called: a process that is still ending (a member
// that was sent SIGTERM hands its leadership over first) cannot be started yet.
const fitWait = 10 * time.Second

// fitEvery is how often it is looked at anew meanwhile.
const fitEvery = 2 * time.Second

// consider decides what is to be done next about an incident that waits for
// nothing in particular.
func (m *Mind) consider(r *Record) {
	r.poked = false
	if r.Progress.Undoing {
		m.startUndo(r)
		return
	}
	cond, _ := m.world.Condition(r.Cause)
	switch {
	case m.clear(r) && !r.inFlight() && m.mayRest(r):
		m.cleared(r)
		return
	case r.Progress.Mine:
		m.unfounded(r)
		return
	case r.begun():
		m.goOn(r)
		return
	}
	if g, yes := m.explained(r); yes {
		m.supersede(r, g)
		return
	}
	if m.unfounded(r) {
		return
	}
	if !m.itsTurn(r) || !m.settled(r, cond) || !m.lookedRound(r, cond) {
		return
	}
	m.propose(r, cond)
}

// restAfter is how often in a row the next step of a plan must have been refused
// before the plan may rest at a safe point: about a minute of asking.
const restAfter = 6

// mayRest reports whether an incident may end where its plan stands, since its
// cause is clear. A plan that has touched something goes on to its end: what it
// has taken away half-way, nobody else would put back, and what stands behind a
// safe point is meant too (a restart just then must not make another end of it).
// It rests at a safe point where it is not let go on.
func (m *Mind) mayRest(r *Record) bool {
	return !r.begun() || r.Progress.Mine || r.step() == nil || m.atSafePoint(r) && r.Progress.Again >= restAfter
}

// lookedRound reports whether everything that a plan could rest on was looked at
// since the trouble began: the cause, all that could have brought it about, and
// the whole and the votes that hang on it. Where not, it has asked for it: what
// is remembered from before tells of a world that is no more.
func (m *Mind) lookedRound(r *Record, cond fettle.Condition) bool {
	if !cond.FirstSeen.After(r.Progress.Round) {
		return true
	}
	r.Progress.Round = cond.FirstSeen
	s := r.Cause.Subject
	looks := append(m.suspects(r.Cause), m.looksAt(s)...)
	looks = append(looks, m.looksAtVotes(s)...)
	for _, path := range []fettle.Path{">part-of", "<part-of"} {
		for _, other := range m.world.Related(s, path) {
			looks = append(looks, m.looksAt(other)...)
		}
	}
	if looks = m.notFresh(looks, cond.FirstSeen); len(looks) == 0 {
		return true
	}
	r.Progress.Key = r.ID + "?round"
	m.phase(r, PhaseSettle, m.now.Add(gatherWait+time.Second))
	m.decisions = append(m.decisions, Decision{Kind: Gather, Incident: r.ID, Key: r.Progress.Key, Looks: looks, Within: gatherWait})
	return false
}

// settled reports whether the diagnosis may be acted upon; where not, it has
// said so, or asked for what would settle it.
func (m *Mind) settled(r *Record, cond fettle.Condition) bool {
	cause := m.causeOf(r)
	switch {
	case r.Cause.Code == "":
		m.callOnce(r, "most of what "+strings.Join(observers(r.Diagnosis), ", ")+" sees seems bad, and nobody else can confirm it: who looks is what is ill, and nothing is repaired on that word")
		return false
	case slices.Contains(r.Diagnosis.Ill, r.Cause):
		m.hold(r, "it rests on the word of an observer that seems ill itself; nothing is repaired on it", 10*time.Second)
		return false
	case (cause == nil || cause.Observed) && cond.State == fettle.Unknown && m.patient(r, cond):
		return false
	case cause != nil && cause.Observed && m.waitsForSight(r):
		return false
	case cause != nil && !cause.Observed, cond.State == fettle.Unknown:
		return m.lookOr(r, func() {
			m.escalate(r, "the cause is supposed, not seen, and nobody could see it; a person must look at "+string(r.Cause.Subject))
		})
	case len(r.Diagnosis.Look) > 0 && r.Progress.Looked == 0:
		// A shared cause is asked for evidence before any member is touched.
		settled := false
		m.lookOr(r, func() { settled = true })
		return settled
	}
	return true
}

// observers are the observers that a diagnosis calls ill.
func observers(d fettle.Diagnosis) []string {
	var list []string
	for _, c := range d.Causes {
		if c.Code == "" {
			list = append(list, string(c.Subject))
		}
	}
	return list
}

// returnWait is how long the word of a machine that has gone silent is waited for
// before anybody is called about it: it covers a restart of its agent, or of this
// server, with the agent's pauses between two tries to connect. Nothing is done
// about the incident meanwhile.
const returnWait = 30 * time.Second

// patient waits for a cause that was seen and cannot be known at present, and
// reports whether it still does.
func (m *Mind) patient(r *Record, cond fettle.Condition) bool {
	since := cond.Since
	if since.Before(m.began) { // known to those before us, and not yet to us
		since = m.began
	}
	until := since.Add(returnWait)
	if !m.now.Before(until) {
		return false
	}
	m.idle(r, until)
	return true
}

// lookOr asks for what would settle the diagnosis, a few times, and then does
// otherwise. It returns false: nothing may be done yet.
func (m *Mind) lookOr(r *Record, otherwise func()) bool {
	looks := r.Diagnosis.Look
	if spec := m.specs[r.Cause.Code]; spec != nil && spec.Probe != "" {
		looks = append(slices.Clone(looks), fettle.Look{Subject: r.Cause.Subject, Probe: spec.Probe})
	}
	if r.Progress.Looked >= settleTries || len(looks) == 0 {
		otherwise()
		return false
	}
	r.Progress.Looked++
	key := fmt.Sprintf("%s?%d", r.ID, r.Progress.Looked)
	m.phase(r, PhaseSettle, m.now.Add(2*settleWait))
	r.Progress.Key = key
	m.tell(r, fettle.Event{Kind: fettle.EvNote, Text: fmt.Sprintf("looking again at %d things that would settle it", len(looks))})
	m.decisions = append(m.decisions, Decision{Kind: Gather, Incident: r.ID, Key: key, Looks: looks, Within: settleWait})
	return false
}

func (m *Mind) causeOf(r *Record) *fettle.Cause {
	for i := range r.Diagnosis.Causes {
		if r.Diagnosis.Causes[i].ConditionKey == r.Cause {
			return &r.Diagnosis.Causes[i]
		}
	}
	return nil
}

// propose makes the plan of the next rung that fits and begins it as far as the
// policy permits.
func (m *Mind) propose(r *Record, cond fettle.Condition) {
	spec, err := m.spec(r.Cause.Code)
	if err != nil {
		m.escalate(r, err.Error())
		return
	}
	if spec.Explains {
		m.hold(r, "it was done on purpose; it is reported and left alone", time.Hour)
		return
	}
	if m.fought(r) {
		return
	}
	p, ok := m.choose(r, spec)
	if !ok {
		return
	}
	if m.sharedOpen(r, p, cond) {
		return
	}
	if open := r.Diagnosis.Unsettled; len(open) > 0 && !gentle(p) {
		m.lookOr(r, func() {
			m.escalate(r, fmt.Sprintf("%d explanations are too close to call, and this rung is not reversible; a person must choose", len(open)+1))
		})
		return
	}
	if r.Plan == nil || r.Plan.Hash != p.Hash {
		m.tell(r, fettle.Event{Kind: fettle.EvPlanned, Text: fmt.Sprintf("runbook %s, rung %s, %s, risk %s", p.Runbook, p.Rung, counted(len(p.Steps), "step"), p.Risk)})
	}
	r.Plan = &p
	r.Progress.Step, r.Progress.Done = 0, nil
	level, why := m.Level(p)
	if level < fettle.Automatic && !m.approved(r) {
		m.ask(r, level, why)
		return
	}
	m.startStep(r)
}

// gentle reports whether a plan may be tried while its cause is uncertain.
func gentle(p fettle.Plan) bool {
	return runbook.Reversible(p) && p.Risk == fettle.LowRisk && len(p.Takes) == 0
}

func (m *Mind) approved(r *Record) bool {
	a := r.Progress.Approval
	return a != nil && r.Plan != nil && a.Plan == r.Plan.Hash && m.now.Before(a.Until)
}

// choose walks the ladder from where it stands to the first rung that fits.
func (m *Mind) choose(r *Record, spec *fettle.ConditionSpec) (fettle.Plan, bool) {
	n := -1
	var whyNot []string
	for _, book := range m.books.For(r.Cause.Code) {
		for i := range book.Rungs {
			if n++; n < r.Progress.Rung {
				continue
			}
			name := book.Name + "/" + book.Rungs[i].Name
			if m.tried(r.Cause, name) >= 2 {
				whyNot = append(whyNot, name+": tried twice of late")
				continue
			}
			p, err := plan.Make(plan.Input{
				Incident: r.ID, Cause: r.Cause, Book: book, Rung: i, Attempt: r.Progress.Attempt,
				Pins: m.pins, View: m.world, Now: m.now, Catalogues: m.cats,
			})
			var no *plan.NotApplicable
			if errors.As(err, &no) {
				whyNot = append(whyNot, name+": "+no.Why)
				continue
			}
			if err != nil {
				whyNot = append(whyNot, name+": "+err.Error())
				continue
			}
			for _, w := range whyNot {
				m.note(r, "rung "+w)
			}
			return p, true
		}
	}
	if n >= 0 && m.lookWide(r) {
		return fettle.Plan{}, false
	}
	if n >= 0 && m.now.Before(m.toldBy(r)) {
		m.phase(r, PhaseIdle, m.now.Add(time.Second))
		return fettle.Plan{}, false
	}
	for _, w := range whyNot {
		m.note(r, "rung "+w)
	}
	switch {
	case n < 0 && spec.NotMended != "":
		m.escalate(r, "it is not mended by Fettle: "+spec.NotMended)
	case n < 0:
		m.escalate(r, "no runbook here mends "+string(r.Cause.Code))
	case !r.begun() && r.State != fettle.Escalated && m.now.Before(r.Opened.Add(fitWait)):
		r.Progress.Wide = false // what is then, is looked at then
		m.hold(r, "no rung of the ladder fits as things are; a person is called if none does soon", min(fitEvery, r.Opened.Add(fitWait).Sub(m.now)))
	default:
		m.tellSeen(r, spec)
		m.escalate(r, "no rung of the ladder fits, or all were tried; a person must go on from here")
		r.Progress.Due = m.now.Add(30 * time.Second) // the world may come to fit one
	}
	return fettle.Plan{}, false
}

// toldBy is until when what a rung rests on may still be told: agents that start,
// or are back after our own restart, tell one thing after another. The zero time
// where nobody is about to.
func (m *Mind) toldBy(r *Record) time.Time {
	if r.restored {
		return m.began.Add(returnWait)
	}
	if len(m.unheard) > 0 {
		return r.Opened.Add(returnWait)
	}
	return time.Time{}
}

// lookWide asks, once, for every fact that any probe can tell of the cause: no
// rung fits, perhaps because what would make one fit was not looked at yet.
func (m *Mind) lookWide(r *Record) bool {
	if r.Progress.Wide {
		return false
	}
	r.Progress.Wide = true
	var looks []fettle.Look
	for _, c := range m.cats {
		for _, p := range c.Probes {
			if p.Kind == r.Cause.Subject.Kind() {
				looks = append(looks, fettle.Look{Subject: r.Cause.Subject, Probe: p.Name})
			}
		}
	}
	if looks = m.notFresh(looks, m.freshFrom(r, gatherWait)); len(looks) == 0 {
		return false
	}
	r.Progress.Key = r.ID + "?wide"
	m.phase(r, PhaseSettle, m.now.Add(wideWait+time.Second))
	m.decisions = append(m.decisions, Decision{Kind: Gather, Incident: r.ID, Key: r.Progress.Key, Looks: looks, Within: wideWait})
	return true
}

// note writes a sentence once.
func (m *Mind) note(r *Record, text string) {
	for _, e := range r.Story {
		if e.Kind == fettle.EvNote && e.Text == text {
			return
		}
	}
	m.tell(r, fettle.Event{Kind: fettle.EvNote, Text: text})
}

// tried counts how often a rung was begun for this cause within the window.
func (m *Mind) tried(cause fettle.ConditionKey, rung string) int {
	since := m.now.Add(-guard.Rate(m.policy).Window)
	n := 0
	for _, a := range m.attempts {
		if a.Cause == cause && a.Rung == rung && !a.At.Before(since) {
			n++
		}
	}
	return n
}

// ask puts the plan to a person, or only shows it, as the level says.
func (m *Mind) ask(r *Record, level fettle.Level, why string) {
	r.State, r.Why = fettle.Proposed, why
	text := fmt.Sprintf("level %s (%s)", level, why)
	if level == fettle.Approve {
		text = "waits for a person's approval: " + why
	}
	if r.Progress.Asked != r.Plan.Hash {
		r.Progress.Asked = r.Plan.Hash
		m.tell(r, fettle.Event{Kind: fettle.EvAsked, Text: text, Verdicts: m.preview(r)})
		if level == fettle.Approve {
			m.decisions = append(m.decisions, Decision{Kind: Call, Incident: r.ID, Text: text})
		}
	}
	m.phase(r, PhaseIdle, time.Time{})
}

// preview asks the guards about the first step on the facts as they are, and what
// would stop the plan later on, so that who is asked sees the arithmetic. It
// decides nothing.
func (m *Mind) preview(r *Record) []fettle.Verdict {
	filled, err := plan.Fill(r.Plan.Steps[0], nil)
	if err != nil {
		return nil
	}
	verdicts := m.guarded(guard.Check(m.question(r, filled, m.world, false)))
	later, no := m.foresee(r)
	for _, v := range guard.Refusals(no) {
		v.Why = "later, at " + later.ID + ": " + v.Why
		verdicts = append(verdicts, v)
	}
	return verdicts
}

// cleared ends an incident whose cause is known to be clear.
func (m *Mind) cleared(r *Record) {
	text := "it cleared by itself"
	switch failed := lastFailure(r); {
	case r.begun() && !r.Progress.Mine:
		text = "mended and verified"
	case failed != "": // whether that did it in spite of it, or a person, or nobody, is not known
		text = "it is clear, and what was tried for it had failed: " + failed
	case r.begun():
		text = "it cleared after it was taken over"
	}
	took := m.now.Sub(r.Opened)
	m.tell(r, fettle.Event{Kind: fettle.EvResolved, Text: text, Took: took})
	m.end(r, fettle.Resolved, text)
}

// lastFailure is why what was tried last failed, "" where nothing did.
func lastFailure(r *Record) string {
	for _, e := range slices.Backward(r.Story) {
		if e.Kind == fettle.EvFailed {
			return e.Text
		}
	}
	return ""
}

// counted writes a number with its noun.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
