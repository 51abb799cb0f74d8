package runbook

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fettle/internal/fettle"
	"fettle/internal/judge/runbook/pretend"
	"fettle/internal/judge/runbook/yamlfile"
)

func TestParseTests(t *testing.T) {
	src, err := os.ReadFile("testdata/good/ring/data_lost_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseTests("data_lost_test.yaml", src, pretend.Catalogues())
	if err != nil {
		t.Fatal(err)
	}
	automatic := fettle.Automatic
	c, host := fettle.Subject("ring-member:r/c"), fettle.Subject("host:h-c")
	lost := []fettle.ConditionKey{{Code: "ring.data_lost", Subject: c}}
	want := &TestFile{
		Runbook: "ring.data_lost", File: "data_lost_test.yaml",
		Policy: fettle.Policy{
			Rules: []fettle.PolicyRule{{Runbook: "*", Rung: "*", Subject: "*", Level: automatic}},
			Rate:  fettle.Rate{PerFleet: 5}, Hash: digest(src),
		},
		Cases: []Case{{
			Name: "data lost", Doc: "The whole story.", Line: 25,
			Arrivals: []Arrival{
				{Observation: fettle.Observation{
					Subject: c, Host: host, Probe: "ring.member",
					Facts: fettle.Facts{"member_id": "id-c", "running": false, "data_ok": false, "lag_ms": int64(0), "peers": []string{"a", "b", "c"}},
					Edges: []fettle.Edge{{From: c, Rel: fettle.PartOf, To: "ring:r"}, {From: c, Rel: fettle.RunsOn, To: host}, {From: host, Rel: fettle.In, To: "rack:1"}},
				}},
				{Observation: fettle.Observation{
					Subject: "ring:r", Host: "host:h-a", Probe: "ring.group",
					Quorum: &fettle.QuorumGroup{Members: []fettle.QuorumMember{
						{Subject: "ring-member:r/a", ID: "id-a", Voter: true, Serving: fettle.Yes, Leader: true},
						{Subject: c, ID: "id-c", Voter: true, Serving: fettle.No},
						{Subject: "ring-member:r/l"},
					}},
					Replicas: &fettle.ReplicaSet{Copies: 3, InSync: 2, Minimum: 2},
				}},
				{After: time.Second, Observation: fettle.Observation{Subject: "ring-member:r/b", Host: "host:h-b", Probe: "ring.member", Gone: true}},
				{After: 2 * time.Second, Observation: fettle.Observation{Subject: "ring-member:r/a", Host: "host:h-a", Probe: "ring.member", Reason: fettle.TimedOut}},
			},
			Checks: []Check{
				{After: 3 * time.Second, Line: 44, NoPlan: "does not apply"},
				{After: 5 * time.Second, Line: 31, Raised: lost, Causes: lost,
					Clear:   []fettle.ConditionKey{{Code: "ring.slow", Subject: c}},
					Unknown: []fettle.ConditionKey{{Code: "ring.no_leader", Subject: "ring:r"}},
					Plan: &WantPlan{Rung: "replace", Level: &automatic, Loses: "everything", Steps: []WantStep{
						{ID: "remove", Action: "ring.remove", Target: c, Host: host, With: fettle.Facts{"id": "id-c"}}, {ID: "aside"},
					}},
					Refused: &WantRefusal{Step: "remove", Invariant: "S2", Why: "serving"}},
			},
		}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestParseTestsReportsAll(t *testing.T) {
	src := `runbook: ring.data_lost
policy: {rate: {per_subject: 0}}
world:
  - {subject: "ring-member:r/c", host: "unit:h/x", probe: ring.member, facts: {runing: true, lag_ms: "5"}}
  - {subject: "ring:r", host: "host:h", probe: ring.member, reason: asleep}
  - {subject: "ring:r", host: "host:h", probe: ring.goup, reason: failed, facts: {size: 1}}
cases:
  - case: one
    expect:
      - {at: 1s}
      - {at: 2s, raised: ["ring.data_lost"], clear: ["ring.dta_lost on ring:r", "ring.slow on nobody"], causes: ["ring.slow on ring:r"]}
      - {at: 3s, no_plan: x, plan: {rung: a, steps: [{id: a, action: ring.remov}]}, refused: {invariant: safety}}
  - case: one
    expect: []
`
	_, err := ParseTests("t_test.yaml", []byte(src), pretend.Catalogues())
	var e *yamlfile.Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	golden(t, "testdata/bad/test_file.txt", e.Error()+"\n")
}
