package executor_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/warrant"
	"fettle/internal/judge/plan"
)

// planned is a plan of two steps, the second of which waits for what the first gives.
func planned() fettle.Plan {
	step := func(id string) fettle.Step {
		return fettle.Step{ID: id, Action: smash, Version: 1, Target: "lamp:h1/hall", Host: "host:h1", Risk: fettle.MediumRisk}
	}
	p := fettle.Plan{Schema: 1, Incident: "tap5fdsz", Runbook: "r", Rung: "g", Steps: []fettle.Step{step("one"), step("two")}}
	p.Steps[1].Late = []fettle.Late{{Param: "with", Step: "one", Output: "tool", Type: fettle.StringFact}}
	p.Hash = plan.Hash(p)
	return p
}

// approvedBy is a dispatch of a step of a plan with a person's approval of it.
func (h *host) approvedBy(by *pki.Identity, key string, p fettle.Plan, step int, change func(*warrant.Approval)) fettle.Dispatch {
	h.t.Helper()
	now := h.clock.Wall().Truncate(time.Second)
	a := warrant.Approval{Fleet: h.ca.Fleet(), Incident: p.Incident, Plan: p.Hash, At: now, Until: now.Add(time.Hour), Finish: now.Add(2 * time.Hour)}
	if change != nil {
		change(&a)
	}
	s, err := warrant.SignApproval(a, by)
	if err != nil {
		h.t.Fatal(err)
	}
	d := h.dispatch(key, smash)
	d.Plan, d.Step = p.Hash, p.Steps[step]
	if step == 1 {
		d.Step.Params, d.Step.Late = fettle.Facts{"with": "hammer"}, nil
	}
	d.Approval = &fettle.Approval{Plan: plan.Text(p), Note: s.Note, Certificate: s.Certificate}
	return d
}

// What needs a person is done with that person's approval of this very plan, and with
// nothing else, whatever the server says.
func TestApproved(t *testing.T) {
	f, other := newFleet(t), newFleet(t)
	for name, c := range map[string]struct {
		make func(h *host) fettle.Dispatch
		says string // "": it is done
	}{
		"as it was approved":                          {func(h *host) fettle.Dispatch { return h.approvedBy(f.approver, "k", planned(), 0, nil) }, ""},
		"a later step, with what an earlier one gave": {func(h *host) fettle.Dispatch { return h.approvedBy(f.approver, "k", planned(), 1, nil) }, ""},
		"by somebody of another fleet": {func(h *host) fettle.Dispatch {
			return h.approvedBy(other.approver, "k", planned(), 0, func(a *warrant.Approval) { a.Fleet = other.ca.Fleet() })
		}, "not of this fleet"},
		"by an operator": {func(h *host) fettle.Dispatch {
			d := h.approvedBy(f.approver, "k", planned(), 0, nil)
			d.Approval.Certificate = f.operator.Certificate()
			return d
		}, "the role approver must sign"},
		"by the server itself": {func(h *host) fettle.Dispatch {
			d := h.approvedBy(f.approver, "k", planned(), 0, nil)
			d.Approval.Certificate = f.server.Certificate()
			return d
		}, "the role approver must sign"},
		"of another plan": {func(h *host) fettle.Dispatch {
			p := planned()
			p.Rung = "another"
			p.Hash = plan.Hash(p)
			d := h.approvedBy(f.approver, "k", p, 0, nil)
			d.Plan = planned().Hash
			return d
		}, "what h1 approved is plan"},
		"with another plan under its hash": {func(h *host) fettle.Dispatch {
			d := h.approvedBy(f.approver, "k", planned(), 0, nil)
			p := planned()
			p.Steps[0].Target = "lamp:h1/every"
			d.Approval.Plan, d.Step = plan.Text(p), p.Steps[0]
			return d
		}, "not the one that was approved"},
		"a step that is not in it": {func(h *host) fettle.Dispatch {
			d := h.approvedBy(f.approver, "k", planned(), 0, nil)
			d.Step.ID = "three"
			return d
		}, "has no step"},
		"a step with another target": {func(h *host) fettle.Dispatch {
			d := h.approvedBy(f.approver, "k", planned(), 0, nil)
			d.Step.Target = "lamp:h1/every"
			return d
		}, "as it was approved"},
		"a step with a parameter more": {func(h *host) fettle.Dispatch {
			d := h.approvedBy(f.approver, "k", planned(), 0, nil)
			d.Step.Params = fettle.Facts{"with": "bomb"}
			return d
		}, "as it was approved"},
		"for another incident": {func(h *host) fettle.Dispatch {
			d := h.approvedBy(f.approver, "k", planned(), 0, nil)
			d.Incident = "other"
			return d
		}, "approved it for incident"},
		"over before it began": {func(h *host) fettle.Dispatch {
			d := h.approvedBy(f.approver, "k", planned(), 0, nil)
			h.clock.pass(0, 61*time.Minute)
			return d
		}, "before the plan began"},
		"over altogether": {func(h *host) fettle.Dispatch {
			d := h.approvedBy(f.approver, "k", planned(), 1, nil)
			h.clock.pass(0, 121*time.Minute)
			return d
		}, "ended at"},
		"an undo of what was never begun here": {func(h *host) fettle.Dispatch {
			d := h.dispatch("k", smash)
			d.Undo = true
			return d
		}, "only with a person's signed approval"},
	} {
		t.Run(name, func(t *testing.T) {
			h := f.host(t.TempDir())
			out := h.do(h.ex, h.order(c.make(h)))
			if c.says == "" {
				if out.Fate != fettle.Done || out.Error != "" || h.lamp.count() != 1 {
					t.Errorf("%+v", out)
				}
				return
			}
			if out.Class != fettle.Refused || !strings.Contains(out.Error, c.says) || h.lamp.count() != 0 {
				t.Errorf("%+v, want a refusal that says %q", out, c.says)
			}
		})
	}
}

// A plan that began in time is finished, and what it did can be taken back, also after
// a restart, and by whom no approval is shown.
func TestApprovedGoesOn(t *testing.T) {
	f := newFleet(t)
	h := f.host(t.TempDir())
	first := h.approvedBy(f.approver, "k1", planned(), 0, nil)
	second := h.approvedBy(f.approver, "k2", planned(), 1, nil)
	if out := h.do(h.ex, h.order(first)); out.Fate != fettle.Done {
		t.Fatalf("%+v", out)
	}
	h.clock.pass(0, 90*time.Minute)
	if out := h.do(h.ex, h.order(second)); out.Fate != fettle.Done {
		t.Errorf("the second step: %+v", out)
	}
	again := h.approvedBy(f.approver, "k1-again", planned(), 0, nil)
	if out := h.do(h.ex, h.order(again)); out.Class != fettle.Refused || !strings.Contains(out.Error, "already") {
		t.Errorf("the first step once more: %+v", out)
	}
	h.stop()
	h = f.host(h.dir)
	again.Key, again.Incarnation = "k1-again-and-again", h.dispatch("k", smash).Incarnation
	if out := h.do(h.ex, h.order(again)); out.Class != fettle.Refused || !strings.Contains(out.Error, "already") {
		t.Errorf("and after a restart: %+v", out)
	}
	h.clock.pass(0, 500*time.Minute)
	undo := first
	undo.Key, undo.Undo, undo.Approval, undo.Incarnation = "k3.undo", true, nil, h.dispatch("k", smash).Incarnation
	if out := h.do(h.ex, h.order(undo)); out.Fate != fettle.Done || h.lamp.done[0] != "undo k3.undo" {
		t.Errorf("taking back: %+v, %v", out, h.lamp.done)
	}
}

// A plan comes back from JSON as it was: else no approval would hold.
func TestPlanKeepsItsHash(t *testing.T) {
	p := planned()
	p.Steps[0].Params = fettle.Facts{"n": int64(1 << 60), "l": []string{}, "b": true, "s": "a<b>&"}
	p.Steps[0].Generations = []fettle.Generation{{Subject: "lamp:h1/hall", Fact: "id", Value: int64(7)}}
	p.Hash = plan.Hash(p)
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var back fettle.Plan
	if err := json.Unmarshal(data, &back); err != nil || plan.Hash(back) != p.Hash || warrant.HashOf(plan.Text(back)) != p.Hash {
		t.Errorf("%.12s became %.12s, %v", p.Hash, plan.Hash(back), err)
	}
}

func TestRules(t *testing.T) {
	const gives, takes = light, smash
	for _, c := range []struct {
		text                 string
		gives, takes, unsaid string
	}{
		{"", "free", "asks", "free"},
		{"never: [lamp.smash]", "free", "no", "free"},
		{"approved: [\"lamp.*\"]", "asks", "asks", "free"},
		{"allow: [lamp.smash]", "no", "free", "no"},
		{"allow: [\"*\"]", "free", "free", "free"},
		{"allow: [lamp.light]\napproved: [lamp.smash]", "free", "asks", "no"},
		{"allow: [\"*\"]\napproved: [lamp.smash]\nnever: [lamp.light]", "no", "asks", "free"},
	} {
		var r executor.Rules
		if c.text != "" {
			var err error
			if r, err = executor.ParseRules("actions.yaml", []byte(c.text+"\n")); err != nil {
				t.Fatal(c.text, err)
			}
		}
		for action, want := range map[string]string{gives: c.gives, takes: c.takes, "other.give": c.unsaid} {
			spec := fettle.ActionSpec{Name: action, Risk: fettle.LowRisk}
			if action == takes {
				spec.Risk, spec.Takes = fettle.MediumRisk, []fettle.Taking{fettle.TakesCapacity}
			}
			got := "free"
			switch {
			case !r.Allows(action):
				got = "no"
			case r.NeedsPerson(spec):
				got = "asks"
			}
			if got != want {
				t.Errorf("%q: %s is %s, want %s", c.text, action, got, want)
			}
		}
	}
	for _, bad := range []string{"allow: 3\n", "allow: [\"[\"]\n", "alow: [a]\n", "\t", "allow: [\"\"]\n"} {
		if r, err := executor.ParseRules("actions.yaml", []byte(bad)); err == nil || r.Allows(light) {
			t.Errorf("%q was taken", bad)
		}
	}
}

// What an administrator writes holds from the next order on.
func TestRulesAreReadAnew(t *testing.T) {
	var file string
	h := newFleet(t).host(t.TempDir(), func(o *executor.Options) { file = o.ActionsFile })
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("never: [lamp.light]\n")
	if out := h.do(h.ex, h.order(h.dispatch("k1", light))); out.Class != fettle.Refused {
		t.Errorf("%+v", out)
	}
	write("allow: [lamp.light, lamp.smash]\n")
	for key, action := range map[string]string{"k2": light, "k3": smash} {
		if out := h.do(h.ex, h.order(h.dispatch(key, action))); out.Fate != fettle.Done {
			t.Errorf("%s: %+v", action, out)
		}
	}
	if g, err := h.ex.Greet(t.Context()); err != nil || len(g.Able) != 2 {
		t.Errorf("%+v, %v", g, err)
	}
}

func FuzzRules(f *testing.F) {
	f.Add([]byte("allow: [\"systemd.*\"]\napproved: [\"etcd.member_*\"]\nnever: [\"filesystem.vacuum\"]\n"))
	f.Add([]byte("allow: {a: b}\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		if r, err := executor.ParseRules("f", src); err != nil && r.Allows(light) {
			t.Errorf("rules of no use allow: %q", src)
		}
	})
}
