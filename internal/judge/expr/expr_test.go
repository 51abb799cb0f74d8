package expr_test

import (
	"errors"
	"strings"
	"testing"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
)

// catalogues declare enough to write every kind of rule against.
func catalogues() []fettle.Catalogue {
	return []fettle.Catalogue{
		{
			Adapter: "etcd",
			Probes: []fettle.ProbeSpec{
				{Name: "etcd.member", Kind: "etcd-member", Facts: []fettle.FactSpec{
					{Name: "healthy", Type: fettle.BoolFact}, {Name: "lag_ms", Type: fettle.IntFact},
					{Name: "member_id", Type: fettle.StringFact}, {Name: "alarms", Type: fettle.ListFact},
					{Name: "state", Type: fettle.StringFact},
				}},
				{Name: "etcd.cluster", Kind: "etcd", Facts: []fettle.FactSpec{
					{Name: "members", Type: fettle.IntFact}, {Name: "state", Type: fettle.IntFact},
				}},
			},
			Conditions: []fettle.ConditionSpec{{Code: "etcd.member_lost"}, {Code: "etcd.slow"}},
			Actions: []fettle.ActionSpec{{
				Name:    "etcd.member_remove",
				Params:  []fettle.ParamSpec{{Name: "id", Type: fettle.StringFact, Required: true}},
				Outputs: []fettle.ParamSpec{{Name: "count", Type: fettle.IntFact}},
			}},
		},
		{Adapter: "host", Probes: []fettle.ProbeSpec{
			{Name: "host.load", Kind: fettle.KindHost, Facts: []fettle.FactSpec{{Name: "load_permille", Type: fettle.IntFact}}},
		}},
	}
}

func newEnv(t testing.TB) *expr.Env {
	t.Helper()
	env, err := expr.New(catalogues())
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func memberSpec(raise string) fettle.ConditionSpec {
	return fettle.ConditionSpec{Code: "etcd.member_lost", Kind: "etcd-member", Probe: "etcd.member", Raise: raise}
}

// issues compiles and returns the one-line messages.
func issues(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		t.Fatal("compiled")
	}
	var e *expr.Error
	if !errors.As(err, &e) {
		t.Fatalf("error is a %T, want *expr.Error: %v", err, err)
	}
	var list []string
	for _, i := range e.Issues {
		if i.Line < 1 || i.Column < 1 || i.Text == "" {
			t.Errorf("issue without a place or text: %+v", i)
		}
		list = append(list, i.String())
	}
	if len(list) == 0 {
		t.Fatal("an error without issues")
	}
	return list
}

// mustContain checks that the first issue has all the parts.
func mustContain(t *testing.T, got []string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(strings.Join(got, "\n"), p) {
			t.Errorf("no %q in\n%s", p, strings.Join(got, "\n"))
		}
	}
}

func TestNewRefusesNamesThatNoRuleCanSay(t *testing.T) {
	for name, cat := range map[string]fettle.Catalogue{
		"fact with a dash": {Probes: []fettle.ProbeSpec{{Name: "p", Facts: []fettle.FactSpec{{Name: "a-b", Type: fettle.IntFact}}}}},
		"reserved word":    {Probes: []fettle.ProbeSpec{{Name: "p", Facts: []fettle.FactSpec{{Name: "in", Type: fettle.IntFact}}}}},
		"subject":          {Probes: []fettle.ProbeSpec{{Name: "p", Facts: []fettle.FactSpec{{Name: "subject", Type: fettle.StringFact}}}}},
		"a float":          {Probes: []fettle.ProbeSpec{{Name: "p", Facts: []fettle.FactSpec{{Name: "x", Type: "float"}}}}},
		"probe twice":      {Probes: []fettle.ProbeSpec{{Name: "p"}, {Name: "p"}}},
		"action twice":     {Actions: []fettle.ActionSpec{{Name: "a"}, {Name: "a"}}},
		"parameter":        {Actions: []fettle.ActionSpec{{Name: "a", Params: []fettle.ParamSpec{{Name: "x y", Type: fettle.IntFact}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := expr.New([]fettle.Catalogue{cat}); err == nil {
				t.Error("taken")
			}
		})
	}
}
