package expr

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"fettle/internal/fettle"
	"fettle/internal/judge/world"
)

// The variables of step and runbook expressions.
const (
	causeVar  = "cause"
	targetVar = "target"
	groupVar  = "group"
	withVar   = "with"
	outVar    = "out"
	wasVar    = "was"
	stepsVar  = "steps"
	varsVar   = "vars"
)

// records are the variables that hold named values.
var records = []string{withVar, outVar, varsVar, stepsVar}

// Scope is what an expression is evaluated over. Every part may be missing; what
// is read of it is then unknown, except that the subjects are "".
type Scope struct {
	View  world.View
	Since time.Time // what was asked for earlier is not known; the zero time takes all

	Cause, Target, Host, Group fettle.Subject

	With, Out, Vars fettle.Facts
	Steps           map[string]fettle.Facts // by step id: what it put out
	Was             fettle.Value            // the value before, in effects; nil: not known
}

// scopeVars gives CEL the variables and the late-bound functions of one
// evaluation.
type scopeVars struct {
	scope   *Scope
	adapter types.Adapter
}

// Parent implements cel.Activation.
func (*scopeVars) Parent() cel.Activation { return nil }

// ResolveName implements cel.Activation.
func (v *scopeVars) ResolveName(name string) (any, bool) {
	s := v.scope
	switch name {
	case causeVar:
		return string(s.Cause), true
	case targetVar:
		return string(s.Target), true
	case hostVar:
		return string(s.Host), true
	case groupVar:
		return string(s.Group), true
	case withVar:
		return map[string]any(s.With), true
	case outVar:
		return map[string]any(s.Out), true
	case varsVar:
		return map[string]any(s.Vars), true
	case wasVar:
		if s.Was == nil {
			return types.NewErr("the value before is not known"), true
		}
		return s.Was, true
	case stepsVar:
		steps := make(map[string]any, len(s.Steps))
		// any order: each entry is put under its own key
		for id, out := range s.Steps {
			steps[id] = map[string]any(out)
		}
		return steps, true
	}
	return nil, false
}

// ResolveFunction implements cel.FunctionActivation.
func (v *scopeVars) ResolveFunction(name string) (cel.LateBoundFunction, bool) {
	switch name {
	case "fact":
		return v.fact(Any), true
	case "has_fact":
		return v.hasFact, true
	case "related":
		return v.related, true
	case "one":
		return v.one, true
	case "raised":
		return v.raised, true
	case "quorum":
		return v.quorum, true
	case "member":
		return v.member, true
	}
	if typ, ok := strings.CutPrefix(name, factAs); ok {
		return v.fact(TypeOf(fettle.FactType(typ))), true
	}
	return nil, false
}

var errNoView = errors.New("nothing is known of the world here")

func (v *scopeVars) subject(arg ref.Val) (fettle.Subject, error) {
	if v.scope.View == nil {
		return "", errNoView
	}
	s := fettle.Subject(arg.(types.String))
	if s == "" {
		return "", errors.New("there is no such subject here")
	}
	return s, nil
}

// lookup returns a fact's value, or why it is not known.
func (v *scopeVars) lookup(args []ref.Val) (fettle.Value, error) {
	s, err := v.subject(args[0])
	if err != nil {
		return nil, err
	}
	name := string(args[1].(types.String))
	val, ok := v.scope.View.Facts(s)[name]
	if !ok {
		return nil, fmt.Errorf("fact %q of %s is not known", name, s)
	}
	if v.scope.Since.IsZero() {
		return val, nil
	}
	asked, ok := v.scope.View.Asked(s, name)
	if !ok || asked.Before(v.scope.Since) {
		return nil, fmt.Errorf("fact %q of %s has not been observed since", name, s)
	}
	return val, nil
}

func (v *scopeVars) fact(want Type) cel.LateBoundFunction {
	return func(_ string, args ...ref.Val) ref.Val {
		val, err := v.lookup(args)
		if err != nil {
			return types.WrapErr(err)
		}
		if !want.Matches(val) {
			return types.NewErr("fact %s of %s is a %T, declared %s", args[1].Value(), args[0].Value(), val, want)
		}
		return v.adapter.NativeToValue(val)
	}
}

// hasFact is unknown, not false, where nobody could look: of a subject of which
// no observation is known, and of a fact that is predicted to change to something
// that is not known yet.
func (v *scopeVars) hasFact(_ string, args ...ref.Val) ref.Val {
	s, err := v.subject(args[0])
	if err != nil {
		return types.WrapErr(err)
	}
	if _, err := v.lookup(args); err == nil {
		return types.True
	}
	looked := false
	for _, o := range v.scope.View.Observations(s) {
		if !o.Known() || o.Asked.Before(v.scope.Since) {
			continue
		}
		if _, seen := o.Facts[string(args[1].(types.String))]; seen {
			return types.NewErr("fact %q of %s will be another", args[1].Value(), s)
		}
		looked = true
	}
	if !looked {
		return types.NewErr("nothing is known of %s", s)
	}
	return types.False
}

func (v *scopeVars) walk(args []ref.Val) ([]string, error) {
	s, err := v.subject(args[0])
	if err != nil {
		return nil, err
	}
	path := fettle.Path(args[1].(types.String))
	if _, err := path.Hops(); err != nil {
		return nil, err
	}
	var list []string
	for _, r := range v.scope.View.Related(s, path) {
		list = append(list, string(r))
	}
	slices.Sort(list)
	return list, nil
}

func (v *scopeVars) related(_ string, args ...ref.Val) ref.Val {
	list, err := v.walk(args)
	if err != nil {
		return types.WrapErr(err)
	}
	return types.NewStringList(v.adapter, list)
}

func (v *scopeVars) one(_ string, args ...ref.Val) ref.Val {
	list, err := v.walk(args)
	if err != nil {
		return types.WrapErr(err)
	}
	if len(list) != 1 {
		return types.NewErr("%s leads from %s to %d subjects, wanted one", args[1].Value(), args[0].Value(), len(list))
	}
	return types.String(list[0])
}

// raised is unknown where the condition was never judged, is unknown, or was
// last judged on observations older than Since.
func (v *scopeVars) raised(_ string, args ...ref.Val) ref.Val {
	s, err := v.subject(args[0])
	if err != nil {
		return types.WrapErr(err)
	}
	key := fettle.ConditionKey{Code: fettle.Code(args[1].(types.String)), Subject: s}
	c, ok := v.scope.View.Condition(key)
	if !ok || c.State == fettle.Unknown {
		return types.NewErr("whether %s is raised is not known", key)
	}
	fresh := v.scope.Since.IsZero() || slices.ContainsFunc(c.Evidence, func(e fettle.Evidence) bool {
		return e.Says == c.State && !e.Asked.Before(v.scope.Since)
	})
	if !fresh {
		return types.NewErr("whether %s is raised has not been observed since", key)
	}
	return types.Bool(c.Raised())
}

func (v *scopeVars) group(arg ref.Val) (fettle.QuorumGroup, error) {
	s, err := v.subject(arg)
	if err != nil {
		return fettle.QuorumGroup{}, err
	}
	g, ok := v.scope.View.Quorum(s, v.scope.Since)
	if !ok {
		return g, fmt.Errorf("the quorum group %s is not known", s)
	}
	return g, nil
}

func (v *scopeVars) quorum(_ string, args ...ref.Val) ref.Val {
	g, err := v.group(args[0])
	if err != nil {
		return types.WrapErr(err)
	}
	leader := ""
	members := make([]ref.Val, 0, len(g.Members))
	for _, m := range g.Members {
		if m.Leader {
			leader = string(m.Subject)
		}
		members = append(members, v.describe(m))
	}
	return types.NewStringInterfaceMap(v.adapter, map[string]any{
		"voters":   int64(g.Voters()),
		"serving":  int64(g.ServingVotes()),
		"majority": int64(g.Majority()),
		"learners": int64(len(g.Members) - g.Voters()),
		"leader":   leader,
		"members":  types.NewRefValList(v.adapter, members),
	})
}

func (v *scopeVars) member(_ string, args ...ref.Val) ref.Val {
	g, err := v.group(args[0])
	if err != nil {
		return types.WrapErr(err)
	}
	m, ok := g.Member(fettle.Subject(args[1].(types.String)))
	if !ok {
		return types.NewErr("%s is not a member of %s", args[1].Value(), args[0].Value())
	}
	return v.describe(m)
}

// describe leaves out whether the member serves when that is not known, so that
// asking is unknown.
func (v *scopeVars) describe(m fettle.QuorumMember) ref.Val {
	fields := map[string]any{"subject": string(m.Subject), "id": m.ID, "voter": m.Voter, "leader": m.Leader}
	if m.Serving != fettle.Unknown {
		fields["serving"] = m.Serving == fettle.Yes
	}
	return types.NewStringInterfaceMap(v.adapter, fields)
}
