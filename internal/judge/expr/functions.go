package expr

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/decls"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/ext"

	"fettle/internal/fettle"
)

// standard is what is left of CEL's own library: no fractions, bytes, times, or
// conversions that would hide a type from the checker.
func standard() cel.EnvOption {
	subset := &env.LibrarySubset{}
	for _, name := range []string{
		"double", "uint", "bytes", "duration", "timestamp", "dyn", "type",
		"getFullYear", "getMonth", "getDayOfYear", "getDayOfMonth", "getDate", "getDayOfWeek",
		"getHours", "getMinutes", "getSeconds", "getMilliseconds",
	} {
		subset.AddExcludedFunctions(env.NewFunction(name))
	}
	return cel.StdLib(cel.StdLibSubset(subset))
}

// library are the options that every environment has.
func library() []cel.EnvOption {
	return []cel.EnvOption{
		standard(),
		ext.Strings(ext.StringsVersion(4)),
		ext.Sets(),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateHomogeneousAggregateLiterals(), cel.ValidateComprehensionNestingLimit(4)),
		cel.RegexProgramSizeLimit(1000),
		cel.ParserExpressionSizeLimit(8 << 10),
		cel.ParserRecursionLimit(100),
		cel.ExpressionNodeLimit(10_000),
	}
}

// usages are the functions over the world, for hints.
var usages = map[string]string{
	"fact":     "fact(subject, name)",
	"has_fact": "has_fact(subject, name)",
	"related":  "related(subject, path)",
	"one":      "one(subject, path)",
	"kind":     "kind(subject)",
	"name":     "name(subject)",
	"subject":  "subject(kind, [segments])",
	"raised":   "raised(subject, code)",
	"quorum":   "quorum(group)",
	"member":   "member(group, subject)",
}

// factAs and a fact type are the name of fact() once the fact that it reads is
// known to have that type.
const factAs = "fact as "

var (
	memberShape = newShape("member", "member's", map[string]*types.Type{
		"subject": types.StringType, "id": types.StringType, "voter": types.BoolType, "serving": types.BoolType, "leader": types.BoolType,
	})
	quorumShape = newShape("quorum", "quorum's", map[string]*types.Type{
		"voters": types.IntType, "serving": types.IntType, "majority": types.IntType, "learners": types.IntType,
		"leader": types.StringType, "members": types.NewListType(memberShape.typ()),
	})
)

// functions declares what expressions can ask of the world. Those that need it
// are bound when they are evaluated: see scopeVars.
func functions() []cel.EnvOption {
	text, late := types.StringType, decls.LateFunctionBinding()
	two := []*cel.Type{text, text}
	opts := []cel.EnvOption{
		cel.Function("fact", cel.Overload("fact_dyn", two, types.DynType, late)),
		cel.Function("has_fact", cel.Overload("has_fact", two, types.BoolType, late)),
		cel.Function("related", cel.Overload("related", two, stringsType, late)),
		cel.Function("one", cel.Overload("one", two, text, late)),
		cel.Function("raised", cel.Overload("raised", two, types.BoolType, late)),
		cel.Function("quorum", cel.Overload("quorum", []*cel.Type{text}, quorumShape.typ(), late)),
		cel.Function("member", cel.Overload("member", two, memberShape.typ(), late)),
		cel.Function("kind", cel.Overload("kind", []*cel.Type{text}, text, cel.UnaryBinding(kindOf))),
		cel.Function("name", cel.Overload("name", []*cel.Type{text}, text, cel.UnaryBinding(nameOf))),
		cel.Function("subject", cel.Overload("subject", []*cel.Type{text, stringsType}, text, cel.BinaryBinding(makeSubject))),
	}
	for _, t := range []fettle.FactType{fettle.BoolFact, fettle.IntFact, fettle.StringFact, fettle.ListFact} {
		opts = append(opts, cel.Function(factAs+string(t), cel.Overload("fact_"+string(t), two, TypeOf(t).cel(), late)))
	}
	return opts
}

func parseSubject(v ref.Val) (fettle.Subject, *types.Err) {
	s, err := fettle.ParseSubject(string(v.(types.String)))
	if err != nil {
		return "", types.WrapErr(err).(*types.Err)
	}
	return s, nil
}

func kindOf(v ref.Val) ref.Val {
	s, err := parseSubject(v)
	if err != nil {
		return err
	}
	return types.String(s.Kind())
}

func nameOf(v ref.Val) ref.Val {
	s, err := parseSubject(v)
	if err != nil {
		return err
	}
	return types.String(s.Name())
}

func makeSubject(kind, segments ref.Val) ref.Val {
	list := segments.(traits.Lister)
	n, _ := list.Size().(types.Int)
	parts := make([]string, 0, n)
	for i := range n {
		part, ok := list.Get(i).(types.String)
		if !ok {
			return types.NewErr("subject(): segment %d is not text", i+1)
		}
		parts = append(parts, string(part))
	}
	s := fettle.NewSubject(fettle.Kind(kind.(types.String)), parts...)
	if _, err := fettle.ParseSubject(string(s)); err != nil {
		return types.WrapErr(err)
	}
	return types.String(s)
}

// literals are macros that look at literal arguments: a fact that no probe
// declares, a code that no catalogue has or a malformed path is an error when
// the expression is compiled, and a fact of one type gets that type.
func (k *known) literals() cel.EnvOption {
	second := func(check func(string) (text, hint string)) cel.MacroFactory {
		return func(factory cel.MacroExprFactory, _ ast.Expr, args []ast.Expr) (ast.Expr, *cel.Error) {
			if lit, ok := literal(args[1]); ok {
				if text, hint := check(lit); text != "" {
					return nil, factory.NewError(args[1].ID(), withHint(text, hint))
				}
			}
			return nil, nil // as it stands
		}
	}
	fact := func(factory cel.MacroExprFactory, target ast.Expr, args []ast.Expr) (ast.Expr, *cel.Error) {
		lit, ok := literal(args[1])
		if !ok {
			return nil, nil
		}
		if text, hint := k.noSuchFact(lit); text != "" {
			return nil, factory.NewError(args[1].ID(), withHint(text, hint))
		}
		if t := k.facts[lit]; t != "" {
			return factory.NewCall(factAs+string(t), args...), nil
		}
		return nil, nil
	}
	return cel.Macros(
		cel.GlobalMacro("fact", 2, fact),
		cel.GlobalMacro("has_fact", 2, second(k.noSuchFact)),
		cel.GlobalMacro("raised", 2, second(k.noSuchCode)),
		cel.GlobalMacro("related", 2, second(badPath)),
		cel.GlobalMacro("one", 2, second(badPath)),
	)
}

func literal(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().(types.String)
	return string(s), ok
}

// hintMark divides text and hint in the one message that a macro can return.
const hintMark = "\x00"

func withHint(text, hint string) string {
	if hint == "" {
		return text
	}
	return text + hintMark + hint
}

func badPath(path string) (text, hint string) {
	if _, err := fettle.Path(path).Hops(); err != nil {
		return err.Error(), "for example '>part-of' or '<uses'"
	}
	return "", ""
}

// known is what the catalogues declare, for checks of literals.
type known struct {
	facts map[string]fettle.FactType // "" where probes disagree on the type
	codes []string
}

func (k *known) noSuchFact(name string) (text, hint string) {
	if _, ok := k.facts[name]; ok {
		return "", ""
	}
	return fmt.Sprintf("no probe declares the fact %q", name), didYouMean(name, sortedKeys(k.facts))
}

func (k *known) noSuchCode(code string) (text, hint string) {
	if slices.Contains(k.codes, code) {
		return "", ""
	}
	if !strings.Contains(code, ".") {
		return strconv.Quote(code) + " is not a condition's code", "codes are adapter.ill, for example etcd.member_lost"
	}
	return fmt.Sprintf("no catalogue has the condition %q", code), didYouMean(code, k.codes)
}
