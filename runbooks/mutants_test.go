package runbooks_test

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"fettle/internal/fettle"
	"fettle/internal/judge/rehearse"
	"fettle/internal/judge/runbook"
	"fettle/runbooks"
)

// TestExpectationsCanFail changes every expectation of every runbook test, one
// at a time, and demands that it turns red: a test that cannot fail is a defect.
//
// All changed expectations of a case are put beside its true ones, each under a
// line number of its own, and played once. What must be wrong is exactly theirs.
func TestExpectationsCanFail(t *testing.T) {
	m, err := mind(fettle.Policy{})
	if err != nil {
		t.Fatal(err)
	}
	err = fs.WalkDir(runbooks.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, "_test.yaml") {
			return err
		}
		src, err := fs.ReadFile(runbooks.FS(), name)
		if err != nil {
			return err
		}
		file, err := runbook.ParseTests("runbooks/"+name, src, m.Catalogues())
		if err != nil {
			return err
		}
		for _, c := range file.Cases {
			t.Run(name+"/"+c.Name, func(t *testing.T) { canFail(t, *file, c) })
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// mutantLines is above every line of a real file.
const mutantLines = 1_000_000

func canFail(t *testing.T, file runbook.TestFile, c runbook.Case) {
	var what []string // of the mutant on line mutantLines + its index
	var checks []runbook.Check
	for _, check := range c.Checks {
		checks = append(checks, check)
		for _, m := range mutants(check) {
			m.check.Line = mutantLines + len(what)
			checks = append(checks, m.check)
			what = append(what, fmt.Sprintf("line %d: %s", check.Line, m.what))
		}
	}
	if len(what) == 0 {
		t.Error("nothing in it can be changed, so it expects nothing")
	}
	c.Checks = checks
	file.Cases = []runbook.Case{c}
	results, err := rehearse.File(&file, mind)
	if err != nil {
		t.Fatal(err)
	}
	red := map[int]bool{}
	for _, w := range results[0].Wrong {
		red[w.Line] = true
		if w.Line < mutantLines {
			t.Errorf("line %d, which was not changed, is wrong: %s", w.Line, w.Text)
		}
	}
	for n, text := range what {
		if !red[mutantLines+n] {
			t.Errorf("%s, and nothing turns red", text)
		}
	}
}

type mutant struct {
	what  string
	check runbook.Check
}

// mutants returns a check's expectations, each by itself and turned into
// something else.
func mutants(c runbook.Check) []mutant {
	var out []mutant
	add := func(what string, change func(*runbook.Check)) {
		m := runbook.Check{After: c.After}
		change(&m)
		out = append(out, mutant{what, m})
	}
	for _, k := range c.Raised {
		add(k.String()+" should be clear", func(m *runbook.Check) { m.Clear = []fettle.ConditionKey{k} })
		add(k.String()+" should be unknown", func(m *runbook.Check) { m.Unknown = []fettle.ConditionKey{k} })
	}
	for _, k := range c.Clear {
		add(k.String()+" should be raised", func(m *runbook.Check) { m.Raised = []fettle.ConditionKey{k} })
		add(k.String()+" should be unknown", func(m *runbook.Check) { m.Unknown = []fettle.ConditionKey{k} })
	}
	for _, k := range c.Unknown {
		add(k.String()+" should be raised", func(m *runbook.Check) { m.Raised = []fettle.ConditionKey{k} })
		add(k.String()+" should be clear", func(m *runbook.Check) { m.Clear = []fettle.ConditionKey{k} })
	}
	if c.Causes != nil {
		add("one more cause", func(m *runbook.Check) {
			m.Causes = append(slices.Clone(c.Causes), fettle.ConditionKey{Code: "nobody.knows", Subject: "host:none"})
		})
	}
	for n, k := range c.Causes {
		add("without the cause "+k.String(), func(m *runbook.Check) {
			m.Causes = slices.Delete(slices.Clone(c.Causes), n, n+1)
		})
		add("another cause instead of "+k.String(), func(m *runbook.Check) {
			m.Causes = slices.Clone(c.Causes)
			m.Causes[n].Subject += "-other"
		})
	}
	if c.NoPlan != "" {
		add("another reason for no plan", func(m *runbook.Check) { m.NoPlan = c.NoPlan + " " + otherText })
		add("a plan where there is none", func(m *runbook.Check) { m.Plan = &runbook.WantPlan{} })
	}
	if c.Begun != nil {
		add("another step begun", func(m *runbook.Check) { m.Begun = append(slices.Clone(c.Begun), otherText) })
	}
	for n, id := range c.Begun {
		add(id+" not begun", func(m *runbook.Check) { m.Begun = slices.Delete(slices.Clone(c.Begun), n, n+1) })
	}
	if c.Refused != nil {
		out = append(out, refusals(c)...)
	}
	if c.Plan != nil {
		out = append(out, plans(c)...)
	}
	return out
}

// otherText is in no plan, name or reason.
const otherText = "as no one would say"

func refusals(c runbook.Check) []mutant {
	var out []mutant
	add := func(what string, change func(*runbook.WantRefusal)) {
		r := *c.Refused
		change(&r)
		out = append(out, mutant{"refused: " + what, runbook.Check{After: c.After, Refused: &r}})
	}
	add("by another invariant", func(r *runbook.WantRefusal) { r.Invariant = "S99" })
	add("for another reason", func(r *runbook.WantRefusal) { r.Why += otherText })
	if c.Refused.Step != "" {
		add("another step", func(r *runbook.WantRefusal) { r.Step += otherText })
	}
	return out
}

func plans(c runbook.Check) []mutant {
	var out []mutant
	add := func(what string, change func(*runbook.WantPlan)) {
		p := *c.Plan
		p.Steps = slices.Clone(p.Steps)
		change(&p)
		out = append(out, mutant{"plan: " + what, runbook.Check{After: c.After, Plan: &p}})
	}
	out = append(out, mutant{"no plan where there is one", runbook.Check{After: c.After, NoPlan: otherText}})
	add("another rung", func(p *runbook.WantPlan) { p.Rung += "-other" })
	if c.Plan.Level != nil {
		for level := fettle.Observe; level <= fettle.Automatic; level++ {
			if level != *c.Plan.Level {
				add("level "+level.String(), func(p *runbook.WantPlan) { p.Level = &level })
			}
		}
	}
	if c.Plan.Loses != "" {
		add("another loss", func(p *runbook.WantPlan) { p.Loses += otherText })
	}
	add("one more step", func(p *runbook.WantPlan) { p.Steps = append(p.Steps, runbook.WantStep{}) })
	for n, s := range c.Plan.Steps {
		add("without the step "+s.ID, func(p *runbook.WantPlan) { p.Steps = slices.Delete(p.Steps, n, n+1) })
		if n > 0 {
			add("the step "+s.ID+" earlier", func(p *runbook.WantPlan) { p.Steps[n], p.Steps[n-1] = p.Steps[n-1], p.Steps[n] })
		}
		for _, f := range []struct {
			name string
			of   func(*runbook.WantStep) *string
		}{
			{"id", func(s *runbook.WantStep) *string { return &s.ID }},
			{"action", func(s *runbook.WantStep) *string { return &s.Action }},
			{"target", func(s *runbook.WantStep) *string { return (*string)(&s.Target) }},
			{"host", func(s *runbook.WantStep) *string { return (*string)(&s.Host) }},
		} {
			if *f.of(&s) != "" {
				add("another "+f.name+" of the step "+s.ID, func(p *runbook.WantPlan) { *f.of(&p.Steps[n]) += "-other" })
			}
		}
		for param := range s.With {
			add("another "+param+" of the step "+s.ID, func(p *runbook.WantPlan) {
				p.Steps[n].With = fettle.Facts{param: otherText}
			})
		}
	}
	return out
}
