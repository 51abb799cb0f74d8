package runbook

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fettle/internal/fettle"
	"fettle/internal/judge/runbook/yamlfile"
)

func TestParsePolicy(t *testing.T) {
	src, err := os.ReadFile("testdata/policy/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParsePolicy("full.yaml", src)
	if err != nil {
		t.Fatal(err)
	}
	want := fettle.Policy{
		Rules: []fettle.PolicyRule{
			{Runbook: "*", Rung: "*", Subject: "*", Level: fettle.Suggest},
			{Runbook: "ring.*", Rung: "[a-r]*", Subject: "ring-member:r/?", Level: fettle.Automatic},
			{Runbook: "ring.data_lost", Rung: "wipe", Subject: "*", Level: fettle.Observe},
		},
		Budgets: []fettle.Budget{
			{Kind: "ring-member", Pool: ">part-of", MaxNumber: 1, MaxPermille: 340, Floor: 1, MinStay: 2},
			{Kind: "host", Pool: ">in", MaxNumber: 5, MaxPermille: 50},
		},
		Permits: []fettle.Grant{
			{Action: "ring.start", Subject: "ring-member:*", Hosts: "db*", PerSubject: 2, PerHost: 4, Window: 30 * time.Minute},
			{Action: "*.start", Subject: "unit:*", Hosts: "*", PerSubject: 3, PerHost: 10, Window: time.Hour},
		},
		PermitLife: 12 * time.Hour,
		Rate:       fettle.Rate{PerSubject: 3, PerFleet: 20, Window: time.Hour},
		Hash:       digest(src),
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestParsePolicyReportsAll(t *testing.T) {
	src := `autonomy:
  - {runbook: "[", rung: "", subject: "*", level: autoamtic}
  - {runbook: a}
budgets:
  - {kind: Host, pool: "in", max_number: -1, max_permille: 2000}
  - {kind: host, pool: ">in", max_number: 1, max_permille: 10}
  - {kind: host, pool: ">in", max_number: 1, max_permille: 10}
rate: {per_subject: 0, window: 0s, per_day: 1}
permits:
  - {action: "[", per_host: 0, window: 200h}
permit_life: 1s
`
	_, err := ParsePolicy("p.yaml", []byte(src))
	var e *yamlfile.Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	golden(t, "testdata/policy/bad.txt", e.Error()+"\n")
}

func TestBudgets(t *testing.T) {
	if d := cmp.Diff(DefaultBudgets(), Budgets(fettle.Policy{})); d != "" {
		t.Error("the zero policy:", d)
	}
	own := fettle.Budget{Kind: fettle.KindHost, Pool: ">in", MaxNumber: 9, MaxPermille: 900}
	got := Budgets(fettle.Policy{Budgets: []fettle.Budget{own}})
	if got[0] != own || len(got) != len(DefaultBudgets()) {
		t.Errorf("the policy's own must take the place of the default: %+v", got)
	}
	for _, b := range DefaultBudgets() {
		if _, err := b.Pool.Hops(); err != nil || b.MaxNumber < 1 || b.MaxPermille < 1 || b.Floor < 1 {
			t.Errorf("a default budget that never allows anything: %+v %v", b, err)
		}
	}
}

// plain is a plan that is automatic by default.
func plain() fettle.Plan {
	return fettle.Plan{
		Runbook: "ring.member_down", Rung: "start", ProvedBy: "TestLab", Risk: fettle.LowRisk,
		Steps: []fettle.Step{{ID: "start", Target: "unit:h1/ring.service", Host: "host:h1", Undo: true, Risk: fettle.LowRisk}},
	}
}

func TestDefaultLevel(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*fettle.Plan)
		want   fettle.Level
		why    string
	}{
		"only gives":            {func(*fettle.Plan) {}, fettle.Automatic, "TestLab proved it"},
		"takes votes":           {func(p *fettle.Plan) { p.Takes = []fettle.Taking{fettle.TakesVotes} }, fettle.Approve, "takes votes"},
		"takes replicas":        {func(p *fettle.Plan) { p.Takes = []fettle.Taking{fettle.TakesReplicas} }, fettle.Approve, "takes replicas"},
		"takes capacity":        {func(p *fettle.Plan) { p.Takes = []fettle.Taking{fettle.TakesCapacity} }, fettle.Approve, "takes capacity"},
		"takes reachability":    {func(p *fettle.Plan) { p.Takes = []fettle.Taking{fettle.TakesReachability} }, fettle.Approve, "takes reachability"},
		"sets data aside":       {func(p *fettle.Plan) { p.Takes = []fettle.Taking{fettle.TakesData} }, fettle.Approve, "sets data aside"},
		"drops history":         {func(p *fettle.Plan) { p.Takes = []fettle.Taking{fettle.TakesHistory} }, fettle.Approve, "drops history"},
		"medium risk":           {func(p *fettle.Plan) { p.Risk = fettle.MediumRisk }, fettle.Approve, "its risk is medium"},
		"risk not stated":       {func(p *fettle.Plan) { p.Risk = "" }, fettle.Approve, "its risk is not stated"},
		"not proven":            {func(p *fettle.Plan) { p.ProvedBy = "" }, fettle.Approve, "no lab test"},
		"loses":                 {func(p *fettle.Plan) { p.Loses = "the last hour." }, fettle.Approve, "lose for good: the last hour."},
		"forward-only, gives":   {func(p *fettle.Plan) { p.Steps[0].Undo = false }, fettle.Automatic, "proved it"},
		"forward-only, medium":  {func(p *fettle.Plan) { p.Steps[0].Undo, p.Steps[0].Risk = false, fettle.MediumRisk }, fettle.Approve, "cannot be undone"},
		"forward-only, takes":   {func(p *fettle.Plan) { p.Steps[0].Undo, p.Steps[0].Takes = false, []fettle.Taking{fettle.TakesCapacity} }, fettle.Approve, "cannot be undone"},
		"forward-only, high":    {func(p *fettle.Plan) { p.Steps[0].Undo, p.Steps[0].Risk = false, fettle.HighRisk }, fettle.Approve, "high risk"},
		"forward-only, unknown": {func(p *fettle.Plan) { p.Steps[0].Undo, p.Steps[0].Risk = false, "" }, fettle.Approve, "high risk"},
		"two hosts": {func(p *fettle.Plan) {
			p.Steps = append(p.Steps, fettle.Step{ID: "b", Target: "unit:h2/x", Host: "host:h2", Undo: true, Risk: fettle.LowRisk})
		}, fettle.Approve, "2 hosts (host:h1, host:h2)"},
	} {
		t.Run(name, func(t *testing.T) {
			p := plain()
			c.change(&p)
			level, why := Level(fettle.Policy{}, p, Reversible(p))
			if level != c.want || !strings.Contains(why, c.why) {
				t.Errorf("got %s: %s; want %s with %q in it", level, why, c.want, c.why)
			}
			if !strings.HasSuffix(why, ".") {
				t.Errorf("not a sentence: %q", why)
			}
		})
	}
	if level, why := DefaultLevel(plain(), false); level != fettle.Approve {
		t.Errorf("whose caller knows of what no undo brings back: %s, %s", level, why)
	}
}

func TestLevelByRules(t *testing.T) {
	rule := func(runbook, rung, subject string, l fettle.Level) fettle.PolicyRule {
		return fettle.PolicyRule{Runbook: runbook, Rung: rung, Subject: subject, Level: l}
	}
	taking := plain()
	taking.Takes = []fettle.Taking{fettle.TakesVotes}
	two := plain()
	two.Steps = append(two.Steps, fettle.Step{ID: "b", Target: "ring-member:r/a", Host: "host:h1", Undo: true, Risk: fettle.LowRisk})
	high := plain()
	high.Steps[0].Undo, high.Steps[0].Risk = false, fettle.HighRisk
	loses := plain()
	loses.Loses = "something"
	unproven := plain()
	unproven.ProvedBy = ""
	any := rule("*", "*", "*", fettle.Automatic)
	for name, c := range map[string]struct {
		plan  fettle.Plan
		rules []fettle.PolicyRule
		want  fettle.Level
		why   string
	}{
		"a rule allows what the default asks for": {taking, []fettle.PolicyRule{any}, fettle.Automatic, "Rule 1"},
		"the last match decides":                  {taking, []fettle.PolicyRule{any, rule("ring.*", "start", "unit:*", fettle.Suggest), rule("disk.*", "*", "*", fettle.Automatic)}, fettle.Suggest, "Rule 2"},
		"a rule can forbid":                       {plain(), []fettle.PolicyRule{rule("*", "*", "*", fettle.Observe)}, fettle.Observe, "says observe"},
		"no match: the default":                   {plain(), []fettle.PolicyRule{rule("disk.*", "*", "*", fettle.Observe)}, fettle.Automatic, "No rule of the policy matches unit:h1/ring.service."},
		"an empty pattern matches nothing":        {plain(), []fettle.PolicyRule{rule("*", "*", "", fettle.Observe)}, fettle.Automatic, "No rule"},
		"a slash is an ordinary character":        {taking, []fettle.PolicyRule{rule("*", "*", "unit:*service", fettle.Automatic)}, fettle.Automatic, "Rule 1"},
		"each target is judged":                   {two, []fettle.PolicyRule{any, rule("*", "*", "ring-member:*", fettle.Shadow)}, fettle.Shadow, "ring-member:r/a"},
		"a malformed pattern permits nothing":     {plain(), []fettle.PolicyRule{rule("[", "*", "*", fettle.Automatic)}, fettle.Observe, "malformed"},
		"high risk without undo always asks":      {high, []fettle.PolicyRule{any}, fettle.Approve, "whatever the policy says"},
		"a loss always asks":                      {loses, []fettle.PolicyRule{any}, fettle.Approve, "whatever the policy says"},
		"what no lab proved always asks":          {unproven, []fettle.PolicyRule{any}, fettle.Approve, "whatever the policy says"},
		"and may be kept from asking":             {loses, []fettle.PolicyRule{rule("*", "*", "*", fettle.Shadow)}, fettle.Shadow, "says shadow"},
	} {
		t.Run(name, func(t *testing.T) {
			level, why := Level(fettle.Policy{Rules: c.rules}, c.plan, Reversible(c.plan))
			if level != c.want || !strings.Contains(why, c.why) {
				t.Errorf("got %s: %s; want %s with %q in it", level, why, c.want, c.why)
			}
		})
	}
}

func FuzzParsePolicy(f *testing.F) {
	full, err := os.ReadFile("testdata/policy/full.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	f.Add([]byte("autonomy: [{runbook: '[', rung: a, subject: b, level: c}]\n"))
	f.Add([]byte("rate: {window: 0}\nbudgets: [{pool: x}]\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		p, err := ParsePolicy("p.yaml", src)
		placed(t, err)
		if err != nil {
			return
		}
		if level, why := Level(p, plain(), true); why == "" || level < fettle.Observe || level > fettle.Automatic {
			t.Fatalf("%d %q", level, why)
		}
	})
}
