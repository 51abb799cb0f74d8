package rehearse

import (
	"fmt"
	"slices"
	"strings"

	"fettle/internal/fettle"
	"fettle/internal/judge/runbook"
)

// compare returns what is not as the check wants it, in sentences.
func (p *play) compare(c runbook.Check) []string {
	var wrong []string
	state := func(keys []fettle.ConditionKey, want fettle.Tri, word string) {
		for _, k := range keys {
			got, _ := p.mind.View().Condition(k)
			if got.State != want {
				wrong = append(wrong, fmt.Sprintf("%s should be %s, is %s", k, word, stateWord(got.State)))
			}
		}
	}
	state(c.Raised, fettle.Yes, "raised")
	state(c.Clear, fettle.No, "clear")
	state(c.Unknown, fettle.Unknown, "unknown")
	if c.Causes != nil {
		if got, want := p.causes(), sorted(c.Causes); !slices.Equal(got, want) {
			wrong = append(wrong, fmt.Sprintf("the causes should be %v, are %v", want, got))
		}
	}
	if c.Plan != nil {
		wrong = append(wrong, p.comparePlan(*c.Plan)...)
	}
	if c.NoPlan != "" {
		wrong = append(wrong, p.compareNoPlan(c.NoPlan)...)
	}
	if c.Begun != nil {
		if got := p.begun(); !slices.Equal(got, c.Begun) {
			wrong = append(wrong, fmt.Sprintf("the steps that were begun should be %v, are %v%s", c.Begun, got, p.stories()))
		}
	}
	if c.Refused != nil {
		wrong = append(wrong, p.compareRefusal(*c.Refused)...)
	}
	return wrong
}

func stateWord(t fettle.Tri) string {
	switch t {
	case fettle.Yes:
		return "raised"
	case fettle.No:
		return "clear"
	default:
		return "unknown"
	}
}

func sorted(keys []fettle.ConditionKey) []fettle.ConditionKey {
	keys = slices.Clone(keys)
	slices.SortFunc(keys, fettle.ConditionKey.Compare)
	return keys
}

func (p *play) causes() []fettle.ConditionKey {
	causes := []fettle.ConditionKey{}
	for _, g := range p.mind.Groups() {
		for _, c := range g.Diagnosis.Causes {
			causes = append(causes, c.ConditionKey)
		}
	}
	return sorted(causes)
}

// plans returns the open incidents' plans of the tested runbook.
func (p *play) plans() []fettle.Incident {
	var list []fettle.Incident
	for _, in := range p.mind.Incidents() {
		if in.Plan != nil && in.Plan.Runbook == p.book && !in.State.Ended() {
			list = append(list, in)
		}
	}
	return list
}

// begun returns the steps of the tested runbook that were allowed and handed out.
func (p *play) begun() []string {
	ids := []string{}
	for _, in := range p.plans() {
		for _, e := range in.Story {
			if e.Kind == fettle.EvIntent {
				ids = append(ids, e.Step)
			}
		}
	}
	return ids
}

func (p *play) comparePlan(want runbook.WantPlan) []string {
	plans := p.plans()
	if len(plans) == 0 {
		return []string{fmt.Sprintf("runbook %s should have made a plan with rung %s; it made none%s", p.book, want.Rung, p.stories())}
	}
	var closest []string
	for i, in := range plans {
		wrong := p.onePlan(*in.Plan, want)
		if len(wrong) == 0 {
			return nil
		}
		if i == 0 || len(wrong) < len(closest) {
			closest = wrong
		}
	}
	return closest
}

func (p *play) onePlan(plan fettle.Plan, want runbook.WantPlan) []string {
	var wrong []string
	if want.Rung != "" && plan.Rung != want.Rung {
		wrong = append(wrong, fmt.Sprintf("the rung should be %s, is %s", want.Rung, plan.Rung))
	}
	if want.Level != nil {
		if level, why := p.mind.Level(plan); level != *want.Level {
			wrong = append(wrong, fmt.Sprintf("the level should be %s, is %s (%s)", *want.Level, level, why))
		}
	}
	if want.Loses != "" && !strings.Contains(plan.Loses, want.Loses) {
		wrong = append(wrong, fmt.Sprintf("what is lost should say %q, says %q", want.Loses, plan.Loses))
	}
	steps := p.mind.NotSkipped(plan)
	if len(steps) != len(want.Steps) {
		var ids []string
		for _, s := range steps {
			ids = append(ids, s.ID)
		}
		return append(wrong, fmt.Sprintf("there should be %d steps, there are %d: %s", len(want.Steps), len(steps), strings.Join(ids, ", ")))
	}
	for i, w := range want.Steps {
		wrong = append(wrong, oneStep(steps[i], w)...)
	}
	return wrong
}

func oneStep(got fettle.Step, want runbook.WantStep) []string {
	var wrong []string
	differ := func(what, got, want string) {
		if want != "" && got != want {
			wrong = append(wrong, fmt.Sprintf("step %s: the %s should be %s, is %s", want, what, want, got))
		}
	}
	differ("id", got.ID, want.ID)
	differ("action", got.Action, want.Action)
	differ("target", string(got.Target), string(want.Target))
	differ("host", string(got.Host), string(want.Host))
	// any order: what is wrong is sorted below
	for name, v := range want.With {
		if !fettle.EqualValue(got.Params[name], v) {
			wrong = append(wrong, fmt.Sprintf("step %s: %s should be %v, is %v", got.ID, name, v, got.Params[name]))
		}
	}
	slices.Sort(wrong)
	return wrong
}

// stories says where the open incidents stand: why there is no plan.
func (p *play) stories() string {
	var b strings.Builder
	for _, in := range p.mind.Incidents() {
		fmt.Fprintf(&b, "; incident on %s is %s", in.Cause, in.State)
		if in.Why != "" {
			b.WriteString(": " + in.Why)
		}
		for _, e := range in.Story {
			if e.Kind == fettle.EvNote {
				b.WriteString("; " + e.Text)
			}
		}
	}
	return b.String()
}

func (p *play) compareNoPlan(reason string) []string {
	if plans := p.plans(); len(plans) > 0 {
		return []string{fmt.Sprintf("no rung should fit, but rung %s does", plans[0].Plan.Rung)}
	}
	if s := p.stories(); !strings.Contains(s, reason) {
		return []string{fmt.Sprintf("the reason should say %q%s", reason, s)}
	}
	return nil
}

func (p *play) compareRefusal(want runbook.WantRefusal) []string {
	var seen []string
	for _, in := range p.mind.Incidents() {
		for _, e := range in.Story {
			if e.Kind != fettle.EvRefused && e.Kind != fettle.EvAsked || want.Step != "" && e.Kind == fettle.EvRefused && e.Step != want.Step {
				continue
			}
			for _, v := range e.Verdicts {
				if v.Allow {
					continue
				}
				text := v.Why + " " + v.Arithmetic
				if v.Invariant == want.Invariant && strings.Contains(text, want.Why) {
					return nil
				}
				seen = append(seen, v.Invariant+" "+text)
			}
		}
	}
	return []string{fmt.Sprintf("a refusal by %s saying %q should follow; refused were %q%s", want.Invariant, want.Why, seen, p.stories())}
}
