package runbook

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"fettle/internal/fettle"
)

// Reversible reports whether a plan leaves nothing that could not be taken back:
// every step can be undone, or takes nothing and is of low risk (a snapshot, a
// forgotten failure), so that there is nothing to undo.
func Reversible(p fettle.Plan) bool {
	return !slices.ContainsFunc(p.Steps, func(s fettle.Step) bool {
		return !s.Undo && (s.Risk != fettle.LowRisk || len(s.Takes) > 0)
	})
}

// Level says how far a plan may go by itself under a policy, and why, in a
// sentence. reversible is Reversible(plan), or false where the caller knows of
// something that no undo brings back.
//
// Each subject that the plan acts upon is judged by the last rule that matches
// it, by DefaultLevel where none does; the lowest answer counts. Whatever the
// rules say, a plan goes no further than Approve when it loses something, can
// cut a machine off, has a high-risk step without undo, or names no lab test. A malformed pattern, in a
// policy that did not come from ParsePolicy, observes only.
func Level(policy fettle.Policy, plan fettle.Plan, reversible bool) (fettle.Level, string) {
	level, why := fettle.Automatic, ""
	for _, subject := range targets(plan) {
		l, w := ruled(policy, plan, subject, reversible)
		if why == "" || l < level {
			level, why = l, w
		}
	}
	if level < fettle.Automatic {
		return level, why
	}
	if ask := alwaysAsks(plan); ask != "" {
		return fettle.Approve, fmt.Sprintf("A person is asked, whatever the policy says: %s.", ask)
	}
	return level, why
}

// targets are the subjects that a plan acts upon, sorted; the cause where it
// has no steps.
func targets(plan fettle.Plan) []fettle.Subject {
	var list []fettle.Subject
	for _, s := range plan.Steps {
		list = append(list, s.Target)
	}
	if len(list) == 0 {
		list = append(list, plan.Cause.Subject)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func ruled(policy fettle.Policy, plan fettle.Plan, subject fettle.Subject, reversible bool) (fettle.Level, string) {
	for i := len(policy.Rules) - 1; i >= 0; i-- {
		r := policy.Rules[i]
		ok, err := matches(r, plan, subject)
		if err != nil {
			return fettle.Observe, fmt.Sprintf("Rule %d of the policy has a malformed pattern, so nothing is permitted.", i+1)
		}
		if ok {
			return r.Level, fmt.Sprintf("Rule %d of the policy (runbook %q, rung %q, subject %q) says %s for %s.", i+1, r.Runbook, r.Rung, r.Subject, r.Level, subject)
		}
	}
	level, why := DefaultLevel(plan, reversible)
	if len(policy.Rules) > 0 {
		why = fmt.Sprintf("No rule of the policy matches %s. %s", subject, why)
	}
	return level, why
}

func matches(r fettle.PolicyRule, plan fettle.Plan, subject fettle.Subject) (bool, error) {
	all := true
	for _, p := range []struct{ pattern, text string }{{r.Runbook, plan.Runbook}, {r.Rung, plan.Rung}, {r.Subject, string(subject)}} {
		// path.Match stops * at a '/'; in a subject that is an ordinary character.
		ok, err := path.Match(strings.ReplaceAll(p.pattern, "/", "\x00"), strings.ReplaceAll(p.text, "/", "\x00"))
		if err != nil {
			return false, err
		}
		all = all && ok && p.pattern != ""
	}
	return all, nil
}

// DefaultLevel judges a plan by what it takes away, as design section 5 says:
// reversible, of low risk, proven in the lab, on one host and taking nothing is
// automatic; everything else asks.
func DefaultLevel(plan fettle.Plan, reversible bool) (fettle.Level, string) {
	if ask := alwaysAsks(plan); ask != "" {
		return fettle.Approve, fmt.Sprintf("A person is asked: %s.", ask)
	}
	asks := func(format string, args ...any) (fettle.Level, string) {
		return fettle.Approve, "A person is asked by default: " + fmt.Sprintf(format, args...) + "."
	}
	hosts := actingHosts(plan)
	switch {
	case len(plan.Takes) > 0:
		var words []string
		for _, t := range plan.Takes {
			words = append(words, takingWords(t))
		}
		return asks("the rung %s", strings.Join(words, ", "))
	case len(hosts) > 1:
		return asks("it acts on %d hosts (%s)", len(hosts), strings.Join(hosts, ", "))
	case plan.Risk != fettle.LowRisk:
		return asks("its risk is %s, not low", orUnstated(plan.Risk))
	case !reversible:
		return asks("it cannot be undone as a whole")
	}
	return fettle.Automatic, fmt.Sprintf("By default it may act by itself: reversible, of low risk, takes nothing away, and %s proved it.", plan.ProvedBy)
}

func orUnstated(r fettle.Risk) string {
	if r == "" {
		return "not stated"
	}
	return string(r)
}

func takingWords(t fettle.Taking) string {
	switch t {
	case fettle.TakesData:
		return "sets data aside"
	case fettle.TakesHistory:
		return "drops history"
	default:
		return "takes " + string(t)
	}
}

func actingHosts(plan fettle.Plan) []string {
	var list []string
	for _, s := range plan.Steps {
		list = append(list, string(s.Host))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// alwaysAsks says why no rule can make a plan automatic; "" when one can.
func alwaysAsks(plan fettle.Plan) string {
	if plan.Loses != "" {
		return "it would lose for good: " + strings.TrimSuffix(plan.Loses, ".")
	}
	for _, s := range plan.Steps {
		if slices.Contains(s.Takes, fettle.TakesReachability) {
			return fmt.Sprintf("step %s can cut its machine off", s.ID)
		}
		if !s.Undo && WorseRisk(fettle.LowRisk, s.Risk) == fettle.HighRisk {
			return fmt.Sprintf("step %s has high risk and cannot be undone", s.ID)
		}
	}
	if plan.ProvedBy == "" {
		return "no lab test is named that proved this rung"
	}
	return ""
}
