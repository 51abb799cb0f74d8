package expr_test

import (
	"sync"
	"testing"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
)

// TestConcurrentUse: an Env and what it compiled may be shared; run with -race.
func TestConcurrentUse(t *testing.T) {
	env := newEnv(t)
	tpl, err := env.Template("${steps.add.id} on ${name(cause)}")
	if err != nil {
		t.Fatal(err)
	}
	scope := aScope()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			rule, err := env.Rule(memberSpec("self.healthy"), "self.healthy || peers.exists(p, p.healthy)")
			if err != nil {
				t.Error(err)
				return
			}
			for range 50 {
				if rule.Eval(expr.RuleInput{Peers: []fettle.Facts{{"healthy": true}}}) != fettle.Yes {
					t.Error("wrong answer")
				}
				if v, err := tpl.Eval(scope); v != "new on b" {
					t.Errorf("got %v, %v", v, err)
				}
			}
		})
	}
	all.Wait()
}

// BenchmarkCompile is what one rule costs when a program starts.
func BenchmarkCompile(b *testing.B) {
	env := newEnv(b)
	src := "self.lag_ms > 1000 && !self.healthy && self.state != 'starting'"
	for b.Loop() {
		if _, err := env.Rule(memberSpec(src), src); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkNew is what the environment costs when a program starts.
func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		newEnv(b)
	}
}
