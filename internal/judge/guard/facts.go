package guard

import (
	"fmt"
	"time"

	"fettle/internal/fettle"
)

// settled (S1): the acting host's agent has told everything that it sees. What
// starts anew tells one thing after another, and a service that is only seen to
// have failed may be one whose data is seen to be lost a moment later. Who is not
// known to be an agent that starts (a command looks at everything before it acts)
// is not asked.
func settled(q Question) fettle.Verdict {
	all, known := q.View.Facts(q.Step.Host).Bool("settled")
	if known && !all && !q.Undo {
		return refuse("the agent on "+q.Step.Host.Name()+" has started anew and has not told everything that it sees yet", "", "the end of its first looks, within seconds")
	}
	return allow("the acting host has told everything that it sees")
}

// freshness (S1): what the step will be judged on was asked for no longer ago
// than the step says. That somebody asked just now and got no answer is fresh
// knowledge too; that nobody asked is none.
func freshness(q Question) fettle.Verdict {
	if q.Step.Fresh <= 0 {
		return refuse("the step does not say how fresh its facts must be", "", "give the step a `fresh` duration in its runbook")
	}
	since := q.since()
	if age, ok := youngest(q, q.Step.Target, "", since); !ok {
		return stale(q, q.Step.Target, "", age)
	}
	for _, l := range q.Step.Looks {
		if age, ok := youngest(q, l.Subject, l.Probe, since); !ok {
			return stale(q, l.Subject, l.Probe, age)
		}
	}
	if counts(q) && q.Step.Group != "" {
		if _, ok := q.View.Quorum(q.Step.Group, since); !ok {
			return stale(q, q.Step.Group, "", -1)
		}
	}
	return allow(fmt.Sprintf("every fact it rests on was asked for within %v", q.Step.Fresh))
}

func stale(q Question, s fettle.Subject, probe string, age time.Duration) fettle.Verdict {
	what := string(s)
	if probe != "" {
		what += " (" + probe + ")"
	}
	sum := fmt.Sprintf("nobody looked at it; at most %v old is needed", q.Step.Fresh)
	if age >= 0 {
		sum = fmt.Sprintf("age %v, at most %v is allowed", age.Round(time.Millisecond), q.Now.Sub(q.since()).Round(time.Millisecond))
	}
	return refuse("what is known of "+what+" is too old to act on", sum, "an agent that answers the probe in time; see `fettle status`")
}

// youngest returns the age of the newest answer about s, and whether it was
// asked for since. A look that failed for a reason of the observer's own
// (permission, a probe cut off) is no answer.
func youngest(q Question, s fettle.Subject, probe string, since time.Time) (time.Duration, bool) {
	age := time.Duration(-1)
	for _, o := range q.View.Observations(s) {
		if probe != "" && o.Probe != probe || !o.Known() && o.Reason != fettle.Unreachable {
			continue
		}
		if a := q.Now.Sub(o.Asked); age < 0 || a < age {
			age = a
		}
	}
	return age, age >= 0 && !q.Now.Add(-age).Before(since)
}

// preconditions (S7): each is known to hold, on the fresh facts.
func preconditions(q Question) fettle.Verdict {
	if len(q.Requires) != len(q.Step.Requires) {
		return refuse("its preconditions were not all asked", fmt.Sprintf("%d of %d", len(q.Requires), len(q.Step.Requires)), "report this as a defect of Fettle")
	}
	for i, a := range q.Requires {
		switch {
		case a.Says == fettle.Yes:
		case a.Says == fettle.No:
			return refuse("a precondition does not hold: "+q.Step.Requires[i], a.Why, "a new plan from the facts as they are now")
		case q.Ahead: // what decides it may come from the steps before
		default:
			return refuse("a precondition cannot be decided: "+q.Step.Requires[i], a.Why, "the missing fact; see `fettle incident explain`")
		}
	}
	if q.Ahead {
		return allow("no precondition is foretold not to hold")
	}
	return allow(fmt.Sprintf("%d preconditions hold", len(q.Requires)))
}

// generations (S7): what the plan was made on is still the same thing.
func generations(q Question) fettle.Verdict {
	for _, g := range q.Step.Generations {
		now, ok := q.View.Facts(g.Subject)[g.Fact]
		if !ok {
			return refuse(fmt.Sprintf("%s of %s is no longer known", g.Fact, g.Subject), fmt.Sprintf("planned on %v", g.Value), "a new plan from the facts as they are now")
		}
		if !fettle.EqualValue(now, g.Value) {
			return refuse(fmt.Sprintf("%s of %s changed since the plan was made", g.Fact, g.Subject), fmt.Sprintf("planned on %v, now %v", g.Value, now), "a new plan from the facts as they are now")
		}
	}
	return allow("nothing it was planned on has changed")
}

// catalogued (S7): the action exists, in the version that the plan was made for,
// and the step does not claim to take less than the catalogue says.
func catalogued(q Question) fettle.Verdict {
	a := q.Action
	switch {
	case a == nil:
		return refuse("no adapter here knows the action "+q.Step.Action, "", "the adapter that has it")
	case a.Version != q.Step.Version:
		return refuse("the action's version changed since the plan was made", fmt.Sprintf("planned %d, now %d", q.Step.Version, a.Version), "a new plan")
	}
	for _, t := range a.Takes {
		if !has(q.Step.Takes, t) {
			return refuse(fmt.Sprintf("the step hides that its action takes %s", t), "", "a plan made from the catalogue as it is")
		}
	}
	return allow("the catalogue knows the action")
}

func has[T comparable](list []T, x T) bool {
	for _, y := range list {
		if x == y {
			return true
		}
	}
	return false
}
