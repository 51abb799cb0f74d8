package guard

import (
	"fmt"
	"regexp"
	"slices"

	"fettle/internal/fettle"
)

// leader (S7): only the present leader starts steps.
func leader(q Question) fettle.Verdict {
	if !q.Leader {
		return refuse("this server does not hold the leader token", "", "the leader will take it up")
	}
	return allow("this server leads")
}

// freeze (S11): while frozen nothing new starts. A plan that has begun goes on
// to its nearest safe point, which the loop knows; here only the beginning and
// what follows a safe point are stopped.
func freeze(q Question) fettle.Verdict {
	switch {
	case q.Freeze == nil:
		return allow("not frozen")
	case q.Undo:
		return allow("frozen, but taking back is a release")
	case q.Begun && !afterSafePoint(q):
		return allow("frozen, on the way to the nearest safe point")
	}
	return refuse(fmt.Sprintf("%s froze everything at %s", q.Freeze.By, q.Freeze.Since.Format("15:04:05")), q.Freeze.Why, "`fettle thaw`")
}

// afterSafePoint reports whether the step before this one is a place to rest.
func afterSafePoint(q Question) bool {
	i := slices.IndexFunc(q.Plan.Steps, func(s fettle.Step) bool { return s.ID == q.Step.ID })
	return i <= 0 || q.Plan.Steps[i-1].SafePoint
}

// person (S11): what a person stopped stays stopped.
func person(q Question) fettle.Verdict {
	if q.Undo {
		return allow("taking back our own change")
	}
	if key, ok := q.Stopped(q.Step.Target); ok {
		return refuse("somebody stopped it on purpose ("+string(key.Code)+" on "+string(key.Subject)+"), and a person's change wins", "", "start it by hand; Fettle then looks after it again")
	}
	return allow("nobody stopped it on purpose")
}

// fencing (S4): nothing is taken over from a host that is not proven fenced, for
// this boot of it.
func fencing(q Question) fettle.Verdict {
	host := q.Step.Fences
	if host == "" {
		return allow("it takes nothing over from another host")
	}
	boot, known := q.View.Facts(host).Str("boot_id")
	for _, p := range q.Proofs {
		if p.Host != host || p.At.After(q.Now) {
			continue
		}
		switch p.Kind {
		case fettle.PowerOff, fettle.PoisonPill, fettle.SignedWord:
			if known && p.BootID == boot {
				return allow(fmt.Sprintf("%s is fenced: %s", host, p.Kind))
			}
		case fettle.BootChange:
			if known && p.BootID != "" && p.BootID != boot {
				return allow(fmt.Sprintf("%s has booted since", host))
			}
		}
	}
	return refuse(string(host)+" is not proven fenced, and may still be acting", fmt.Sprintf("%d proofs, none for its present boot", len(q.Proofs)),
		"its power seen off, another boot of it seen, or a person's signed word; a timer is no proof")
}

// data (S5): what takes data away can put it back, or lets go only what the
// policy lists as disposable, or a person approved this very plan.
func data(q Question) fettle.Verdict {
	if !has(q.Step.Takes, fettle.TakesData) {
		return allow("it takes no data away")
	}
	if q.Action == nil {
		return refuse("what it does with the data is not known", "", "the adapter that has the action")
	}
	permitted := q.Policy.Disposable
	if permitted == nil {
		permitted = fettle.DefaultDisposable
	}
	switch {
	case q.Action.Disposes != "" && has(permitted, q.Action.Disposes):
		return allow("it lets go only what the policy lists as disposable: " + q.Action.Disposes)
	case q.Action.Disposes != "":
		return refuse("the policy does not list "+q.Action.Disposes+" as disposable", fmt.Sprintf("listed: %v", permitted), "add the class to `disposable` in the policy")
	case q.Action.Undo && q.Step.Undo:
		return allow("what gives way is set aside and can be put back")
	case approved(q):
		return allow("a person approved that this data goes")
	}
	return refuse("it takes data away and could not put it back", "", "an action that sets aside, or a person's approval of this very plan")
}

// reachability (S8): a change that can cut the machine off needs an armed revert.
// Whether one can be armed is known on the machine only, whose executor refuses
// where it cannot; here it is asked whether the action is one that is armed.
func reachability(q Question) fettle.Verdict {
	switch {
	case !has(q.Step.Takes, fettle.TakesReachability):
		return allow("it cannot cut the machine off")
	case q.Action == nil || !q.Action.Armed:
		return refuse("it can cut the machine off, and its action arms no revert beforehand", "", "an action that is armed, as its catalogue says")
	}
	return allow("it can cut the machine off; its host arms a revert beforehand, or refuses it")
}

// forwardOnly (S9): what cannot be taken back says so, and asks beforehand
// unless its risk is low.
func forwardOnly(q Question) fettle.Verdict {
	switch {
	case q.Undo && q.Step.ForwardOnly != "":
		return refuse("it is forward-only: "+q.Step.ForwardOnly, "", "a person, who decides how to go on")
	case q.Step.Undo:
		return allow("it can be taken back")
	case q.Step.ForwardOnly == "":
		return refuse("it cannot be taken back and does not say why that is right", "", "`forward_only` in the runbook")
	case q.Step.Risk == fettle.LowRisk || approved(q):
		return allow("forward-only: " + q.Step.ForwardOnly)
	case q.Level >= fettle.Automatic:
		return allow("forward-only, and the policy made this rung automatic: " + q.Step.ForwardOnly)
	}
	return refuse("it is forward-only and not of low risk", q.Step.ForwardOnly, "a person's approval of this plan")
}

// ladder (S10): the same trouble again and again is not repaired for ever.
func ladder(q Question) fettle.Verdict {
	if q.Undo || q.Begun {
		return allow("the plan has begun")
	}
	r := Rate(q.Policy)
	since := q.Now.Add(-r.Window)
	same, all := 0, 0
	for _, a := range q.Attempts {
		if a.At.Before(since) {
			continue
		}
		all++
		if a.Cause.Subject == q.Plan.Cause.Subject {
			same++
		}
	}
	sum := fmt.Sprintf("%d plans on it and %d in all within %v; limits %d and %d", same, all, r.Window, r.PerSubject, r.PerFleet)
	if same >= r.PerSubject {
		return refuse("it was repaired too often of late; this is the same trouble and needs a person", sum, "`fettle incident approve`, or time")
	}
	if all >= r.PerFleet {
		return refuse("too many plans were begun of late, anywhere", sum, "time, or a higher `rate` in the policy")
	}
	v := allow("not repaired too often")
	v.Arithmetic = sum
	return v
}

// Rate returns the policy's rate with its defaults filled in. Three tries an
// hour on one subject is one for each rung of a usual ladder; twenty anywhere is
// more than a person could follow.
func Rate(p fettle.Policy) fettle.Rate {
	r := p.Rate
	if r.PerSubject == 0 {
		r.PerSubject = 3
	}
	if r.PerFleet == 0 {
		r.PerFleet = 20
	}
	if r.Window == 0 {
		r.Window = defaultWindow
	}
	return r
}

// flapping (S10): what comes and goes is reported, not repaired.
func flapping(q Question) fettle.Verdict {
	if q.Flapping && !q.Undo && !q.Begun && !approved(q) {
		return refuse("the condition comes and goes; repairing it now would only join in", "", "quiet for the flap window, or a person's approval")
	}
	return allow("the condition is steady")
}

// autonomy (S7): the policy lets Fettle do it, or a person approved exactly this.
func autonomy(q Question) fettle.Verdict {
	switch {
	case q.Undo:
		return allow("taking back is free of autonomy")
	case q.Level >= fettle.Automatic:
		return allow("automatic: " + q.LevelWhy)
	case approved(q):
		return allow(fmt.Sprintf("%s approved this plan", q.Approval.By))
	case q.Approval != nil && q.Approval.Plan != q.Plan.Hash:
		return refuse("what was approved is another plan", fmt.Sprintf("approved %.12s, this is %.12s", q.Approval.Plan, q.Plan.Hash), "`fettle incident approve` of this one")
	case q.Approval != nil && !q.Begun:
		return refuse("the approval has ended", fmt.Sprintf("at %s", q.Approval.Until.Format("15:04:05")), "`fettle incident approve` again")
	case q.Level == fettle.Approve:
		return refuse("it waits for a person: "+q.LevelWhy, "", "`fettle incident approve`")
	}
	return refuse(fmt.Sprintf("the policy only lets Fettle %s here: %s", q.Level, q.LevelWhy), "", "a rule for this runbook in the policy")
}

// approved reports whether a person's approval covers this very plan. It must
// not have ended when the plan begins; a plan that has begun is finished.
func approved(q Question) bool {
	a := q.Approval
	return a != nil && a.Plan != "" && a.Plan == q.Plan.Hash && (q.Begun || q.Now.Before(a.Until))
}

// secret matches what must never stand in a step (S14): key material, and
// passwords written as such. References ("secret:name") are right.
var secret = regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY|(?i)\b(password|passwd|token|secret)\s*=\s*\S`)

// secrets (S14): no parameter carries one.
func secrets(q Question) fettle.Verdict {
	for _, name := range sortedNames(q.Step.Params) {
		var texts []string
		switch v := q.Step.Params[name].(type) {
		case string:
			texts = []string{v}
		case []string:
			texts = v
		}
		for _, t := range texts {
			if secret.MatchString(t) {
				return refuse("the parameter "+name+" carries a secret in clear", "", "a reference: secret:NAME")
			}
		}
	}
	return allow("no secret in it")
}
