package incident_test

import (
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
)

// bmcCatalogue sketches an adapter for boards that switch a machine's power: out of
// band, slow, and without a way back. It is spoken to by one other machine, its
// holder.
func bmcCatalogue() fettle.Catalogue {
	return fettle.Catalogue{
		Adapter: "bmc", Doc: "A sketch.", Versions: "IPMI 2.0",
		Kinds: []fettle.KindSpec{{Kind: "bmc", Doc: "its machine's host identity"}},
		Probes: []fettle.ProbeSpec{{
			Name: "bmc.chassis", Kind: "bmc", Interval: 10 * time.Second, Timeout: 20 * time.Second, Doc: "Chassis status.",
			Facts: []fettle.FactSpec{{Name: "power", Type: fettle.BoolFact, Doc: "its machine has power"}},
		}},
		Conditions: []fettle.ConditionSpec{{
			Code: "bmc.power_off", Title: "the power is off", Kind: "bmc", Layer: fettle.Hardware, Severity: fettle.Critical, Scope: fettle.HostScope,
			Probe: "bmc.chassis", Raise: "!self.power", Expiry: time.Minute, Doc: "A sketch.",
		}},
		Actions: []fettle.ActionSpec{{
			Name: "bmc.power_on", Version: 1, Target: "bmc", Risk: fettle.MediumRisk, Scope: fettle.ClusterScope, Timeout: 2 * time.Minute,
			Effects: []fettle.EffectSpec{{Fact: "power", To: "true"}}, NoUndo: "power that is taken away again is a crash", Doc: "A sketch.",
		}},
	}
}

const bmcRunbook = `runbook: bmc.power_off
for: bmc.power_off
doc: A sketch.
rungs:
  - rung: on
    doc: Power on, by whoever holds the board.
    proved_by: TestSketch
    steps:
      - id: "on"
        action: bmc.power_on
        target: ${cause}
        host: ${one(cause, '>runs-on')}
        fresh: 30s
        expect: fact(target, 'power')
        within: 1m
        forward_only: power that is taken away again is a crash
`

// The words carry an adapter that is as unlike services and filesystems as can be:
// who acts is not who is ill, what is done cannot be taken back and so asks, and an
// answer that was lost on the slow way is asked for and never repeated.
func TestSketch(t *testing.T) {
	const board, holder = fettle.Subject("bmc:h7"), fettle.Subject("host:h1")
	m, err := incident.New(incident.Options{
		Catalogues: []fettle.Catalogue{bmcCatalogue()},
		Books: func(env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
			return runbook.Load(fstest.MapFS{"bmc/power_off.yaml": {Data: []byte(bmcRunbook)}}, env, cats)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	off := fettle.Observation{
		Subject: board, Host: holder, Probe: "bmc.chassis", Facts: fettle.Facts{"power": false},
		Edges: []fettle.Edge{{From: board, Rel: fettle.RunsOn, To: holder}, {From: "host:h7", Rel: fettle.Uses, To: board}},
	}
	d := &doing{lone: &lone{t: t, Mind: m, sees: []fettle.Observation{off}}}
	d.take(0, incident.Input{Observations: d.seen(0)})
	in := d.only()
	if in.State != fettle.Proposed || in.Plan == nil || len(d.intents) != 0 {
		t.Fatalf("it is %s (%s):%s", in.State, in.Why, d.story(in))
	}
	if s := in.Plan.Steps[0]; s.Host != holder || s.Target != board {
		t.Errorf("%s acts on %s", s.Host, s.Target)
	}
	d.take(time.Second, incident.Input{Answer: &incident.Answer{Incident: in.ID, Say: incident.SayApprove, By: "anna", Plan: in.Plan.Hash, Until: start.Add(time.Minute)}})
	if len(d.intents) != 1 {
		t.Fatalf("approved, and intended: %+v:%s", d.intents, d.story(d.only()))
	}
	var asked []string
	for at := 2 * time.Second; at < 30*time.Minute; at += time.Second {
		for _, dec := range m.Take(incident.Input{At: start.Add(at), Observations: d.seen(at)}) {
			switch dec.Kind {
			case incident.Intend:
				t.Fatalf("after %v it was done again:%s", at, d.story(d.only()))
			case incident.Recover:
				asked = append(asked, dec.Key)
				m.Take(incident.Input{At: start.Add(at), Outcome: &fettle.Outcome{Schema: 1, Key: dec.Key, Fate: fettle.UnknownFate}})
			case incident.Gather, incident.Look, incident.Save, incident.Call:
			}
		}
	}
	if slices.Sort(asked); len(slices.Compact(slices.Clone(asked))) != 1 || asked[0] != d.intents[0].Key {
		t.Errorf("asked what became of %v, want only of %s, again and again", asked, d.intents[0].Key)
	}
}
