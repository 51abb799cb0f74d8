package plan

import (
	"fmt"
	"maps"
	"slices"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/runbook"
	"fettle/internal/judge/world"
)

// Predict foretells the world after a step: one Prediction for each subject that
// its action changes, sorted by subject, and the view with them on top.
//
// out are the step's own outputs, nil while it has not been done; steps those of
// earlier steps. What depends on outputs that are not known is not foretold, and
// is unknown in the overlay. Effects are functions of the world before the step:
// none of them sees another. The error says what in the step cannot be: a
// learner that is to lead, two values for one fact.
func Predict(view world.View, step fettle.Step, out fettle.Facts, steps map[string]fettle.Facts, env *expr.Env) ([]fettle.Prediction, *world.Overlay, error) {
	for _, l := range step.Late {
		if v, ok := steps[l.Step][l.Output]; ok {
			step.Params = step.Params.Clone()
			if step.Params == nil {
				step.Params = fettle.Facts{}
			}
			step.Params[l.Param] = v
		}
	}
	return predict(view, step, out, compiled{env: env})
}

// compiled finds the programs of a step's effects: those that were compiled when
// the runbook was read, as long as they are of the same text.
type compiled struct {
	env     *expr.Env
	effects []runbook.Effect
}

func (c compiled) on(i int, e fettle.EffectSpec) (*expr.Program, error) {
	if i < len(c.effects) && c.effects[i].Spec.On == e.On && c.effects[i].On != nil {
		return c.effects[i].On, nil
	}
	return c.env.Compile(e.On, expr.String)
}

func (c compiled) to(i int, e fettle.EffectSpec) (*expr.Program, error) {
	if i < len(c.effects) && c.effects[i].Spec.To == e.To && c.effects[i].To != nil {
		return c.effects[i].To, nil
	}
	return c.env.Compile(e.To, expr.Any)
}

// subject is what an effect changes; "" and no error when it is not known yet.
func (c compiled) subject(i int, e fettle.EffectSpec, sc expr.Scope) (fettle.Subject, error) {
	if e.On == "" {
		return sc.Target, nil
	}
	if s, ok := literal(e.On); ok {
		return s, nil
	}
	program, err := c.on(i, e)
	if err != nil {
		return "", fmt.Errorf("effect %d: on: %w", i+1, err)
	}
	v, answer, _ := program.Eval(sc)
	if answer == fettle.Unknown {
		return "", nil
	}
	text, _ := v.(string)
	s, err := fettle.ParseSubject(text)
	if err != nil {
		return "", fmt.Errorf("effect %d: on: %w", i+1, err)
	}
	return s, nil
}

// literal reads a subject that Make wrote into a step's effect. A subject in
// canonical form has nothing in it that a CEL string escapes.
func literal(on string) (fettle.Subject, bool) {
	if len(on) < 2 || on[0] != '"' || on[len(on)-1] != '"' {
		return "", false
	}
	s, err := fettle.ParseSubject(on[1 : len(on)-1])
	return s, err == nil && runbook.Literal(string(s)) == on
}

func scopeOf(view world.View, step fettle.Step) expr.Scope {
	return expr.Scope{View: view, Target: step.Target, Host: step.Host, Group: step.Group, With: step.Params}
}

// forecast gathers what a step changes.
type forecast struct {
	overlay   *world.Overlay
	facts     map[fettle.Subject]fettle.Facts
	told      map[fettle.Subject]map[string]bool // facts that an effect spoke of
	group     *fettle.QuorumGroup
	notLeader []fettle.Subject
}

func predict(view world.View, step fettle.Step, out fettle.Facts, from compiled) ([]fettle.Prediction, *world.Overlay, error) {
	sc := scopeOf(view, step)
	sc.Out = out
	f := &forecast{overlay: world.Over(view), facts: map[fettle.Subject]fettle.Facts{}, told: map[fettle.Subject]map[string]bool{}}
	for i, e := range step.Effects {
		on, err := from.subject(i, e, sc)
		if err != nil {
			return nil, nil, fmt.Errorf("predict step %s: %w", step.ID, err)
		}
		if on == "" {
			continue
		}
		if e.Quorum != "" {
			err = f.quorum(view, step.Group, e.Quorum, on)
		} else {
			err = f.fact(view, i, e, on, from, sc)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("predict step %s: %w", step.ID, err)
		}
	}
	return f.predictions(step), f.overlay, nil
}

func (f *forecast) fact(view world.View, i int, e fettle.EffectSpec, on fettle.Subject, from compiled, sc expr.Scope) error {
	if f.told[on][e.Fact] {
		return fmt.Errorf("effect %d: two values are declared for fact %s of %s", i+1, e.Fact, on)
	}
	if f.told[on] == nil {
		f.told[on] = map[string]bool{}
	}
	f.told[on][e.Fact] = true
	program, err := from.to(i, e)
	if err != nil {
		return fmt.Errorf("effect %d: to: %w", i+1, err)
	}
	sc.Was = view.Facts(on)[e.Fact]
	v, answer, _ := program.Eval(sc)
	if answer == fettle.Unknown {
		f.overlay.HideFact(on, e.Fact)
		return nil
	}
	if f.facts[on] == nil {
		f.facts[on] = fettle.Facts{}
	}
	f.facts[on][e.Fact] = v
	f.overlay.SetFact(on, e.Fact, v)
	return nil
}

// quorum changes the group that the step names. A group that nobody sees is not
// foretold: the guards refuse to act on it.
func (f *forecast) quorum(view world.View, group fettle.Subject, effect fettle.QuorumEffect, on fettle.Subject) error {
	if group == "" {
		return fmt.Errorf("%s of %s: the step names no quorum group", effect, on)
	}
	if f.group == nil {
		before, ok := view.Quorum(group, noTime)
		if !ok {
			return nil
		}
		f.group = &before
	}
	next, yields, err := change(*f.group, effect, on)
	if err != nil {
		return fmt.Errorf("%s in %s: %w", effect, group, err)
	}
	f.group = &next
	if yields {
		f.notLeader = append(f.notLeader, on)
	}
	f.overlay.SetQuorum(group, next)
	return nil
}

func (f *forecast) predictions(step fettle.Step) []fettle.Prediction {
	var list []fettle.Prediction
	subjects := slices.Sorted(maps.Keys(f.facts))
	if f.group != nil && f.facts[step.Group] == nil {
		subjects = append(subjects, step.Group)
	}
	slices.Sort(subjects)
	for _, s := range subjects {
		p := fettle.Prediction{Step: step.ID, Subject: s, Facts: f.facts[s]}
		if s == step.Group && f.group != nil {
			p.Quorum = f.group
			if !slices.ContainsFunc(f.group.Members, func(m fettle.QuorumMember) bool { return m.Leader }) {
				p.NotLeader = f.notLeader
			}
		}
		list = append(list, p)
	}
	return list
}
