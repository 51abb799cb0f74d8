package runbook

import (
	"slices"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/runbook/yamlfile"
)

// with checks the parameters of a step against those of its action.
func (c *checker) with(env *expr.Env, s stepShape, spec *fettle.ActionSpec) []Param {
	var names []string
	for _, p := range spec.Params {
		names = append(names, p.Name)
	}
	var list []Param
	for _, entry := range s.With {
		i := slices.Index(names, entry.Key.Value)
		if i < 0 {
			c.Add(entry.Key.At, yamlfile.DidYouMean(entry.Key.Value, names), "action %s has no parameter %q", spec.Name, entry.Key.Value)
			continue
		}
		if p, ok := c.param(env, spec.Params[i], entry.Value); ok {
			list = append(list, p)
		}
	}
	for _, p := range spec.Params {
		given := slices.ContainsFunc(s.With, func(e yamlfile.Entry[yamlfile.Value]) bool { return e.Key.Value == p.Name })
		if p.Required && !given {
			c.Add(s.Action.At, "add it in with: "+p.Doc, "action %s needs the parameter %q", spec.Name, p.Name)
		}
	}
	return list
}

func (c *checker) param(env *expr.Env, spec fettle.ParamSpec, v yamlfile.Value) (Param, bool) {
	p := Param{Spec: spec}
	mismatch := func(got fettle.FactType) {
		c.Add(v.At, "", "parameter %s: want %s, found %s", spec.Name, TypeName(spec.Type), TypeName(got))
	}
	switch plain := v.Plain.(type) {
	case bool, int64:
		if got := fettle.TypeOf(plain); got != spec.Type {
			mismatch(got)
			return p, false
		}
		p.Value = plain
		return p, true
	case []string:
		if spec.Type != fettle.ListFact {
			mismatch(fettle.ListFact)
			return p, false
		}
		p.List = []*expr.Template{}
		for _, t := range v.Texts {
			if item := c.now(env, t, fettle.StringFact, "an entry of parameter "+spec.Name); item != nil {
				p.List = append(p.List, item)
			}
		}
		return p, len(p.List) == len(v.Texts)
	case string:
		return c.textParam(env, p, v.Texts[0])
	}
	return p, false // reported when it was decoded
}

func (c *checker) textParam(env *expr.Env, p Param, t yamlfile.Text) (Param, bool) {
	compiled := c.template(env, t, "cause", "vars", "target", "host", "group", "steps")
	if t.Value == "" && p.Spec.Type == fettle.StringFact {
		p.Value = ""
		return p, true
	}
	if compiled == nil {
		return p, false
	}
	ref, late := compiled.Late()
	if len(compiled.Refs()) > 0 && !late {
		c.Add(t.At, "write exactly ${steps.ID.OUTPUT}", "parameter %s: an output of an earlier step can only be a parameter as a whole", p.Spec.Name)
		return p, false
	}
	if got := factType(compiled.Type()); got != "" && got != p.Spec.Type {
		c.Add(t.At, "", "parameter %s: want %s, found %s", p.Spec.Name, TypeName(p.Spec.Type), TypeName(got))
		return p, false
	}
	if late {
		p.Late = &fettle.Late{Param: p.Spec.Name, Step: ref.Step, Output: ref.Output, Type: p.Spec.Type}
		return p, true
	}
	p.Text = compiled
	return p, true
}

// now compiles a template of a type whose value is known when the plan is made.
func (c *checker) now(env *expr.Env, t yamlfile.Text, want fettle.FactType, what string) *expr.Template {
	compiled := c.template(env, t, "cause", "vars", "target", "host", "group", "steps")
	if compiled == nil {
		return nil
	}
	if len(compiled.Refs()) > 0 {
		c.Add(t.At, "an output of an earlier step can only be a parameter as a whole", "%s cannot come from an earlier step", what)
		return nil
	}
	if got := factType(compiled.Type()); got != "" && got != want {
		c.Add(t.At, "", "%s: want %s, found %s", what, TypeName(want), TypeName(got))
		return nil
	}
	return compiled
}

// optional is subject, or nil where nothing is written.
func (c *checker) optional(env *expr.Env, t yamlfile.Text, kind fettle.Kind, what string) *expr.Template {
	if !t.Set() {
		return nil
	}
	return c.subject(env, t, kind, what, "cause", "vars", "target", "host", "group")
}

func (c *checker) pins(env *expr.Env, s stepShape, spec *fettle.ActionSpec) []Pin {
	var list []Pin
	for _, p := range s.Pin {
		kind := spec.Target
		if p.Subject.Set() {
			kind = c.kind(p.Subject.Value)
		}
		if names := c.known.facts(kind); p.Fact.Set() && len(names) > 0 && !slices.Contains(names, p.Fact.Value) {
			c.Add(p.Fact.At, yamlfile.DidYouMean(p.Fact.Value, names), "no probe declares a fact %q%s", p.Fact.Value, ofKind(kind))
		}
		list = append(list, Pin{Subject: c.optional(env, p.Subject, "", "subject"), Fact: p.Fact.Value})
	}
	return list
}

func ofKind(k fettle.Kind) string {
	if k == "" {
		return ""
	}
	return " of a " + string(k)
}

func (c *checker) looks(env *expr.Env, s stepShape) []Look {
	var list []Look
	for _, l := range s.Look {
		var kind fettle.Kind
		spec, ok := c.known.probe(l.Probe.Value)
		switch {
		case ok:
			kind = spec.Kind
		case l.Probe.Set():
			c.Add(l.Probe.At, yamlfile.DidYouMean(l.Probe.Value, c.known.probes()), "unknown probe %q", l.Probe.Value)
		}
		if ok && !l.Subject.Set() && s.Target.Set() {
			if target := c.kind(s.Target.Value); target != "" && target != kind {
				c.Add(l.Probe.At, "name the subject that it should look at", "probe %s observes a %s, and the target is a %s", spec.Name, kind, target)
			}
		}
		list = append(list, Look{
			Subject: c.optional(env, l.Subject, kind, "subject"), Probe: l.Probe.Value,
			Host: c.optional(env, l.Host, fettle.KindHost, "host"),
		})
	}
	return list
}

func (c *checker) claims(env *expr.Env, s stepShape) []Claim {
	var list []Claim
	for _, cl := range s.Claims {
		if !cl.Of.Set() && cl.What.Set() && !s.Group.Set() {
			c.Add(cl.At, "name the group, replica set or failure domain in of, or the step's group", "a claim of %s of nothing", cl.What.Value)
		}
		list = append(list, Claim{
			What:   fettle.Taking(cl.What.Value),
			Of:     c.optional(env, cl.Of, "", "of"),
			Member: c.optional(env, cl.Member, "", "member"),
		})
	}
	return list
}
