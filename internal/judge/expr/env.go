package expr

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"

	"fettle/internal/fettle"
)

// Env compiles expressions. It knows what the catalogues declare and may be used
// by several goroutines at once.
type Env struct {
	base    *cel.Env // library and functions; no variables
	types   *provider
	known   *known
	probes  map[string]fettle.ProbeSpec
	ofKind  map[fettle.Kind]map[string]*types.Type // facts of all probes of a kind
	all     map[string]*types.Type                 // facts of all probes
	actions map[string]*fettle.ActionSpec

	steps compiler // for Compile and Template

	mu    sync.Mutex
	rules map[string]*compiler // by probe, made when first asked for
}

// New returns the environment that knows what these catalogues declare. It
// refuses a catalogue whose names cannot be used in an expression.
func New(catalogues []fettle.Catalogue) (*Env, error) {
	e := &Env{
		known:   &known{facts: map[string]fettle.FactType{}},
		probes:  map[string]fettle.ProbeSpec{},
		ofKind:  map[fettle.Kind]map[string]*types.Type{},
		all:     map[string]*types.Type{},
		actions: map[string]*fettle.ActionSpec{},
		rules:   map[string]*compiler{},
	}
	var errs []error
	for _, c := range catalogues {
		errs = append(errs, e.learn(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	registry, err := types.NewRegistry()
	if err != nil {
		return nil, fmt.Errorf("CEL types: %w", err)
	}
	e.types = (&provider{Provider: registry}).with(quorumShape, memberShape)
	opts := append(library(), cel.CustomTypeAdapter(registry), cel.CustomTypeProvider(e.types))
	if e.base, err = cel.NewCustomEnv(opts...); err != nil {
		return nil, fmt.Errorf("CEL environment: %w", err)
	}
	if err := e.openSteps(); err != nil {
		return nil, err
	}
	return e, nil
}

// identifier is a name that can be written after a dot.
var identifier = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// reserved are CEL's reserved words, and "subject", which the maps of peers and
// parts have besides their facts.
var reserved = []string{
	"as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let", "loop",
	"namespace", "null", "package", "return", "true", "var", "void", "while", subjectField,
}

const subjectField = "subject"

// learn takes in what one catalogue declares.
func (e *Env) learn(c fettle.Catalogue) error {
	var errs []error
	for _, p := range c.Probes {
		if _, twice := e.probes[p.Name]; twice || p.Name == "" {
			errs = append(errs, fmt.Errorf("catalogue %s: probe %q is declared twice or has no name", c.Adapter, p.Name))
			continue
		}
		e.probes[p.Name] = p
		if e.ofKind[p.Kind] == nil {
			e.ofKind[p.Kind] = map[string]*types.Type{}
		}
		for _, f := range p.Facts {
			if err := checkName(f.Name, f.Type); err != nil {
				errs = append(errs, fmt.Errorf("catalogue %s: probe %s: fact %w", c.Adapter, p.Name, err))
				continue
			}
			t := TypeOf(f.Type).cel()
			join(e.ofKind[p.Kind], f.Name, t)
			join(e.all, f.Name, t)
			if before, ok := e.known.facts[f.Name]; ok && before != f.Type {
				e.known.facts[f.Name] = ""
			} else {
				e.known.facts[f.Name] = f.Type
			}
		}
	}
	for i := range c.Actions {
		a := &c.Actions[i]
		if _, twice := e.actions[a.Name]; twice || a.Name == "" {
			errs = append(errs, fmt.Errorf("catalogue %s: action %q is declared twice or has no name", c.Adapter, a.Name))
			continue
		}
		for _, p := range slices.Concat(a.Params, a.Outputs) {
			if err := checkName(p.Name, p.Type); err != nil {
				errs = append(errs, fmt.Errorf("catalogue %s: action %s: parameter or output %w", c.Adapter, a.Name, err))
			}
		}
		e.actions[a.Name] = a
	}
	for _, spec := range c.Conditions {
		e.known.codes = append(e.known.codes, string(spec.Code))
	}
	return errors.Join(errs...)
}

func checkName(name string, t fettle.FactType) error {
	if !identifier.MatchString(name) || slices.Contains(reserved, name) {
		return fmt.Errorf("%q cannot be written in a rule; use letters, digits and '_', and no word of CEL's own", name)
	}
	if TypeOf(t) == Any {
		return fmt.Errorf("%q has the type %q; the types are bool, int, string and list", name, t)
	}
	return nil
}

// join adds a field; two that disagree on the type are dynamic.
func join(fields map[string]*types.Type, name string, t *types.Type) {
	if before, ok := fields[name]; ok && !before.IsExactType(t) {
		t = types.DynType
	}
	fields[name] = t
}

// withSubject is a copy of the fields and the subject's name.
func withSubject(fields map[string]*types.Type) map[string]*types.Type {
	all := maps.Clone(fields)
	if all == nil {
		all = map[string]*types.Type{}
	}
	all[subjectField] = types.StringType
	return all
}

// compilerFor extends the base by variables.
func (e *Env) compilerFor(t *provider, vars map[string]*types.Type, more ...cel.EnvOption) (compiler, error) {
	opts := append([]cel.EnvOption{cel.CustomTypeProvider(t)}, more...)
	names := sortedKeys(vars)
	for _, v := range names {
		opts = append(opts, cel.Variable(v, vars[v]))
	}
	env, err := e.base.Extend(opts...)
	if err != nil {
		return compiler{}, fmt.Errorf("CEL environment: %w", err)
	}
	return compiler{env: env, vars: names}, nil
}
