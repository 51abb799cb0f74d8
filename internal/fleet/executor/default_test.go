package executor_test

import (
	"testing"

	"fettle/internal/adapter/all"
	"fettle/internal/fettle"
	"fettle/internal/fleet/executor"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/runbook"
	"fettle/runbooks"
)

// Without rules of the host a person must have signed what takes something away or is
// not of low risk, and no step of a plan that out of the box goes by itself: of every
// rung that is shipped.
func TestDefaultAsksWhereThePolicyDoes(t *testing.T) {
	var cats []fettle.Catalogue
	for _, a := range all.Adapters() {
		cats = append(cats, a.Catalogue())
	}
	cats = fettle.Join(cats)
	env, err := expr.New(cats)
	if err != nil {
		t.Fatal(err)
	}
	set, err := runbook.Load(runbooks.FS(), env, cats)
	if err != nil {
		t.Fatal(err)
	}
	free, asks := 0, 0
	for _, c := range cats {
		for _, cond := range c.Conditions {
			for _, book := range set.For(cond.Code) {
				for _, rung := range book.Rungs {
					p := fettle.Plan{Runbook: book.Name, Rung: rung.Name, ProvedBy: rung.ProvedBy, Risk: fettle.LowRisk, Takes: rung.Takes()}
					if rung.Loses != nil {
						p.Loses = rung.Loses.Source()
					}
					needs := false
					for _, s := range rung.Steps {
						p.Risk = runbook.WorseRisk(p.Risk, s.Action.Risk)
						p.Steps = append(p.Steps, fettle.Step{ID: s.ID, Action: s.Action.Name, Undo: s.Action.Undo, Risk: s.Action.Risk, Takes: s.Takes})
						needs = needs || executor.Rules{}.NeedsPerson(s.Action)
					}
					level, why := runbook.DefaultLevel(p, runbook.Reversible(p))
					if needs && level == fettle.Automatic {
						t.Errorf("%s/%s goes by itself (%s), and its executor wants a person", book.Name, rung.Name, why)
					}
					if level == fettle.Automatic {
						free++
					} else if needs {
						asks++
					}
				}
			}
		}
	}
	if free == 0 || asks == 0 {
		t.Errorf("%d rungs go by themselves, %d need a signature: the test says nothing", free, asks)
	}
	t.Logf("%d rungs go by themselves, %d have a step that needs a signature", free, asks)
}
