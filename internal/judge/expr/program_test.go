package expr_test

import (
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/world"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const (
	cluster = fettle.Subject("etcd:c")
	memberA = fettle.Subject("etcd-member:c/a")
	memberB = fettle.Subject("etcd-member:c/b")
	memberC = fettle.Subject("etcd-member:c/c")
	hostA   = fettle.Subject("host:h1")
)

// aWorld is three members, of which a leads, b is dead and c is not known.
func aWorld() *world.World {
	w := world.New()
	for _, s := range []fettle.Subject{memberA, memberB, memberC} {
		w.Observe(fettle.Observation{
			Subject: s, Host: hostA, Probe: "etcd.member", Asked: t0,
			Facts: fettle.Facts{"member_id": s.Name() + "1", "healthy": s == memberA, "lag_ms": int64(7), "alarms": []string{"x", "y"}},
			Edges: []fettle.Edge{{From: s, Rel: fettle.PartOf, To: cluster}},
		})
	}
	w.Observe(fettle.Observation{
		Subject: memberA, Host: hostA, Probe: "etcd.place", Asked: t0.Add(time.Minute),
		Edges: []fettle.Edge{{From: memberA, Rel: fettle.RunsOn, To: hostA}},
	})
	w.Observe(fettle.Observation{
		Subject: cluster, Host: hostA, Probe: "etcd.cluster", Asked: t0, Facts: fettle.Facts{"members": int64(3)},
		Quorum: &fettle.QuorumGroup{Members: []fettle.QuorumMember{
			{Subject: memberA, ID: "a1", Voter: true, Serving: fettle.Yes, Leader: true},
			{Subject: memberB, ID: "b1", Voter: true, Serving: fettle.No},
			{Subject: memberC, ID: "c1"},
		}},
	})
	w.SetCondition(fettle.Condition{
		ConditionKey: fettle.ConditionKey{Code: "etcd.member_lost", Subject: memberB}, State: fettle.Yes,
		Evidence: []fettle.Evidence{{Says: fettle.Yes, Asked: t0}},
	})
	w.SetCondition(fettle.Condition{ConditionKey: fettle.ConditionKey{Code: "etcd.member_lost", Subject: memberC}})
	return w
}

func aScope() expr.Scope {
	return expr.Scope{
		View: aWorld(), Cause: memberB, Target: memberB, Host: hostA,
		With:  fettle.Facts{"id": "b1", "n": int64(2)},
		Steps: map[string]fettle.Facts{"add": {"id": "new", "ok": true}, "set-aside": {"path": "/x"}},
		Vars:  fettle.Facts{"group": string(cluster)},
	}
}

func TestProgramValues(t *testing.T) {
	env := newEnv(t)
	for _, tc := range []struct {
		src  string
		want fettle.Value // nil: unknown
	}{
		{"cause", string(memberB)},
		{"group", ""},
		{"with.id == 'b1' && with['n'] == 2", true},
		{"with.none", nil},
		{"out.id", nil},
		{"has(out.id)", false},
		{"was", nil},
		{"steps.add.id", "new"},
		{"steps['set-aside'].path", "/x"},
		{"steps.later.id", nil},
		{"vars.group", string(cluster)},
		{"fact(cause, 'member_id')", "b1"},
		{"fact(cause, 'lag_ms') + 1", int64(8)},
		{"fact(cause, 'alarms')", []string{"x", "y"}},
		{"fact(cause, 'state')", nil},
		{"fact(group, 'healthy')", nil},
		{"fact(cause, with.id)", nil},
		{"has_fact(cause, 'healthy')", true},
		{"has_fact(cause, 'state')", false},
		{"has_fact('etcd-member:c/none', 'healthy')", nil},
		{"related(vars.group, '<part-of')", []string{string(memberA), string(memberB), string(memberC)}},
		{"related(cause, '>runs-on')", []string{}},
		{"related(vars.group, '<part-of').filter(m, m != target && fact(m, 'healthy')).map(m, name(m))", []string{"a"}},
		{"one(cause, '>part-of')", string(cluster)},
		{"one(cause, '>runs-on')", nil},
		{"kind(cause) + ' ' + name(cause)", "etcd-member b"},
		{"kind('')", nil},
		{"subject('unit', ['h1', 'a/b.service'])", "unit:h1/a%2Fb.service"},
		{"subject('Unit', ['h1'])", nil},
		{"subject('unit', [])", nil},
		{"raised(cause, 'etcd.member_lost')", true},
		{"raised(cause, 'etcd.slow')", nil},
		{"raised('etcd-member:c/c', 'etcd.member_lost')", nil},
		{"quorum(vars.group).voters", int64(2)},
		{"quorum(vars.group).majority - quorum(vars.group).serving", int64(1)},
		{"quorum(vars.group).learners == 1 && quorum(vars.group).leader == 'etcd-member:c/a'", true},
		{"quorum(vars.group).members.map(m, m.id)", []string{"a1", "b1", "c1"}},
		{"quorum(cause).voters", nil},
		{"member(vars.group, cause).serving", false},
		{"member(vars.group, 'etcd-member:c/c').serving", nil},
		{"member(vars.group, 'etcd-member:c/c').voter", false},
		{"member(vars.group, 'etcd-member:c/z').id", nil},
		{"'a,b'.split(',')", []string{"a", "b"}},
		{"sets.contains(['a', 'b'], [name(cause)])", true},
		{"[1, 2]", nil},
		{"true || raised(cause, 'etcd.slow')", true},
		{"false && raised(cause, 'etcd.slow')", false},
		{"raised(cause, 'etcd.slow') || false", nil},
	} {
		t.Run(tc.src, func(t *testing.T) {
			if tc.src == "[1, 2]" {
				if _, err := env.Compile(tc.src, expr.Any); err == nil {
					t.Error("a list of numbers compiled")
				}
				return
			}
			p, err := env.Compile(tc.src, expr.Any)
			if err != nil {
				t.Fatal(err)
			}
			got, tri, why := p.Eval(aScope())
			if tc.want == nil {
				if got != nil || tri != fettle.Unknown || why == nil {
					t.Errorf("got %v, %v, %v; want unknown", got, tri, why)
				}
				return
			}
			if why != nil || !fettle.EqualValue(got, tc.want) {
				t.Errorf("got %#v (%v), want %#v", got, why, tc.want)
			}
			wantTri := fettle.Yes
			if tc.want == false {
				wantTri = fettle.No
			}
			if tri != wantTri {
				t.Errorf("tri %v, want %v", tri, wantTri)
			}
		})
	}
}

func TestSinceMakesOldFactsUnknown(t *testing.T) {
	env := newEnv(t)
	for _, src := range []string{
		"fact(cause, 'healthy') || true == false", "quorum(one(cause, '>part-of')).voters > 0",
		"raised(cause, 'etcd.member_lost')", "has_fact(cause, 'state') || true == false",
	} {
		p, err := env.Compile(src, expr.Bool)
		if err != nil {
			t.Fatal(err)
		}
		s := aScope()
		s.Since = t0
		if got, why := p.Bool(s); got == fettle.Unknown {
			t.Errorf("%s, observed at once: unknown, %v", src, why)
		}
		s.Since = t0.Add(time.Nanosecond)
		if got, why := p.Bool(s); got != fettle.Unknown || why == nil {
			t.Errorf("%s, observed before: %v", src, got)
		}
	}
}

func TestNothingIsKnownWithoutAWorld(t *testing.T) {
	p, err := newEnv(t).Compile("fact(cause, 'healthy') || has_fact(cause, 'healthy') || raised(cause, 'etcd.slow') || quorum(cause).voters > 0", expr.Bool)
	if err != nil {
		t.Fatal(err)
	}
	if got, why := p.Bool(expr.Scope{Cause: memberA}); got != fettle.Unknown || why == nil {
		t.Errorf("got %v, %v", got, why)
	}
}

func TestCompileErrors(t *testing.T) {
	env := newEnv(t)
	for _, tc := range []struct {
		src  string
		typ  expr.Type
		want []string
	}{
		{"fact(cause, 'helthy')", expr.Any, []string{"1:13:", `no probe declares the fact "helthy"`, `did you mean "healthy"`}},
		{"has_fact(cause, 'membr_id')", expr.Any, []string{`did you mean "member_id"`}},
		{"raised(cause, 'etcd.memberlost')", expr.Any, []string{"1:15:", `did you mean "etcd.member_lost"`}},
		{"raised(cause, 'lost')", expr.Any, []string{"not a condition's code"}},
		{"related(cause, 'part-of')", expr.Any, []string{"1:16:", "must begin with > or <"}},
		{"one(cause, '>parts')", expr.Any, []string{"unknown relation"}},
		{"fact(cause)", expr.Any, []string{"fact(subject, name)"}},
		{"cuase", expr.Any, []string{`did you mean "cause"`}},
		{"fact(cause, 'lag_ms') == 'x'", expr.Any, []string{"== does not take (int, string)"}},
		{"fact(1, 'lag_ms')", expr.Any, []string{"fact() does not take (int, string)"}},
		{"fact(cause, 'lag_ms')", expr.Bool, []string{"its value is int, wanted bool"}},
		{"quorum(group).voterz", expr.Any, []string{`no "voterz"`}},
		{"quorum(group)", expr.Any, []string{"wanted any"}},
		{"with", expr.Any, []string{"wanted any"}},
		{"with.exists(k, k == 'a')", expr.Bool, []string{"a map has no order"}},
		{"steps", expr.Any, []string{"wanted any"}},
		{"steps[cause].id", expr.Any, []string{"1:1:", "steps.ID.OUTPUT"}},
		{"size(steps.add) > 0", expr.Any, []string{"steps.ID.OUTPUT"}},
		{"self.lag_ms", expr.Any, []string{`no variable or function "self"`}},
		{"now", expr.Any, []string{"there is no clock"}},
	} {
		t.Run(tc.src, func(t *testing.T) {
			_, err := env.Compile(tc.src, tc.typ)
			mustContain(t, issues(t, err), tc.want...)
		})
	}
}

func TestNarrowChecksNames(t *testing.T) {
	narrow, err := newEnv(t).Narrow(expr.Names{
		With:  []fettle.ParamSpec{{Name: "id", Type: fettle.StringFact}},
		Out:   []fettle.ParamSpec{},
		Steps: map[string][]fettle.ParamSpec{"add": {{Name: "id", Type: fettle.StringFact}}, "set-aside": {{Name: "bytes", Type: fettle.IntFact}}},
		Vars:  map[string]expr.Type{"group": expr.String},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, src := range []string{"with.id == 'x'", "steps.add.id == with.id", "steps['set-aside'].bytes > 3", "vars.group == 'x'", "has(steps.add.id)"} {
		if _, err := narrow.Compile(src, expr.Bool); err != nil {
			t.Errorf("%s: %v", src, err)
		}
	}
	for src, want := range map[string]string{
		"with.ids == 'x'":                 `did you mean "id"`,
		"with.id == 1":                    "does not take (string, int)",
		"out.count == 1":                  `no "count"`,
		"steps.add.idd == 'x'":            `outputs of step add: no "idd"`,
		"steps.ad.id == 'x'":              `did you mean "add"`,
		"steps['set-aside'].bytes == 'x'": "does not take (int, string)",
		"vars.grp == 'x'":                 `did you mean "group"`,
	} {
		_, err := narrow.Compile(src, expr.Bool)
		mustContain(t, issues(t, err), want)
	}
	p, err := narrow.Compile("steps['set-aside'].bytes + 1", expr.Int)
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := p.Eval(expr.Scope{Steps: map[string]fettle.Facts{"set-aside": {"bytes": int64(41)}}}); got != int64(42) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, _, err := p.Eval(expr.Scope{}); err == nil || !strings.Contains(err.Error(), "set-aside") {
		t.Errorf("step not yet run: %v", err)
	}
}

func TestForActionKnowsItsParametersAndOutputs(t *testing.T) {
	env := newEnv(t)
	a, err := env.ForAction("etcd.member_remove")
	if err != nil {
		t.Fatal(err)
	}
	p, err := a.Compile("was - out.count", expr.Int)
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := p.Eval(expr.Scope{Was: int64(3), Out: fettle.Facts{"count": int64(1)}}); got != int64(2) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := a.Compile("with.idd", expr.Any); err == nil {
		t.Error("an undeclared parameter compiled")
	}
	if _, err := env.ForAction("etcd.member_remov"); err == nil || !strings.Contains(err.Error(), `"etcd.member_remove"`) {
		t.Errorf("error %v", err)
	}
}

func TestValueOfAnotherTypeIsUnknown(t *testing.T) {
	p, err := newEnv(t).Compile("with.x", expr.Int)
	if err != nil {
		t.Fatal(err)
	}
	if v, tri, err := p.Eval(expr.Scope{With: fettle.Facts{"x": "text"}}); v != nil || tri != fettle.Unknown || err == nil {
		t.Errorf("got %v, %v, %v", v, tri, err)
	}
	w := aWorld()
	w.Observe(fettle.Observation{Subject: memberA, Host: hostA, Probe: "etcd.member", Asked: t0.Add(time.Hour), Facts: fettle.Facts{"lag_ms": "many"}})
	p, err = newEnv(t).Compile("fact(cause, 'lag_ms')", expr.Int)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Eval(expr.Scope{View: w, Cause: memberA}); err == nil || !strings.Contains(err.Error(), "declared int") {
		t.Errorf("error %v", err)
	}
}

// TestPrediction: an overlay is a View like the world.
func TestPrediction(t *testing.T) {
	p, err := newEnv(t).Compile("fact(cause, 'healthy')", expr.Bool)
	if err != nil {
		t.Fatal(err)
	}
	o := world.Over(aWorld())
	o.SetFact(memberB, "healthy", true)
	if got, err := p.Bool(expr.Scope{View: o, Cause: memberB}); got != fettle.Yes {
		t.Errorf("got %v, %v", got, err)
	}
	has, err := newEnv(t).Compile("has_fact(cause, 'healthy')", expr.Bool)
	if err != nil {
		t.Fatal(err)
	}
	o.HideFact(memberB, "healthy")
	if got, err := has.Bool(expr.Scope{View: o, Cause: memberB}); got != fettle.Unknown || err == nil {
		t.Errorf("a fact that will be another: %v, %v", got, err)
	}
}
