package expr_test

import (
	"slices"
	"strings"
	"testing"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
)

func TestRuleAnswers(t *testing.T) {
	env := newEnv(t)
	known := expr.RuleInput{
		Self:        fettle.Facts{"healthy": false, "lag_ms": int64(1500), "member_id": "a1", "alarms": []string{"NOSPACE"}},
		Host:        fettle.Facts{"load_permille": int64(900)},
		Whole:       fettle.Facts{"members": int64(3), "subject": "etcd:c"},
		Peers:       []fettle.Facts{{"subject": "etcd-member:c/b", "healthy": true, "lag_ms": int64(3)}, {"subject": "etcd-member:c/c"}},
		Parts:       []fettle.Facts{{"subject": "x:1", "load_permille": int64(1)}},
		Unreachable: 2, Observers: 3,
	}
	for _, tc := range []struct {
		rule string
		in   expr.RuleInput
		want fettle.Tri
	}{
		{"!self.healthy", known, fettle.Yes},
		{"self.healthy", known, fettle.No},
		{"self.lag_ms > 1000 && 'NOSPACE' in self.alarms", known, fettle.Yes},
		{"self[\"lag_ms\"] > 1000", known, fettle.Yes},
		{"self.alarms.exists(a, a.startsWith('NO'))", known, fettle.Yes},
		{"host.load_permille >= 900", known, fettle.Yes},
		{"whole.members == 3", known, fettle.Yes},
		{"unreachable * 2 > observers", known, fettle.Yes},
		{"parts.all(p, p.load_permille < 10)", known, fettle.Yes},
		{"parts.exists(p, p.subject == 'x:1')", known, fettle.Yes},

		// What is absent is unknown, unless the rest decides alone.
		{"self.state == 'x'", known, fettle.Unknown},
		{"self.healthy || self.state == 'x'", known, fettle.Unknown},
		{"!self.healthy || self.state == 'x'", known, fettle.Yes},
		{"self.state == 'x' || !self.healthy", known, fettle.Yes},
		{"self.healthy && self.state == 'x'", known, fettle.No},
		{"has(self.state) && self.state == 'x'", known, fettle.No},
		{"peers.exists(p, p.lag_ms > 100)", known, fettle.Unknown}, // one peer is not known
		{"peers.exists(p, p.lag_ms < 100)", known, fettle.Yes},
		{"peers.all(p, p.lag_ms > 100)", known, fettle.No},
		{"peers.filter(p, has(p.lag_ms)).size() == 1", known, fettle.Yes},
		{"!self.healthy", expr.RuleInput{}, fettle.Unknown},
		{"host.load_permille > 1", expr.RuleInput{}, fettle.Unknown},
		{"peers.all(p, p.healthy)", expr.RuleInput{}, fettle.Yes},

		// What cannot be computed is unknown too.
		{"1 / (self.lag_ms - 1500) > 0", known, fettle.Unknown},
		{"9223372036854775807 + self.lag_ms > 0", known, fettle.Unknown},
		{"self.lag_ms > 1", expr.RuleInput{Self: fettle.Facts{"lag_ms": "not a number"}}, fettle.Unknown},
		{"whole.state == 'x'", expr.RuleInput{Whole: fettle.Facts{"state": "x"}}, fettle.Yes}, // no one type: dynamic
		{"whole.state", expr.RuleInput{Whole: fettle.Facts{"state": "x"}}, fettle.Unknown},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			rule, err := env.Rule(memberSpec(tc.rule), tc.rule)
			if err != nil {
				t.Fatal(err)
			}
			got, why := rule.Why(tc.in)
			if got != tc.want || rule.Eval(tc.in) != tc.want {
				t.Errorf("got %v (%v), want %v", got, why, tc.want)
			}
			if (got == fettle.Unknown) != (why != nil) {
				t.Errorf("answer %v with reason %v", got, why)
			}
		})
	}
}

func TestRuleKeepsTheReason(t *testing.T) {
	rule, err := newEnv(t).Rule(memberSpec("self.lag_ms > 1"), "self.lag_ms > 1")
	if err != nil {
		t.Fatal(err)
	}
	if _, why := rule.Why(expr.RuleInput{}); why == nil || !strings.Contains(why.Error(), `fact "lag_ms" is not known`) {
		t.Errorf("reason %v", why)
	}
}

func TestRuleErrorsSayWhereAndWhat(t *testing.T) {
	env := newEnv(t)
	for _, tc := range []struct {
		rule string
		want []string
	}{
		{"self.lag_ms > 1 && self.helthy", []string{"1:24:", `no "helthy"`, `did you mean "healthy"`}},
		{"true &&\n  self.lagms > 1", []string{"2:7:", `did you mean "lag_ms"`}},
		{"slef.healthy", []string{"1:1:", `did you mean "self"`}},
		{"host.lod_permille > 1", []string{`did you mean "load_permille"`}},
		{"peers.exists(p, p.memberid == 'x')", []string{`did you mean "member_id"`}},
		{"self.lag_ms > '1'", []string{"> does not take (int, string)"}},
		{"self.lag_ms", []string{"its value is int, wanted bool"}},
		{"self.lag_ms > 1.5", []string{"1:13:", "facts are whole numbers"}},
		{"1.5 > 0.5", []string{"1:1:", "fractions do not exist"}},
		{"self.lag_ms * 2 > 1u", []string{"does not take"}},
		{"double(self.lag_ms) > 1.0", []string{"double does not exist here"}},
		{"timestamp('2020-01-01T00:00:00Z') == timestamp('2020-01-01T00:00:00Z')", []string{"timestamp does not exist here"}},
		{"b'x' == b'x'", []string{"bytes does not exist here"}},
		{"null == null", []string{"null does not exist"}},
		{"{'a': 1}.a == 1", []string{"maps and messages cannot be made"}},
		{"self == self", []string{"1:1:", "self can only be read fact by fact"}},
		{"[host].size() == 1", []string{"1:2:", "host can only be read fact by fact"}},
		{"peers.exists(self, self.healthy)", []string{"hides the variable"}},
		{"fact('a:b', 'healthy') == true", []string{"cannot be asked in a condition's rule"}},
		{"self.healthy &&", []string{"syntax:"}},
		{"", []string{"empty expression"}},
		{"'a(' .matches('a(')", []string{"invalid matches argument"}},
		{strings.Repeat("1+", 9000) + "1 == 1", []string{"1:1:"}},
	} {
		t.Run(tc.rule[:min(len(tc.rule), 40)], func(t *testing.T) {
			_, err := env.Rule(memberSpec(tc.rule), tc.rule)
			mustContain(t, issues(t, err), tc.want...)
			if !strings.HasPrefix(err.Error(), "etcd.member_lost: raise: ") {
				t.Errorf("error does not name code and rule: %v", err)
			}
		})
	}
	spec := memberSpec("true")
	spec.Clear = "self.nope"
	if _, err := env.Rule(spec, spec.Clear); !strings.HasPrefix(err.Error(), "etcd.member_lost: clear: 1:5: ") {
		t.Errorf("error %v", err)
	}
	spec.Probe = "etcd.membr"
	_, err := env.Rule(spec, "true")
	mustContain(t, issues(t, err), `did you mean "etcd.member"`)
}

func TestRuleSaysWhatItReads(t *testing.T) {
	rule, err := newEnv(t).Rule(memberSpec("x"), "self.lag_ms > 1 && has(self.healthy) || peers.exists(p, p.lag_ms > 3)")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(rule.Reads(), []string{"healthy", "lag_ms"}) || !rule.NeedsSelf() || !rule.ReadsPeers() ||
		rule.ReadsHost() || rule.ReadsWhole() || rule.ReadsParts() || rule.OnlyCounts() {
		t.Errorf("reads %v, peers %v, only counts %v", rule.Reads(), rule.ReadsPeers(), rule.OnlyCounts())
	}
	rule, err = newEnv(t).Rule(memberSpec("x"), "unreachable >= 2 && unreachable == observers")
	if err != nil {
		t.Fatal(err)
	}
	if !rule.OnlyCounts() || len(rule.Reads()) != 0 {
		t.Errorf("reads %v, only counts %v", rule.Reads(), rule.OnlyCounts())
	}
}

func TestCostLimitMakesUnknown(t *testing.T) {
	src := "parts.exists(a, parts.exists(b, parts.exists(c, a.load_permille + b.load_permille + c.load_permille < 0)))"
	rule, err := newEnv(t).Rule(memberSpec(src), src)
	if err != nil {
		t.Fatal(err)
	}
	var parts []fettle.Facts
	for range 200 {
		parts = append(parts, fettle.Facts{"load_permille": int64(1)})
	}
	got, why := rule.Why(expr.RuleInput{Parts: parts})
	if got != fettle.Unknown || why == nil || !strings.Contains(why.Error(), "cost limit") {
		t.Errorf("got %v, %v", got, why)
	}
	if got := rule.Eval(expr.RuleInput{Parts: parts[:5]}); got != fettle.No {
		t.Errorf("few parts: got %v", got)
	}
}

// BenchmarkRule is the hot path: one rule over one observation.
func BenchmarkRule(b *testing.B) {
	src := "self.lag_ms > 1000 && !self.healthy && self.state != 'starting'"
	rule, err := newEnv(b).Rule(memberSpec(src), src)
	if err != nil {
		b.Fatal(err)
	}
	in := expr.RuleInput{Self: fettle.Facts{"lag_ms": int64(2000), "healthy": false, "state": "running"}}
	b.ReportAllocs()
	for b.Loop() {
		if rule.Eval(in) != fettle.Yes {
			b.Fatal("wrong answer")
		}
	}
}

// BenchmarkRuleLoop is a rule with a loop, and so with a cost limit.
func BenchmarkRuleLoop(b *testing.B) {
	src := "!self.healthy && peers.filter(p, has(p.healthy) && p.healthy).size() >= 2"
	rule, err := newEnv(b).Rule(memberSpec(src), src)
	if err != nil {
		b.Fatal(err)
	}
	in := expr.RuleInput{Self: fettle.Facts{"healthy": false}, Peers: []fettle.Facts{{"healthy": true}, {"healthy": true}, {"healthy": false}}}
	b.ReportAllocs()
	for b.Loop() {
		if rule.Eval(in) != fettle.Yes {
			b.Fatal("wrong answer")
		}
	}
}
