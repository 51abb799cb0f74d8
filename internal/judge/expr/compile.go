package expr

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// compiler turns text into a checked program in one environment.
type compiler struct {
	env    *cel.Env
	vars   []string          // the variables, for hints and against shadowing
	shapes map[string]*shape // of the variables that are records, or lists of them
	nested map[string]*shape // of the fields of a record of records: `steps`
	asks   map[string]string // the functions over the world, with their usage; none in rules
	parsed ast.Expr          // of the text at hand, for hints
}

// compiled is a checked expression and what the checks found out about it.
type compiled struct {
	ast   *cel.Ast
	root  ast.Expr
	out   *types.Type
	loops bool // it has a comprehension or a call whose cost is not that of its text
}

// compile parses and checks. It works on a copy of c, so that c may be shared.
func (c compiler) compile(src string) (*compiled, []Issue) {
	if strings.TrimSpace(src) == "" {
		return nil, []Issue{{Line: 1, Column: 1, Text: "empty expression"}}
	}
	parsed, found := c.env.Parse(src)
	if found.Err() != nil {
		return nil, c.issuesOf(found)
	}
	c.parsed = parsed.NativeRep().Expr()
	c.selectByIndex(c.parsed)
	checked, found := c.env.Check(parsed)
	if found.Err() != nil {
		return nil, c.issuesOf(found)
	}
	rep := checked.NativeRep()
	res := &compiled{ast: checked, root: rep.Expr(), out: checked.OutputType()}
	var list []Issue
	complain := func(e ast.Expr, text, hint string) {
		i := at(rep.SourceInfo().GetStartLocation(e.ID()))
		i.Text, i.Hint = text, hint
		list = append(list, i)
	}
	ast.PreOrderVisit(res.root, ast.NewExprVisitor(func(e ast.Expr) {
		if text, hint := c.unfit(e, rep); text != "" {
			complain(e, text, hint)
		}
		res.loops = res.loops || costly(e)
	}))
	if len(list) > 0 {
		sortIssues(list)
		return nil, slices.Compact(list)
	}
	return res, nil
}

// selectByIndex rewrites x["name"] to x.name where x is a record, so that a name
// that is no identifier (a step's id may have a '-') can be written, and checked.
func (c *compiler) selectByIndex(root ast.Expr) {
	factory := ast.NewExprFactory()
	ast.PostOrderVisit(root, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind || e.AsCall().FunctionName() != operators.Index || len(e.AsCall().Args()) != 2 {
			return
		}
		operand, key := e.AsCall().Args()[0], e.AsCall().Args()[1]
		if key.Kind() != ast.LiteralKind {
			return
		}
		name, ok := key.AsLiteral().(types.String)
		if ok && c.isRecord(operand) {
			e.SetKindCase(factory.NewSelect(e.ID(), operand, string(name)))
		}
	}))
}

// isRecord reports whether the (not yet checked) operand is one of the records.
func (c *compiler) isRecord(e ast.Expr) bool {
	if e.Kind() == ast.SelectKind {
		operand := e.AsSelect().Operand()
		return operand.Kind() == ast.IdentKind && operand.AsIdent() == stepsVar
	}
	return e.Kind() == ast.IdentKind && (c.shapes[e.AsIdent()] != nil || slices.Contains(records, e.AsIdent()))
}

// unfit says what is wrong with one node of a checked expression, beyond what
// CEL's checker refuses: what has no place in facts, and what would depend on
// the order of a map.
func (c *compiler) unfit(e ast.Expr, rep *ast.AST) (text, hint string) {
	if t := rep.GetType(e.ID()); t != nil {
		switch t.Kind() {
		case types.DoubleKind:
			return "fractions do not exist here", "facts are whole numbers; ratios are written in per mille"
		case types.UintKind:
			return "unsigned numbers do not exist here", "write the number without u"
		case types.BytesKind, types.TimestampKind, types.DurationKind:
			return t.String() + " does not exist here", "facts are bool, int, string or a list of strings; durations are in milliseconds"
		case types.NullTypeKind:
			return "null does not exist here", "an absent fact is unknown; has(…) and has_fact(…) tell"
		}
	}
	switch e.Kind() {
	case ast.MapKind, ast.StructKind:
		return "maps and messages cannot be made here", "facts are bool, int, string or a list of strings"
	case ast.ComprehensionKind:
		comp := e.AsComprehension()
		for _, v := range []string{comp.IterVar(), comp.IterVar2()} {
			if slices.Contains(c.vars, v) {
				return fmt.Sprintf("the loop variable %s hides the variable of that name", v), "choose another name"
			}
		}
		if t := rep.GetType(comp.IterRange().ID()); t != nil && t.Kind() == types.MapKind {
			return "a map has no order, so it cannot be walked", "name what you need: with.x, steps.id.output"
		}
	}
	return "", ""
}

// cheap are the calls whose cost is bounded by the size of what they are given.
var cheap = []string{
	operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot, operators.Conditional,
	operators.Equals, operators.NotEquals, operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals,
	operators.Subtract, operators.Multiply, operators.Divide, operators.Modulo, operators.Negate,
	operators.In, operators.Index, overloads.Size,
	overloads.Contains, overloads.StartsWith, overloads.EndsWith, overloads.TypeConvertInt, overloads.TypeConvertBool,
}

func costly(e ast.Expr) bool {
	switch e.Kind() {
	case ast.ComprehensionKind:
		return true
	case ast.CallKind:
		return !slices.Contains(cheap, e.AsCall().FunctionName())
	}
	return false
}

// costLimit bounds one evaluation that has a loop. A unit of CEL's cost is a
// few tens of nanoseconds, so this is some tens of milliseconds: hundreds of
// times what the widest sensible rule (all parts of a large cluster) needs.
const costLimit = 1_000_000

// program plans a checked expression.
func (c *compiler) program(ok *compiled) (cel.Program, error) {
	opts := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	if ok.loops {
		opts = append(opts, cel.CostLimit(costLimit))
	}
	return c.env.Program(ok.ast, opts...)
}

// noSuchName explains a name that is neither a variable nor a function.
func (c *compiler) noSuchName(name string) (text, hint string) {
	name, _, _ = strings.Cut(name, ".")
	if usage, ok := c.asks[name]; ok {
		return name + "() is called with the wrong number of arguments", "it is " + usage
	}
	if slices.Contains([]string{"timestamp", "duration", "double", "uint", "bytes", "dyn", "type", "now"}, name) {
		return fmt.Sprintf("%s does not exist here", name), "facts are bool, int, string or a list of strings; there is no clock"
	}
	if _, elsewhere := usages[name]; elsewhere {
		return name + "() cannot be asked in a condition's rule", "rules read self, host, whole, peers, parts, unreachable and observers"
	}
	known := slices.Concat(c.vars, sortedKeys(c.asks), []string{"size", "has", "matches", "contains", "startsWith", "endsWith", "exists", "all", "filter", "map"})
	return "no variable or function " + strconv.Quote(name), didYouMean(name, known)
}

// noSuchField explains a field that its record does not have.
func (c *compiler) noSuchField(id int64, field string) (text, hint string) {
	var known []string
	what := "field"
	ast.PreOrderVisit(c.parsed, ast.NewExprVisitor(func(e ast.Expr) {
		if e.ID() != id || e.Kind() != ast.SelectKind {
			return
		}
		operand := e.AsSelect().Operand()
		switch {
		case operand.Kind() == ast.IdentKind && c.shapes[operand.AsIdent()] != nil:
			s := c.shapes[operand.AsIdent()]
			known, what = sortedKeys(s.fields), s.name+":"
		case operand.Kind() == ast.SelectKind && c.nested[operand.AsSelect().FieldName()] != nil:
			s := c.nested[operand.AsSelect().FieldName()]
			known, what = sortedKeys(s.fields), s.name+":"
		}
	}))
	if known == nil { // of an element in a loop: whichever record it came from
		for _, v := range sortedKeys(c.shapes) {
			known = append(known, sortedKeys(c.shapes[v].fields)...)
		}
		slices.Sort(known)
		known = slices.Compact(known)
	}
	return fmt.Sprintf("%s no %q", what, field), didYouMean(field, known)
}

// wrongType explains that an expression is of another type than is wanted.
func wrongType(want Type, got *types.Type) []Issue {
	i := Issue{Line: 1, Column: 1, Text: fmt.Sprintf("its value is %s, wanted %s", typeName(got), want)}
	if _, isValue := outputType(got); !isValue {
		i.Hint = "name a field of it; a value is bool, int, string or a list of strings"
	}
	return []Issue{i}
}

func typeName(t *types.Type) string {
	if out, ok := outputType(t); ok {
		return out.String()
	}
	return strings.TrimPrefix(t.String(), "type ")
}

// reason turns what CEL answered, when it answered nothing usable, into an error.
func reason(v ref.Val, err error) error {
	if err != nil {
		return err
	}
	if types.IsError(v) {
		return v.(*types.Err)
	}
	return fmt.Errorf("its value is of type %s, which no fact has", v.Type().TypeName())
}
