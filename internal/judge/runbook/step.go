package runbook

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/runbook/yamlfile"
)

// expression reports why something does not compile, at its place in the file.
func (c *checker) expression(t yamlfile.Text, err error) {
	var e *expr.Error
	if !errors.As(err, &e) || len(e.Issues) == 0 {
		c.Add(t.At, "", "%v", err)
		return
	}
	for _, is := range e.Issues {
		c.Add(t.Place(offsetOf(t.Value, is.Line, is.Column)), is.Hint, "%s", is.Text)
	}
}

// offsetOf is the byte offset of a line and column, both from one.
func offsetOf(src string, line, column int) int {
	at := 0
	for ; line > 1; line-- {
		n := strings.IndexByte(src[at:], '\n')
		if n < 0 {
			break
		}
		at += n + 1
	}
	for i := range src[at:] {
		if column--; column <= 0 {
			return at + i
		}
	}
	return max(len(src)-1, 0)
}

func (c *checker) step(s stepShape, earlier map[string][]fettle.ParamSpec) Step {
	step := Step{ID: s.ID.Value, Fresh: DefaultFresh, ForwardOnly: s.ForwardOnly.Value, SafePoint: s.SafePoint.Value,
		Within: s.Within.Value, Hold: s.Hold.Value}
	spec, ok := c.known.action(s.Action.Value)
	if !ok {
		if s.Action.Set() {
			c.Add(s.Action.At, yamlfile.DidYouMean(s.Action.Value, c.known.actions()), "unknown action %q", s.Action.Value)
		}
		return step // what it could do is not known, so the rest cannot be judged
	}
	step.Action = *spec

	now := c.narrow(s.At, expr.Names{Steps: earlier})
	before := c.narrow(s.At, expr.Names{With: spec.Params, Steps: earlier})
	after := c.narrow(s.At, expr.Names{With: spec.Params, Out: spec.Outputs, Steps: earlier})

	step.Target = c.subject(now, s.Target, spec.Target, "target", "cause", "vars")
	if s.Host.Set() {
		step.Host = c.subject(now, s.Host, fettle.KindHost, "host", "cause", "vars", "target")
	}
	if s.Group.Set() {
		step.Group = c.subject(now, s.Group, "", "group", "cause", "vars", "target", "host")
	}
	step.With = c.with(now, s, spec)
	if s.When.Set() {
		step.When = s.When.Value
		step.when = c.program(before, s.When.Text, expr.Bool, "cause", "vars", "target", "host", "group", "with", "steps")
	}
	for _, r := range s.Requires {
		step.Requires = append(step.Requires, r.Value)
		c.program(before, r.Text, expr.Bool, "cause", "vars", "target", "host", "group", "with", "steps")
	}
	if s.Expect.Set() {
		step.Expect = s.Expect.Value
		c.program(after, s.Expect.Text, expr.Bool, "cause", "vars", "target", "host", "group", "with", "out", "steps")
	}
	step.Pins = c.pins(now, s, spec)
	step.Looks = c.looks(now, s)
	step.Claims = c.claims(now, s)
	step.Effects = c.effects(s, spec)
	step.Takes = takes(spec, step.Claims)
	if s.Fresh.Set() {
		step.Fresh = s.Fresh.Value
	}
	c.demands(s, spec, step.Takes)
	return step
}

func takes(spec *fettle.ActionSpec, claims []Claim) []fettle.Taking {
	all := slices.Clone(spec.Takes)
	for _, cl := range claims {
		all = append(all, cl.What)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// demands are what a step must say because of what its action does.
func (c *checker) demands(s stepShape, spec *fettle.ActionSpec, taken []fettle.Taking) {
	at := s.Action.At
	if len(spec.Effects) > 0 && !s.Expect.Set() {
		c.Add(at, "say in expect what must be observed afterwards, and in within by when", "action %s changes what can be observed, and the step expects nothing", spec.Name)
	}
	switch {
	case s.Expect.Set() && (!s.Within.Set() || s.Within.Value == 0):
		c.Add(s.Expect.At, "for example within: 10s", "an expectation needs to say within what time")
	case !s.Expect.Set() && (s.Within.Set() || s.Hold.Set()):
		c.Add(at, "say what must be observed, in expect", "within and hold mean nothing without an expectation")
	}
	if s.Fresh.Set() && s.Fresh.Value == 0 {
		c.Add(s.Fresh.At, "facts of the present moment do not exist; add a look and allow it a second or two", "fresh is 0: no fact is that fresh")
	}
	switch {
	case !spec.Undo && !s.ForwardOnly.Set():
		why := spec.NoUndo
		if why == "" {
			why = "it declares no undo"
		}
		c.Add(at, "say in forward_only why it may go ahead without a way back", "action %s cannot be undone: %s", spec.Name, why)
	case spec.Undo && s.ForwardOnly.Set():
		c.Add(s.ForwardOnly.At, "leave it out: the step will be undone if it does harm", "action %s can be undone", spec.Name)
	}
	for _, what := range []fettle.Taking{fettle.TakesVotes, fettle.TakesReplicas} {
		claimed := slices.ContainsFunc(s.Claims, func(cl claimShape) bool { return cl.What.Value == string(what) })
		if slices.Contains(spec.Takes, what) && !claimed {
			c.Add(at, fmt.Sprintf("add claims: [{what: %s, of: …, member: …}], so that nobody takes as much at the same time", what), "action %s takes %s, and the step does not claim them", spec.Name, what)
		}
	}
	if s.Group.Set() {
		return
	}
	quorum := slices.ContainsFunc(spec.Effects, func(e fettle.EffectSpec) bool { return e.Quorum != "" })
	const hint = "say in group which quorum group counts the target's vote"
	switch {
	case quorum:
		c.Add(at, hint, "action %s changes a quorum group, and the step names none", spec.Name)
	case slices.Contains(taken, fettle.TakesVotes):
		c.Add(at, hint, "the step takes votes, and names no quorum group")
	}
}

// subject compiles a template that gives a subject of a kind ("" is any) and is
// known when the plan is made.
func (c *checker) subject(env *expr.Env, t yamlfile.Text, kind fettle.Kind, what string, may ...string) *expr.Template {
	compiled := c.template(env, t, append(may, "steps")...)
	if compiled == nil {
		return nil
	}
	if len(compiled.Refs()) > 0 {
		c.Add(t.At, "only parameters in with can wait for an earlier step: people approve what is acted upon", "%s cannot come from an earlier step", what)
		return nil
	}
	if typ := factType(compiled.Type()); typ != "" && typ != fettle.StringFact {
		c.Add(t.At, "", "%s: want a subject, found %s", what, TypeName(typ))
		return nil
	}
	got := c.kind(t.Value)
	if len(holes(t.Value)) == 0 {
		parsed, err := fettle.ParseSubject(t.Value)
		if err != nil {
			c.Add(t.At, "for an expression write ${…}", "%s: %v", what, err)
			return nil
		}
		got = parsed.Kind()
	}
	if kind != "" && got != "" && got != kind {
		c.Add(t.At, "", "%s must be a %s; this is a %s", what, kind, got)
	}
	return compiled
}

// kind tells the kind of the subject that a template will give, as far as that
// can be seen: ${cause}, ${vars.x} of such a variable, ${subject('unit', …)}.
func (c *checker) kind(template string) fettle.Kind {
	inner := strings.TrimSpace(template)
	if list := holes(inner); len(list) != 1 || list[0].begin != 2 || list[0].end != len(inner)-1 {
		return ""
	}
	return c.kindOf(strings.TrimSpace(inner[2:len(inner)-1]), 0)
}

func (c *checker) kindOf(src string, depth int) fettle.Kind {
	const deepest = 10 // a variable can only speak of earlier ones; this is a belt
	name, isVar := strings.CutPrefix(src, "vars.")
	rest, isCall := strings.CutPrefix(src, "subject(")
	switch {
	case src == "cause" && c.cause != nil:
		return c.cause.Kind
	case isVar && depth < deepest:
		if source, ok := c.pure[name]; ok {
			return c.kindOf(strings.TrimSpace(source), depth+1)
		}
	case isCall:
		rest = strings.TrimSpace(rest)
		if rest != "" && (rest[0] == '\'' || rest[0] == '"') {
			if end := strings.IndexByte(rest[1:], rest[0]); end > 0 {
				return fettle.Kind(rest[1 : 1+end])
			}
		}
	}
	return ""
}

// effects compiles what the action declares. A fault there is the catalogue's,
// and is reported where the action is used.
func (c *checker) effects(s stepShape, spec *fettle.ActionSpec) []Effect {
	env, err := c.env.Narrow(expr.Names{With: orEmpty(spec.Params), Out: orEmpty(spec.Outputs), Steps: map[string][]fettle.ParamSpec{}, Vars: map[string]expr.Type{}})
	if err != nil {
		c.Add(s.Action.At, "", "action %s: %v", spec.Name, err)
		return nil
	}
	var list []Effect
	for i, e := range spec.Effects {
		eff := Effect{Spec: e}
		fault := func(field string, err error) {
			c.Add(s.Action.At, "the fault is in the adapter's catalogue", "effect %d of action %s: %s: %v", i+1, spec.Name, field, err)
		}
		if e.On != "" {
			if eff.On, err = env.Compile(e.On, expr.String); err != nil {
				fault("on", err)
			}
		}
		if e.Quorum == "" {
			if eff.To, err = env.Compile(e.To, expr.Any); err != nil {
				fault("to", err)
			}
		}
		list = append(list, eff)
	}
	return list
}

func orEmpty(p []fettle.ParamSpec) []fettle.ParamSpec {
	if p == nil {
		return []fettle.ParamSpec{}
	}
	return p
}
