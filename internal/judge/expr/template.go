package expr

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"fettle/internal/fettle"
)

// Template is a text with ${…} in it, each a CEL expression. It may be evaluated
// by several goroutines at once.
type Template struct {
	parts  []part
	refs   []StepRef
	source string
}

// part is literal text, or an expression.
type part struct {
	text    string
	program *Program
}

// Template compiles a text. "$${" stands for a literal "${". A template that is
// one lone ${…}, without text around it, keeps the value's type; any other is
// text, with bools as true and false, and lists joined by ", ". The error is an
// *Error, with line and column in src.
func (e *Env) Template(src string) (*Template, error) {
	pieces, issue := split(src)
	if issue != nil {
		return nil, &Error{Source: src, Issues: []Issue{*issue}}
	}
	t := &Template{source: src}
	var issues []Issue
	for _, p := range pieces {
		if !p.expr {
			t.parts = append(t.parts, part{text: p.text})
			continue
		}
		prog, found, err := e.steps.step(p.text, Any)
		if err != nil {
			return nil, err
		}
		if len(found) > 0 {
			issues = append(issues, p.shift(found)...)
			continue
		}
		t.parts = append(t.parts, part{program: prog})
		for _, r := range prog.refs {
			if !slices.Contains(t.refs, r) {
				t.refs = append(t.refs, r)
			}
		}
	}
	if len(issues) > 0 {
		return nil, &Error{Source: src, Issues: issues}
	}
	return t, nil
}

// lone returns the only expression of a template that is nothing else.
func (t *Template) lone() *Program {
	if len(t.parts) == 1 {
		return t.parts[0].program
	}
	return nil
}

// Eval fills the template in. An error says which expression could not be
// decided, and why.
func (t *Template) Eval(s Scope) (fettle.Value, error) {
	if p := t.lone(); p != nil {
		val, _, err := p.Eval(s)
		if err != nil {
			return nil, fmt.Errorf("${%s}: %w", p.source, err)
		}
		return val, nil
	}
	var b strings.Builder
	for _, p := range t.parts {
		if p.program == nil {
			b.WriteString(p.text)
			continue
		}
		val, _, err := p.program.Eval(s)
		if err != nil {
			return nil, fmt.Errorf("${%s}: %w", p.program.source, err)
		}
		b.WriteString(Text(val))
	}
	return b.String(), nil
}

// Text is how a value is written in the middle of a sentence.
func Text(v fettle.Value) string {
	switch v := v.(type) {
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case string:
		return v
	case []string:
		return strings.Join(v, ", ")
	default:
		return ""
	}
}

// Type returns the type of the value: of a lone ${…} the expression's, else
// String.
func (t *Template) Type() Type {
	if p := t.lone(); p != nil {
		return p.Type()
	}
	return String
}

// Refs returns the outputs of earlier steps that the template reads. The slice
// is shared: read only.
func (t *Template) Refs() []StepRef { return t.refs }

// Late returns the one output that the template is, when it is a lone
// ${steps.ID.OUT}: then the parameter can be filled in after that step.
func (t *Template) Late() (StepRef, bool) {
	if p := t.lone(); p != nil && p.lone {
		return p.refs[0], true
	}
	return StepRef{}, false
}

// Constant returns the text of a template without any ${…}.
func (t *Template) Constant() (string, bool) {
	var b strings.Builder
	for _, p := range t.parts {
		if p.program != nil {
			return "", false
		}
		b.WriteString(p.text)
	}
	return b.String(), true
}

// Source returns the template as it was written.
func (t *Template) Source() string { return t.source }
