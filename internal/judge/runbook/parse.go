package runbook

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/runbook/yamlfile"
)

// Parse reads a runbook and checks it against the catalogues. file is its name
// in messages. env must have been made of the same catalogues. The error, if
// any, is a *yamlfile.Error with everything that is wrong.
func Parse(file string, src []byte, env *expr.Env, catalogue []fettle.Catalogue) (*Runbook, error) {
	var shape bookShape
	report, parsed := yamlfile.Decode(file, src, &shape)
	if !parsed {
		return nil, report.Err()
	}
	c := &checker{Report: report, env: env, known: catalogue, vars: map[string]expr.Type{}, pure: map[string]string{}}
	book := c.book(shape)
	book.File, book.Hash, book.env = file, digest(src), env
	if err := report.Err(); err != nil {
		return nil, err
	}
	return book, nil
}

func digest(src []byte) string {
	sum := sha256.Sum256(src)
	return hex.EncodeToString(sum[:])
}

// checker turns shapes into what they mean and reports what they cannot mean.
type checker struct {
	*yamlfile.Report
	env   *expr.Env
	known catalogues
	cause *fettle.ConditionSpec // nil: unknown
	vars  map[string]expr.Type
	pure  map[string]string // vars by name: their source, to tell their kind
}

func (c *checker) book(s bookShape) *Runbook {
	b := &Runbook{Name: s.Runbook.Value, For: fettle.Code(s.For.Value), Doc: s.Doc.Value}
	if s.For.Set() {
		spec, ok := c.known.condition(b.For)
		switch {
		case !ok:
			c.Add(s.For.At, yamlfile.DidYouMean(s.For.Value, c.known.codes()), "unknown condition %q", s.For.Value)
		case spec.Explains:
			c.Add(s.For.At, "it explains other conditions and is never repaired; write the runbook for what it explains, or leave it to a person",
				"condition %s is reported as a cause only", s.For.Value)
		default:
			c.cause = spec
		}
	}
	for _, v := range s.Vars {
		c.identifier(v.Key, "a variable")
		env := c.narrow(v.Value.At, expr.Names{})
		p := c.program(env, v.Value.Text, expr.Any, "cause", "vars")
		typ := expr.Any
		if p != nil {
			typ = p.Type()
		}
		c.vars[v.Key.Value], c.pure[v.Key.Value] = typ, v.Value.Value
		b.Vars = append(b.Vars, Var{Name: v.Key.Value, Program: p})
	}
	first := map[string]int{}
	for _, r := range s.Rungs {
		if line, twice := first[r.Rung.Value]; twice && r.Rung.Set() {
			c.Add(r.Rung.At, fmt.Sprintf("the first is on line %d; policies and incidents speak of rungs by name", line), "a second rung is called %q", r.Rung.Value)
		}
		first[r.Rung.Value] = r.Rung.At.Line
		b.Rungs = append(b.Rungs, c.rung(r))
	}
	return b
}

func (c *checker) rung(s rungShape) Rung {
	r := Rung{Name: s.Rung.Value, Doc: s.Doc.Value, ProvedBy: s.ProvedBy.Value}
	env := c.narrow(s.At, expr.Names{})
	if s.When.Set() {
		r.When = c.program(env, s.When.Text, expr.Bool, "cause", "vars")
	}
	if s.Loses.Set() {
		r.Loses = c.template(env, s.Loses, "cause", "vars")
	}
	earlier := map[string][]fettle.ParamSpec{}
	first := map[string]int{}
	for _, step := range s.Steps {
		c.identifier(step.ID, "a step")
		if line, twice := first[step.ID.Value]; twice && step.ID.Set() {
			c.Add(step.ID.At, fmt.Sprintf("the first is on line %d; outputs are read as steps.ID.OUTPUT", line), "a second step is called %q", step.ID.Value)
		}
		first[step.ID.Value] = step.ID.At.Line
		made := c.step(step, earlier)
		r.Steps = append(r.Steps, made)
		if step.ID.Set() {
			earlier = with(earlier, step.ID.Value, made.Action.Outputs)
		}
	}
	return r
}

// with returns a copy: narrowed environments keep the one that they were given.
func with(m map[string][]fettle.ParamSpec, id string, outputs []fettle.ParamSpec) map[string][]fettle.ParamSpec {
	next := map[string][]fettle.ParamSpec{id: outputs}
	// any order: it is copied into another map
	for k, v := range m {
		if k != id {
			next[k] = v
		}
	}
	return next
}

// identifier reports a name that CEL could not speak of.
func (c *checker) identifier(t yamlfile.Text, what string) {
	if !t.Set() {
		return
	}
	fine := t.Value != "" && !isDigit(t.Value[0])
	for i := range len(t.Value) {
		fine = fine && (isLetter(t.Value[i]) || isDigit(t.Value[i]))
	}
	switch {
	case !fine:
		c.Add(t.At, "letters, digits and _, beginning with a letter: expressions speak of it", "%s cannot be called %q", what, t.Value)
	case reserved(t.Value):
		c.Add(t.At, "expressions speak of it, and CEL keeps this word for itself", "%s cannot be called %q", what, t.Value)
	}
}

// narrow returns an environment that knows the vars so far and these names.
func (c *checker) narrow(at yamlfile.At, n expr.Names) *expr.Env {
	if n.With == nil {
		n.With = []fettle.ParamSpec{}
	}
	if n.Out == nil {
		n.Out = []fettle.ParamSpec{}
	}
	if n.Steps == nil {
		n.Steps = map[string][]fettle.ParamSpec{}
	}
	n.Vars = map[string]expr.Type{}
	// any order: it is copied into another map
	for k, v := range c.vars {
		n.Vars[k] = v
	}
	env, err := c.env.Narrow(n)
	if err != nil {
		c.Add(at, "", "the expressions here cannot be checked: %v", err)
		return nil
	}
	return env
}

// isVariable tells what an expression may speak of, somewhere.
func isVariable(name string) bool {
	switch name {
	case "cause", "target", "host", "group", "with", "out", "was", "steps", "vars":
		return true
	}
	return false
}

// program compiles CEL that may read only the named variables; nil: reported.
func (c *checker) program(env *expr.Env, t yamlfile.Text, want expr.Type, may ...string) *expr.Program {
	if env == nil || strings.TrimSpace(t.Value) == "" || !c.speaks(t, 0, t.Value, may) {
		return nil
	}
	p, err := env.Compile(t.Value, want)
	if err != nil {
		c.expression(t, err)
		return nil
	}
	return p
}

// template compiles a text with ${…} that may read only the named variables.
func (c *checker) template(env *expr.Env, t yamlfile.Text, may ...string) *expr.Template {
	if env == nil || strings.TrimSpace(t.Value) == "" {
		return nil
	}
	compiled, err := env.Template(t.Value)
	if err != nil {
		c.expression(t, err)
		return nil
	}
	fine := true
	for _, part := range holes(t.Value) {
		fine = c.speaks(t, part.begin, t.Value[part.begin:part.end], may) && fine
	}
	if !fine {
		return nil
	}
	return compiled
}

// speaks reports uses of variables that are not known where an expression
// stands, and uses of vars that could not be replaced by their values.
func (c *checker) speaks(t yamlfile.Text, offset int, src string, may []string) bool {
	fine := true
	for _, w := range words(src) {
		at := t.Place(offset + w.begin)
		switch {
		case w.name == "vars" && w.field == "":
			fine = false
			c.Add(at, "a plan is made with the values in place of the names", "vars can only be read as vars.NAME")
		case isVariable(w.name) && !slices.Contains(may, w.name):
			fine = false
			c.Add(at, "known here: "+strings.Join(may, ", "), "%s is not known here", w.name)
		}
	}
	return fine
}

// hole is the CEL of one ${…} in a template.
type hole struct{ begin, end int }

// holes finds them. "$${" is a literal "${". On what does not compile it ends.
func holes(src string) []hole {
	var list []hole
	for i := 0; i < len(src); {
		at := strings.Index(src[i:], "${")
		if at < 0 {
			break
		}
		i += at
		if i > 0 && src[i-1] == '$' {
			i += 2
			continue
		}
		begin, depth := i+2, 1
		for i = begin; i < len(src) && depth > 0; {
			switch src[i] {
			case '{':
				depth++
			case '}':
				depth--
			case '"', '\'':
				i = stringEnd(src, i, src[i-1]|0x20 == 'r')
				continue
			case '/':
				if strings.HasPrefix(src[i:], "//") {
					for i < len(src) && src[i] != '\n' {
						i++
					}
					continue
				}
			}
			i++
		}
		if depth > 0 {
			break
		}
		list = append(list, hole{begin, i - 1})
	}
	return list
}
