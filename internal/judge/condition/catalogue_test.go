package condition_test

import (
	"strings"
	"testing"

	"fettle/internal/fettle"
	"fettle/internal/judge/condition"
	"fettle/internal/judge/expr"
)

func TestScopes(t *testing.T) {
	host := fettle.ConditionSpec{Code: "t.h", Raise: "self.bad", Scope: fettle.HostScope}
	cluster := fettle.ConditionSpec{Code: "t.k", Raise: "self.bad", Scope: fettle.ClusterScope}
	for want, scopes := range map[string][]fettle.Scope{"t.h": {fettle.HostScope}, "t.k": {fettle.ClusterScope}, "t.h t.k": nil} {
		s := &story{t, newStory(t).w, newEvaluator(t, catalogue(host, cluster), scopes...)}
		var codes []string
		for _, c := range s.bad(1, "h1", true) {
			codes = append(codes, string(c.After.Code))
		}
		wantEqual(t, "codes", strings.Join(codes, " "), want)
	}
}

func TestNewNamesAllThatIsWrong(t *testing.T) {
	cats := catalogue(
		fettle.ConditionSpec{Code: "t.a", Raise: "self.bd"},
		fettle.ConditionSpec{Code: "t.b", Raise: "self.bad", Clear: "self.level"},
		fettle.ConditionSpec{Code: "t.c", Raise: "self.bad", Title: "{lable}"},
		fettle.ConditionSpec{Code: "t.d", Raise: "self.bad", Title: "{label"},
		fettle.ConditionSpec{Code: "t.e", Raise: "self.bad", Delay: -1},
		fettle.ConditionSpec{Code: "t.f", Raise: "self.bad", Flap: fettle.Flap{Changes: 3}},
		fettle.ConditionSpec{Code: "t.g", Raise: "self.bad", Observers: "some"},
		fettle.ConditionSpec{Code: "t.h", Kind: "system", Probe: "t.thing", Raise: "self.bad"},
		fettle.ConditionSpec{Code: "t.i", Kind: "thing", Probe: "t.thong", Raise: "self.bad"},
		fettle.ConditionSpec{Code: "t.i", Raise: "self.bad"},
	)
	env, err := expr.New(cats)
	if err != nil {
		t.Fatal(err)
	}
	_, err = condition.New(cats, env)
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{
		`t.a: raise: 1:5: facts of t.thing: no "bd" (did you mean "bad"?)`, "t.b: clear: 1:1: its value is int", "t.c: title", "t.d: title", "t.e: delay",
		"t.f: flap", "t.g: unknown agreement", `t.h: it is about kind "system"`, `t.i: no catalogue declares its probe "t.thong"`, `"t.i" is declared twice`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
}
