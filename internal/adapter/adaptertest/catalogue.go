package adaptertest

import (
	"slices"
	"strings"
	"testing"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
)

// catalogue asks whether the catalogue is complete, checks itself, and agrees
// with the instance.
func (s Suite) catalogue(t *testing.T) {
	r := s.New(t)
	c := r.Adapter.Catalogue()
	in := open(t, r)
	if c.Adapter == "" || c.Doc == "" || c.Versions == "" {
		t.Error("adapter, doc and versions must be said")
	}
	named := func(what, name string) {
		if !strings.HasPrefix(name, c.Adapter+".") {
			t.Errorf("%s %q does not begin with %q", what, name, c.Adapter+".")
		}
	}
	env, err := expr.New(fettle.Join([]fettle.Catalogue{c}))
	if err != nil {
		t.Fatalf("the catalogue does not check: %v", err)
	}
	mended := s.Books(t)
	for _, spec := range c.Conditions {
		named("condition", string(spec.Code))
		switch {
		case spec.Doc == "" || spec.Title == "" || spec.Severity == "" || spec.Scope == "" || spec.Layer == fettle.NoLayer:
			t.Errorf("%s: doc, title, severity, scope and layer must be said", spec.Code)
		case !mended[spec.Code] && spec.NotMended == "" && !spec.Explains:
			t.Errorf("%s: no runbook mends it and NotMended does not say why", spec.Code)
		case mended[spec.Code] && spec.NotMended != "":
			t.Errorf("%s: a runbook mends it, and NotMended says why none does", spec.Code)
		}
		for _, src := range []string{spec.Raise, spec.Clear} {
			if src == "" {
				continue
			}
			if _, err := env.Rule(spec, src); err != nil {
				t.Errorf("%s: %v", spec.Code, err)
			}
		}
		for _, e := range append(slices.Clone(spec.Effects), spec.CausedBy...) {
			if _, err := e.Path.Hops(); err != nil || e.Surely == "" || e.Within <= 0 {
				t.Errorf("%s: the edge to %s needs a path, how surely and within what time (%v)", spec.Code, e.Condition, err)
			}
		}
	}
	s.hands(t, c, in)
}

// hands asks whether every declared probe, action and fault is there, and no
// other.
func (s Suite) hands(t *testing.T, c fettle.Catalogue, in fettle.Instance) {
	actions, faults := in.Actions(), in.Faults()
	for _, a := range c.Actions {
		if actions[a.Name] == nil {
			t.Errorf("action %s is declared and not there", a.Name)
		}
		if a.Doc == "" || a.Risk == "" || a.Version == 0 || a.Timeout == 0 || a.Undo == (a.NoUndo != "") {
			t.Errorf("action %s: doc, risk, version, timeout and exactly one of Undo and NoUndo must be said", a.Name)
		}
		_, armable := actions[a.Name].(fettle.Armable)
		if cuts := slices.Contains(a.Takes, fettle.TakesReachability); cuts != a.Armed || armable != a.Armed {
			t.Errorf("action %s: takes reachability %v, Armed %v, implements fettle.Armable %v; it is all of them or none (S8)", a.Name, cuts, a.Armed, armable)
		}
		if !slices.ContainsFunc(s.Actions, func(x ActionCase) bool { return x.Action == a.Name }) && !s.excused(t, "action "+a.Name) {
			t.Errorf("action %s is not asked by this suite", a.Name)
		}
	}
	for name := range actions {
		if _, ok := c.FindAction(name); !ok {
			t.Errorf("action %s is there and not declared", name)
		}
	}
	for _, f := range c.Faults {
		if faults[f.Name] == nil {
			t.Errorf("fault %s is declared and not there", f.Name)
		}
		if _, ok := c.FindCondition(f.Raises); !ok {
			t.Errorf("fault %s raises %s, which the catalogue does not have", f.Name, f.Raises)
		}
		if !slices.ContainsFunc(s.Faults, func(x FaultCase) bool { return x.Fault == f.Name }) && !s.excused(t, "fault "+f.Name) {
			t.Errorf("fault %s is not asked by this suite", f.Name)
		}
	}
	declared := map[string]bool{}
	for _, p := range c.Probes {
		declared[p.Name] = true
		if p.Timeout <= 0 || p.Interval <= 0 || p.Doc == "" {
			t.Errorf("probe %s: interval, timeout and doc must be said", p.Name)
		}
	}
	for _, p := range in.Probes() {
		if !declared[p.Spec().Name] {
			t.Errorf("probe %s is there and not declared", p.Spec().Name)
		}
	}
}
