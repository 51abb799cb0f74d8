package expr

import (
	"errors"
	"fmt"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"fettle/internal/fettle"
)

// The variables of condition rules.
const (
	selfVar        = "self"
	hostVar        = "host"
	wholeVar       = "whole"
	peersVar       = "peers"
	partsVar       = "parts"
	unreachableVar = "unreachable"
	observersVar   = "observers"
)

// Rule is a compiled condition rule. It may be evaluated by several goroutines
// at once.
type Rule struct {
	program cel.Program
	adapter types.Adapter
	facts   []string // of self, sorted
	reads   map[string]bool
	source  string
}

// RuleInput is what a rule may read: see fettle.ConditionSpec. Facts that are
// absent, also when a whole map is nil, make what reads them unknown. Each of
// Peers and Parts has its subject under "subject". Nothing is changed or kept.
type RuleInput struct {
	Self, Host, Whole      fettle.Facts
	Peers, Parts           []fettle.Facts
	Unreachable, Observers int64
}

// Rule compiles a raise or clear rule of a condition. The error is an *Error: it
// names the code, which rule it is, line and column.
func (e *Env) Rule(spec fettle.ConditionSpec, src string) (*Rule, error) {
	where := string(spec.Code) + ": "
	switch src {
	case spec.Raise:
		where += "raise"
	case spec.Clear:
		where += "clear"
	default:
		where += "rule"
	}
	c, issues, err := e.ruleCompiler(spec)
	if err != nil {
		return nil, err
	}
	var ok *compiled
	if len(issues) == 0 {
		ok, issues = c.compile(src)
	}
	if len(issues) == 0 {
		if out, isValue := outputType(ok.out); !isValue || out != Bool && out != Any {
			issues = wrongType(Bool, ok.out)
		}
	}
	r := &Rule{source: src, reads: map[string]bool{}}
	if len(issues) == 0 {
		issues = r.inspect(ok)
	}
	if len(issues) > 0 {
		return nil, &Error{Where: where, Source: src, Issues: issues}
	}
	r.adapter = c.env.CELTypeAdapter()
	if r.program, err = c.program(ok); err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	return r, nil
}

// ruleCompiler returns the compiler for rules over the facts of spec's probe.
func (e *Env) ruleCompiler(spec fettle.ConditionSpec) (*compiler, []Issue, error) {
	p, ok := e.probes[spec.Probe]
	if !ok {
		return nil, []Issue{{Line: 1, Column: 1, Text: fmt.Sprintf("no catalogue declares the probe %q", spec.Probe),
			Hint: didYouMean(spec.Probe, sortedKeys(e.probes))}}, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.rules[p.Name]; c != nil {
		return c, nil, nil
	}
	own := map[string]*types.Type{}
	for _, f := range p.Facts {
		own[f.Name] = TypeOf(f.Type).cel()
	}
	shapes := map[string]*shape{
		selfVar:  newShape("facts of "+p.Name, "fact", own),
		peersVar: newShape("facts of a peer", "a peer's", withSubject(own)),
		hostVar:  newShape("facts of the host", "the host's", e.ofKind[fettle.KindHost]),
		wholeVar: newShape("facts of the whole", "the whole's", withSubject(e.all)),
		partsVar: newShape("facts of a part", "a part's", withSubject(e.all)),
	}
	vars := map[string]*types.Type{unreachableVar: types.IntType, observersVar: types.IntType}
	var list []*shape
	for _, v := range sortedKeys(shapes) {
		vars[v] = shapes[v].typ()
		if v == peersVar || v == partsVar {
			vars[v] = types.NewListType(shapes[v].typ())
		}
		list = append(list, shapes[v])
	}
	c, err := e.compilerFor(e.types.with(list...), vars)
	if err != nil {
		return nil, nil, err
	}
	c.shapes = shapes
	e.rules[p.Name] = &c
	return &c, nil, nil
}

// inspect finds out what the rule reads.
func (r *Rule) inspect(ok *compiled) []Issue {
	var issues []Issue
	read := map[int64]bool{} // idents of which one named fact is read
	rep := ok.ast.NativeRep()
	ast.PreOrderVisit(ok.root, ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.SelectKind:
			operand := e.AsSelect().Operand()
			if operand.Kind() != ast.IdentKind {
				return
			}
			read[operand.ID()] = true
			if operand.AsIdent() == selfVar && !slices.Contains(r.facts, e.AsSelect().FieldName()) {
				r.facts = append(r.facts, e.AsSelect().FieldName())
			}
		case ast.IdentKind:
			v := e.AsIdent()
			r.reads[v] = true
			if (v == selfVar || v == hostVar || v == wholeVar) && !read[e.ID()] {
				i := at(rep.SourceInfo().GetStartLocation(e.ID()))
				i.Text, i.Hint = v+" can only be read fact by fact", "write "+v+".name"
				issues = append(issues, i)
			}
		}
	}))
	slices.Sort(r.facts)
	sortIssues(issues)
	return issues
}

// Eval answers the rule: Unknown when an absent fact, an error or the cost limit
// kept it from being decided.
func (r *Rule) Eval(in RuleInput) fettle.Tri {
	answer, _ := r.Why(in)
	return answer
}

// errNotBool is why a rule over a fact of no single declared type is unknown.
var errNotBool = errors.New("the rule's value is not a bool")

// Why is Eval with the reason when the answer is Unknown; else the error is nil.
func (r *Rule) Why(in RuleInput) (fettle.Tri, error) {
	v, _, err := r.program.Eval(&ruleVars{in: in, adapter: r.adapter})
	switch {
	case err != nil:
		return fettle.Unknown, err
	case v == types.True:
		return fettle.Yes, nil
	case v == types.False:
		return fettle.No, nil
	default:
		return fettle.Unknown, errNotBool
	}
}

// Reads returns the names of the facts of self that the rule reads, sorted. The
// slice is shared: read only.
func (r *Rule) Reads() []string { return r.facts }

// NeedsSelf reports whether the rule reads a fact of self.
func (r *Rule) NeedsSelf() bool { return len(r.facts) > 0 }

// ReadsHost reports whether the rule reads a fact of the host.
func (r *Rule) ReadsHost() bool { return r.reads[hostVar] }

// ReadsWhole reports whether the rule reads a fact of the whole.
func (r *Rule) ReadsWhole() bool { return r.reads[wholeVar] }

// ReadsPeers reports whether the rule reads the peers.
func (r *Rule) ReadsPeers() bool { return r.reads[peersVar] }

// ReadsParts reports whether the rule reads the parts.
func (r *Rule) ReadsParts() bool { return r.reads[partsVar] }

// OnlyCounts reports whether the rule reads nothing but unreachable and
// observers, so that it can be asked where no observer knows the facts.
func (r *Rule) OnlyCounts() bool {
	return !r.NeedsSelf() && !r.ReadsHost() && !r.ReadsWhole() && !r.ReadsPeers() && !r.ReadsParts()
}

// Source returns the rule's text.
func (r *Rule) Source() string { return r.source }

// ruleVars gives CEL the variables of one evaluation.
type ruleVars struct {
	in      RuleInput
	adapter types.Adapter
}

// Parent implements cel.Activation.
func (*ruleVars) Parent() cel.Activation { return nil }

// ResolveName implements cel.Activation.
func (v *ruleVars) ResolveName(name string) (any, bool) {
	switch name {
	case selfVar:
		return map[string]any(v.in.Self), true
	case hostVar:
		return map[string]any(v.in.Host), true
	case wholeVar:
		return map[string]any(v.in.Whole), true
	case peersVar:
		return v.list(v.in.Peers), true
	case partsVar:
		return v.list(v.in.Parts), true
	case unreachableVar:
		return types.Int(v.in.Unreachable), true
	case observersVar:
		return types.Int(v.in.Observers), true
	}
	return nil, false
}

func (v *ruleVars) list(of []fettle.Facts) ref.Val {
	elems := make([]ref.Val, len(of))
	for i, f := range of {
		elems[i] = types.NewStringInterfaceMap(v.adapter, f)
	}
	return types.NewRefValList(v.adapter, elems)
}
