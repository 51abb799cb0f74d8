package plan

import (
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/runbook"
	"fettle/internal/judge/world"
)

// Schema is the version of the shape of a plan.
const Schema = 1

// Input is all that a plan is made from.
type Input struct {
	Incident   string
	Cause      fettle.ConditionKey
	Book       *runbook.Runbook
	Rung       int // index into Book.Rungs
	Attempt    int // how many times this rung was begun for this trouble before
	Pins       fettle.Pins
	View       world.View
	Now        time.Time          // what is known at this time; a plan has no time in it
	Catalogues []fettle.Catalogue // nil: the actions as they were when Book was read
}

// NotApplicable says why a rung cannot be planned in the present world. It is an
// answer, not a failure: the next rung is tried.
type NotApplicable struct {
	Runbook string
	Rung    string
	Step    string // "": the rung itself
	Why     string // a sentence without its full stop
}

// Error returns runbook, rung, step and why.
func (e *NotApplicable) Error() string {
	s := e.Runbook + ", rung " + e.Rung
	if e.Step != "" {
		s += ", step " + e.Step
	}
	return s + ": " + e.Why
}

// Make makes a rung concrete. The error is a *NotApplicable when the world is
// not such that the rung can be planned, and another one when the input does not
// fit together.
func Make(in Input) (fettle.Plan, error) {
	switch {
	case in.Book == nil || in.View == nil:
		return fettle.Plan{}, fmt.Errorf("plan for %s: without a runbook or a view of the world", in.Cause)
	case in.Rung < 0 || in.Rung >= len(in.Book.Rungs):
		return fettle.Plan{}, fmt.Errorf("plan for %s: runbook %s has %d rungs, there is no rung %d", in.Cause, in.Book.Name, len(in.Book.Rungs), in.Rung)
	case in.Cause.Code != in.Book.For:
		return fettle.Plan{}, fmt.Errorf("plan for %s: runbook %s is for %s", in.Cause, in.Book.Name, in.Book.For)
	}
	m := &maker{in: in, rung: in.Book.Rungs[in.Rung], vars: fettle.Facts{}, unknown: map[string]string{}, view: in.View}
	return m.plan()
}

type maker struct {
	in      Input
	rung    runbook.Rung
	vars    fettle.Facts
	unknown map[string]string // vars without a value, and why
	view    world.View        // as the steps so far are foretold to leave it
	step    string            // the one that is being made
}

// not is the answer that the rung cannot be planned.
func (m *maker) not(format string, args ...any) error {
	return &NotApplicable{Runbook: m.in.Book.Name, Rung: m.rung.Name, Step: m.step, Why: fmt.Sprintf(format, args...)}
}

func (m *maker) scope() expr.Scope {
	return expr.Scope{View: m.view, Cause: m.in.Cause.Subject, Vars: m.vars}
}

func (m *maker) plan() (fettle.Plan, error) {
	for _, v := range m.in.Book.Vars {
		got, _, err := v.Program.Eval(m.scope())
		if err != nil {
			// Only what reads it cannot be planned.
			m.unknown[v.Name] = err.Error()
			continue
		}
		if !isText(got) {
			m.unknown[v.Name] = "its value is not UTF-8 text"
			continue
		}
		m.vars[v.Name] = got
	}
	if m.rung.When != nil {
		answer, err := m.rung.When.Bool(m.scope())
		switch {
		case answer == fettle.No:
			return fettle.Plan{}, m.not("it does not apply: %s is false", m.rung.When.Source())
		case answer == fettle.Unknown:
			return fettle.Plan{}, m.not("it is not known whether it applies: %s: %v", m.rung.When.Source(), m.because(m.rung.When.Source(), err))
		}
	}
	p := fettle.Plan{
		Schema: Schema, Incident: m.in.Incident, Cause: m.in.Cause, Runbook: m.in.Book.Name, Rung: m.rung.Name,
		Attempt: m.in.Attempt, Judged: m.in.Pins, ProvedBy: m.rung.ProvedBy, Risk: fettle.LowRisk, Loses: m.loses(),
	}
	for _, s := range m.rung.Steps {
		m.step = s.ID
		made, predicted, err := m.makeStep(s)
		if err != nil {
			return fettle.Plan{}, err
		}
		p.Steps = append(p.Steps, made)
		p.Predicted = append(p.Predicted, predicted...)
		p.Takes = append(p.Takes, made.Takes...)
		p.Risk = runbook.WorseRisk(p.Risk, made.Risk)
	}
	slices.Sort(p.Takes)
	p.Takes = slices.Compact(p.Takes)
	p.Hash = Hash(p)
	return p, nil
}

// loses is what would be lost for good. It is said in any case: where it cannot
// be filled in, the sentence stands as it was written.
func (m *maker) loses() string {
	if m.rung.Loses == nil {
		return ""
	}
	got, err := m.rung.Loses.Eval(m.scope())
	if err != nil {
		return fmt.Sprintf("%s (not all of it is known: %v)", m.rung.Loses.Source(), err)
	}
	text := expr.Text(got)
	if text == "" || !utf8.ValidString(text) {
		return m.rung.Loses.Source()
	}
	return text
}

// because puts the reason why a variable has no value in place of the remark
// that it has none.
func (m *maker) because(source string, err error) error {
	if _, missing := runbook.Inline(source, m.vars); missing != "" {
		if why, ok := m.unknown[missing]; ok {
			return fmt.Errorf("variable %s: %s", missing, why)
		}
	}
	return err
}

// inline replaces vars by their values in CEL that is asked later.
func (m *maker) inline(what, source string) (string, error) {
	text, missing := runbook.Inline(source, m.vars)
	if missing != "" {
		return "", m.not("%s reads variable %s, which is not known: %s", what, missing, m.unknown[missing])
	}
	return text, nil
}

// eval evaluates a template that must be known now.
func (m *maker) eval(what string, t *expr.Template, sc expr.Scope) (fettle.Value, error) {
	v, err := t.Eval(sc)
	if err != nil {
		return nil, m.not("%s is not known: %v", what, m.because(t.Source(), err))
	}
	if !isText(v) {
		return nil, m.not("%s is not UTF-8 text: %s", what, strconv.Quote(expr.Text(v)))
	}
	return v, nil
}

// isText reports whether the texts in a value are UTF-8. Others would be changed
// where a plan is written as JSON: its hash, which people approve, would cover
// two different plans.
func isText(v fettle.Value) bool {
	switch v := v.(type) {
	case string:
		return utf8.ValidString(v)
	case []string:
		return !slices.ContainsFunc(v, func(s string) bool { return !utf8.ValidString(s) })
	}
	return true
}

// subject evaluates a template that gives a subject of a kind ("": any).
func (m *maker) subject(what string, t *expr.Template, kind fettle.Kind, sc expr.Scope) (fettle.Subject, error) {
	v, err := m.eval(what, t, sc)
	if err != nil {
		return "", err
	}
	text, ok := v.(string)
	if !ok {
		return "", m.not("%s is %s, not a subject", what, runbook.TypeName(fettle.TypeOf(v)))
	}
	s, err := fettle.ParseSubject(text)
	if err != nil {
		return "", m.not("%s: %v", what, err)
	}
	if kind != "" && s.Kind() != kind {
		return "", m.not("%s must be a %s, and %s is not", what, kind, s)
	}
	return s, nil
}
