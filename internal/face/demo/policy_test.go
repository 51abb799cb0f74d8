package demo

import (
	"io/fs"
	"slices"
	"strings"
	"testing"

	"fettle/internal/adapter/all"
	"fettle/internal/face/control"
	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/rehearse"
	"fettle/internal/judge/runbook"
	"fettle/runbooks"
)

// TestDefaultAsksBeforeAMemberIsRemoved: under the policy that Fettle is shipped
// with, the plan that replaces a member which lost its data waits for a person.
// Under the demo's, which the viewer is shown, the same plan goes ahead.
func TestDefaultAsksBeforeAMemberIsRemoved(t *testing.T) {
	const name = "etcd/data_lost_test.yaml"
	src, err := fs.ReadFile(runbooks.FS(), name)
	if err != nil {
		t.Fatal(err)
	}
	file, err := runbook.ParseTests(name, src, control.Catalogues(all.Adapters()))
	if err != nil {
		t.Fatal(err)
	}
	permits, err := runbook.ParsePolicy("policy.yaml", []byte(Policy))
	if err != nil {
		t.Fatalf("the demo's own policy: %v", err)
	}
	for _, c := range []struct {
		name   string
		policy fettle.Policy
		level  fettle.Level
		state  fettle.IncidentState
	}{
		{"as shipped", fettle.Policy{Budgets: runbook.DefaultBudgets()}, fettle.Approve, fettle.Proposed},
		{"as in the demo", permits, fettle.Automatic, fettle.Acting},
	} {
		t.Run(c.name, func(t *testing.T) {
			if wrong := rehearsed(t, *file, c.policy, c.level, func(in fettle.Incident) {
				if in.State != c.state {
					t.Errorf("the incident is %s: %s", in.State, in.Why)
				}
				if !slices.ContainsFunc(in.Plan.Steps, func(s fettle.Step) bool { return s.Action == "etcd.member_remove" }) {
					t.Errorf("no step of the plan removes a member, so this proves nothing: %+v", in.Plan.Steps)
				}
			}); wrong != "" {
				t.Error(wrong)
			}
			// The other level must be red, or the level was not looked at.
			other := fettle.Automatic + fettle.Approve - c.level
			if wrong := rehearsed(t, *file, c.policy, other, func(fettle.Incident) {}); !strings.Contains(wrong, c.level.String()) {
				t.Errorf("expecting %s goes through as well: %s", other, wrong)
			}
		})
	}
}

// rehearsed plays the first case of the runbook's tests under a policy, with
// another level expected, and returns what went wrong. look is shown the
// incident as it stands at the end.
func rehearsed(t *testing.T, file runbook.TestFile, policy fettle.Policy, level fettle.Level, look func(fettle.Incident)) string {
	t.Helper()
	first := file.Cases[0]
	first.Checks = slices.Clone(first.Checks)
	last := slices.IndexFunc(first.Checks, func(c runbook.Check) bool { return c.Plan != nil && c.Plan.Level != nil })
	if last < 0 {
		t.Fatalf("the case %q expects no level", first.Name)
	}
	plan := *first.Checks[last].Plan
	plan.Level = &level
	// What the case says of refusals is about the default, and not asked here.
	check := runbook.Check{After: first.Checks[last].After, Line: first.Checks[last].Line, Plan: &plan}
	first.Checks = append(first.Checks[:last:last], check)
	file.Cases, file.Policy = []runbook.Case{first}, policy
	var mind *incident.Mind
	results, err := rehearse.File(&file, func(p fettle.Policy) (*incident.Mind, error) {
		var err error
		mind, err = incident.New(incident.Options{
			Catalogues: control.Catalogues(all.Adapters()), Policy: p,
			Books: func(env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
				return runbook.Load(runbooks.FS(), env, cats)
			},
		})
		return mind, err
	})
	if err != nil {
		t.Fatal(err)
	}
	about := 0
	for _, in := range mind.Incidents() {
		if in.Cause.Code == "etcd.data_lost" && in.Plan != nil {
			about++
			look(in)
		}
	}
	if about != 1 {
		t.Errorf("%d incidents with a plan about the lost data, want 1", about)
	}
	if len(results[0].Wrong) > 0 {
		return results[0].String()
	}
	return ""
}
