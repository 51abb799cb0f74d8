package expr

import (
	"fmt"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"

	"fettle/internal/fettle"
)

// Names narrows what an expression may read, so that a misspelt name and a wrong
// type are errors when it is compiled. What is nil stays open: any name of any
// type, found out only when it is evaluated. Empty but not nil: there is none.
type Names struct {
	With  []fettle.ParamSpec            // what `with` holds
	Out   []fettle.ParamSpec            // what `out` holds
	Steps map[string][]fettle.ParamSpec // what each earlier step puts out, by its id
	Vars  map[string]Type               // what `vars` holds
}

// openSteps makes the compiler for expressions over any names.
func (e *Env) openSteps() error {
	c, err := e.stepCompiler(Names{})
	e.steps = c
	return err
}

// Narrow returns an Env like e whose Compile and Template know only these names.
func (e *Env) Narrow(n Names) (*Env, error) {
	c, err := e.stepCompiler(n)
	if err != nil {
		return nil, err
	}
	return &Env{
		base: e.base, types: e.types, known: e.known, probes: e.probes, ofKind: e.ofKind, all: e.all, actions: e.actions,
		rules: map[string]*compiler{}, steps: c,
	}, nil
}

// ForAction is Narrow to the parameters and outputs of a declared action, and no
// steps or vars: for the expressions of its effects.
func (e *Env) ForAction(name string) (*Env, error) {
	a, ok := e.actions[name]
	if !ok {
		return nil, fmt.Errorf("no catalogue declares the action %q (%s)", name, didYouMean(name, sortedKeys(e.actions)))
	}
	return e.Narrow(Names{
		With: slices.Concat([]fettle.ParamSpec{}, a.Params), Out: slices.Concat([]fettle.ParamSpec{}, a.Outputs),
		Steps: map[string][]fettle.ParamSpec{}, Vars: map[string]Type{},
	})
}

func (e *Env) stepCompiler(n Names) (compiler, error) {
	open := types.NewMapType(types.StringType, types.DynType)
	vars := map[string]*types.Type{
		causeVar: types.StringType, targetVar: types.StringType, hostVar: types.StringType, groupVar: types.StringType,
		withVar: open, outVar: open, varsVar: open, stepsVar: types.NewMapType(types.StringType, open), wasVar: types.DynType,
	}
	shapes, nested := map[string]*shape{}, map[string]*shape{}
	if n.With != nil {
		shapes[withVar] = newShape("parameters", "parameter", paramTypes(n.With))
	}
	if n.Out != nil {
		shapes[outVar] = newShape("outputs", "output", paramTypes(n.Out))
	}
	if n.Vars != nil {
		fields := map[string]*types.Type{}
		for _, name := range sortedKeys(n.Vars) {
			fields[name] = n.Vars[name].cel()
		}
		shapes[varsVar] = newShape("vars", "variable", fields)
	}
	if n.Steps != nil {
		fields := map[string]*types.Type{}
		for _, id := range sortedKeys(n.Steps) {
			nested[id] = newShape("outputs of step "+id, "output", paramTypes(n.Steps[id]))
			fields[id] = nested[id].typ()
		}
		shapes[stepsVar] = newShape("earlier steps", "output of step", fields)
	}
	var list []*shape
	for _, v := range sortedKeys(shapes) {
		vars[v] = shapes[v].typ()
		list = append(list, shapes[v])
	}
	for _, id := range sortedKeys(nested) {
		list = append(list, nested[id])
	}
	c, err := e.compilerFor(e.types.with(list...), vars, append(functions(), e.known.literals())...)
	c.shapes, c.nested, c.asks = shapes, nested, usages
	return c, err
}

func paramTypes(params []fettle.ParamSpec) map[string]*types.Type {
	fields := make(map[string]*types.Type, len(params))
	for _, p := range params {
		fields[p.Name] = TypeOf(p.Type).cel()
	}
	return fields
}

// StepRef is one use of steps.ID.OUT.
type StepRef struct{ Step, Output string }

// Program is a compiled expression. It may be evaluated by several goroutines at
// once.
type Program struct {
	program cel.Program
	adapter types.Adapter
	out     Type
	want    Type
	refs    []StepRef
	lone    bool // the whole expression is one StepRef
	source  string
}

// Compile compiles an expression whose value must be of the type. One whose type
// is only known when it is evaluated is taken, and is then unknown if it does
// not fit. The error is an *Error, with line and column in src.
func (e *Env) Compile(src string, want Type) (*Program, error) {
	p, issues, err := e.steps.step(src, want)
	if err != nil {
		return nil, err
	}
	if len(issues) > 0 {
		return nil, &Error{Source: src, Issues: issues}
	}
	return p, nil
}

func (c compiler) step(src string, want Type) (*Program, []Issue, error) {
	ok, issues := c.compile(src)
	if len(issues) > 0 {
		return nil, issues, nil
	}
	out, isValue := outputType(ok.out)
	if !isValue || want != Any && out != Any && out != want {
		return nil, wrongType(want, ok.out), nil
	}
	p := &Program{out: out, want: want, source: src, adapter: c.env.CELTypeAdapter()}
	if issues = p.inspect(ok); len(issues) > 0 {
		return nil, issues, nil
	}
	var err error
	if p.program, err = c.program(ok); err != nil {
		return nil, nil, fmt.Errorf("planning %q: %w", src, err)
	}
	return p, nil, nil
}

// inspect finds the uses of steps. Every one must say which step and which
// output, so that what a step waits for is known when its runbook is loaded.
func (p *Program) inspect(ok *compiled) []Issue {
	var issues []Issue
	whole := map[int64]bool{} // idents that are part of a full steps.ID.OUT
	rep := ok.ast.NativeRep()
	ast.PreOrderVisit(ok.root, ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.SelectKind:
			r, ident, is := stepRef(e)
			if !is {
				return
			}
			whole[ident] = true
			if !slices.Contains(p.refs, r) {
				p.refs = append(p.refs, r)
			}
			p.lone = p.lone || e.ID() == ok.root.ID() && !e.AsSelect().IsTestOnly()
		case ast.IdentKind:
			if e.AsIdent() == stepsVar && !whole[e.ID()] {
				i := at(rep.SourceInfo().GetStartLocation(e.ID()))
				i.Text, i.Hint = "which step's output it reads cannot be told", "write steps.ID.OUTPUT"
				issues = append(issues, i)
			}
		}
	}))
	sortIssues(issues)
	return issues
}

// stepRef takes steps.ID.OUT apart; ident is the id of the node `steps`.
func stepRef(e ast.Expr) (r StepRef, ident int64, ok bool) {
	id := e.AsSelect().Operand()
	if id.Kind() != ast.SelectKind {
		return r, 0, false
	}
	root := id.AsSelect().Operand()
	if root.Kind() != ast.IdentKind || root.AsIdent() != stepsVar {
		return r, 0, false
	}
	return StepRef{Step: id.AsSelect().FieldName(), Output: e.AsSelect().FieldName()}, root.ID(), true
}

// Eval returns the expression's value. Unknown: it could not be decided, the
// value is nil and the error says why. Otherwise the error is nil, and of a bool
// the Tri is its value, of any other value it is Yes.
func (p *Program) Eval(s Scope) (fettle.Value, fettle.Tri, error) {
	v, _, err := p.program.Eval(&scopeVars{scope: &s, adapter: p.adapter})
	if err != nil {
		return nil, fettle.Unknown, err
	}
	val, ok := native(v)
	if !ok {
		return nil, fettle.Unknown, reason(v, nil)
	}
	if !p.want.Matches(val) {
		return nil, fettle.Unknown, fmt.Errorf("its value is of type %s, wanted %s", v.Type().TypeName(), p.want)
	}
	if b, isBool := val.(bool); isBool {
		return val, fettle.TriOf(b), nil
	}
	return val, fettle.Yes, nil
}

// Bool returns the answer of an expression compiled as Bool; Unknown with the
// reason where it could not be decided, also when its value is no bool.
func (p *Program) Bool(s Scope) (fettle.Tri, error) {
	val, answer, err := p.Eval(s)
	if err != nil {
		return fettle.Unknown, err
	}
	if _, isBool := val.(bool); !isBool {
		return fettle.Unknown, errNotBool
	}
	return answer, nil
}

// Type returns the type of the value as far as it is known before it is
// evaluated; Any where it is not.
func (p *Program) Type() Type { return p.out }

// Refs returns the outputs of earlier steps that the expression reads, in the
// order in which they stand there. The slice is shared: read only.
func (p *Program) Refs() []StepRef { return p.refs }

// Source returns the expression's text.
func (p *Program) Source() string { return p.source }
