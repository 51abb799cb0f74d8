package plan

import (
	"slices"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/runbook"
)

// makeStep makes one step concrete, and foretells it: m.view moves on.
func (m *maker) makeStep(s runbook.Step) (fettle.Step, []fettle.Prediction, error) {
	spec := s.Action
	if m.in.Catalogues != nil {
		found, ok := findAction(m.in.Catalogues, spec.Name)
		if !ok {
			return fettle.Step{}, nil, m.not("no adapter offers action %s any more", spec.Name)
		}
		spec = *found
	}
	step := fettle.Step{
		ID: s.ID, Action: spec.Name, Version: spec.Version, Fresh: s.Fresh, Within: s.Within, Hold: s.Hold, Timeout: spec.Timeout,
		Undo: spec.Undo, ForwardOnly: s.ForwardOnly, SafePoint: s.SafePoint, Risk: runbook.WorseRisk(fettle.LowRisk, spec.Risk), Takes: slices.Clone(s.Takes),
	}
	sc, err := m.parties(&step, s, spec)
	if err != nil {
		return step, nil, err
	}
	if err := m.params(&step, s, sc); err != nil {
		return step, nil, err
	}
	if err := m.conditions(&step, s); err != nil {
		return step, nil, err
	}
	if err := m.attachments(&step, s, sc); err != nil {
		return step, nil, err
	}
	m.effects(&step, s, spec)
	predicted, err := m.foretell(step, s, sc)
	return step, predicted, err
}

func findAction(catalogues []fettle.Catalogue, name string) (*fettle.ActionSpec, bool) {
	for i := range catalogues {
		if spec, ok := catalogues[i].FindAction(name); ok {
			return spec, true
		}
	}
	return nil, false
}

// parties are target, acting host and quorum group.
func (m *maker) parties(step *fettle.Step, s runbook.Step, spec fettle.ActionSpec) (expr.Scope, error) {
	sc := m.scope()
	var err error
	if step.Target, err = m.subject("target", s.Target, spec.Target, sc); err != nil {
		return sc, err
	}
	sc.Target = step.Target
	switch {
	case s.Host != nil:
		if step.Host, err = m.subject("host", s.Host, fettle.KindHost, sc); err != nil {
			return sc, err
		}
	case step.Target.Kind() == fettle.KindHost:
		step.Host = step.Target
	default:
		on := m.view.Related(step.Target, ">runs-on")
		if len(on) != 1 || on[0].Kind() != fettle.KindHost {
			return sc, m.not("the acting host is not known: %s is seen to run on %d subjects %v; name the host in the runbook", step.Target, len(on), on)
		}
		step.Host = on[0]
	}
	sc.Host = step.Host
	if s.Group != nil {
		if step.Group, err = m.subject("group", s.Group, "", sc); err != nil {
			return sc, err
		}
		sc.Group = step.Group
	}
	return sc, nil
}

func (m *maker) params(step *fettle.Step, s runbook.Step, sc expr.Scope) error {
	for _, p := range s.With {
		if p.Late != nil {
			step.Late = append(step.Late, *p.Late)
			continue
		}
		v := p.Value
		what := "parameter " + p.Spec.Name
		switch {
		case p.List != nil:
			list := []string{}
			for _, t := range p.List {
				item, err := m.eval(what, t, sc)
				if err != nil {
					return err
				}
				list = append(list, expr.Text(item))
			}
			v = list
		case p.Text != nil:
			var err error
			if v, err = m.eval(what, p.Text, sc); err != nil {
				return err
			}
		}
		if got := fettle.TypeOf(v); got != p.Spec.Type {
			return m.not("%s: want %s, found %s", what, runbook.TypeName(p.Spec.Type), runbook.TypeName(got))
		}
		if step.Params == nil {
			step.Params = fettle.Facts{}
		}
		step.Params[p.Spec.Name] = v
	}
	return nil
}

// conditions are the expressions that are asked later.
func (m *maker) conditions(step *fettle.Step, s runbook.Step) error {
	var err error
	if step.When, err = m.inline("when", s.When); err != nil {
		return err
	}
	for _, r := range s.Requires {
		text, err := m.inline("requires", r)
		if err != nil {
			return err
		}
		step.Requires = append(step.Requires, text)
	}
	step.Expect, err = m.inline("expect", s.Expect)
	return err
}

// attachments are pins, looks and claims.
func (m *maker) attachments(step *fettle.Step, s runbook.Step, sc expr.Scope) error {
	or := func(what string, t *expr.Template, left fettle.Subject, kind fettle.Kind) (fettle.Subject, error) {
		if t == nil {
			return left, nil
		}
		return m.subject(what, t, kind, sc)
	}
	for _, p := range s.Pins {
		on, err := or("the subject of a pin", p.Subject, step.Target, "")
		if err != nil {
			return err
		}
		v, ok := m.view.Facts(on)[p.Fact]
		if !ok || !isText(v) {
			return m.not("fact %s of %s is not known, so it cannot be pinned", p.Fact, on)
		}
		step.Generations = append(step.Generations, fettle.Generation{Subject: on, Fact: p.Fact, Value: v})
	}
	for _, l := range s.Looks {
		on, err := or("the subject of a look", l.Subject, step.Target, "")
		if err != nil {
			return err
		}
		from, err := or("the host of a look", l.Host, "", fettle.KindHost)
		if err != nil {
			return err
		}
		step.Looks = append(step.Looks, fettle.Look{Subject: on, Probe: l.Probe, Host: from})
	}
	for _, c := range s.Claims {
		of, err := or("what a claim is of", c.Of, step.Group, "")
		if err != nil {
			return err
		}
		member, err := or("the member of a claim", c.Member, step.Target, "")
		if err != nil {
			return err
		}
		step.Claims = append(step.Claims, fettle.Claim{What: c.What, Of: of, Member: member})
	}
	return nil
}

// effects puts the subjects that the action will change into the step, as far as
// they are known: a person approves what is changed.
func (m *maker) effects(step *fettle.Step, s runbook.Step, spec fettle.ActionSpec) {
	sc := m.stepScope(*step)
	for i, e := range spec.Effects {
		if e.On != "" {
			if on, err := m.book(s).subject(i, e, sc); err == nil && on != "" {
				e.On = runbook.Literal(string(on))
			}
		}
		step.Effects = append(step.Effects, e)
	}
}

func (m *maker) stepScope(step fettle.Step) expr.Scope {
	sc := scopeOf(m.view, step)
	sc.Cause = m.in.Cause.Subject
	return sc
}

// book is where the compiled effects of a step are found.
func (m *maker) book(s runbook.Step) compiled {
	return compiled{env: m.in.Book.Env(), effects: s.Effects}
}

// foretell adds the step to the view. A step that is known to be skipped adds
// nothing.
func (m *maker) foretell(step fettle.Step, s runbook.Step, sc expr.Scope) ([]fettle.Prediction, error) {
	if when := s.Whether(); when != nil {
		sc.With = step.Params
		if answer, _ := when.Bool(sc); answer == fettle.No {
			return nil, nil
		}
	}
	predicted, next, err := predict(m.view, step, nil, m.book(s))
	if err != nil {
		return nil, m.not("it cannot be foretold: %v", err)
	}
	m.view = next
	return predicted, nil
}
