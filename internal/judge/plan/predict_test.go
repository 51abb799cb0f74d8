package plan

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"fettle/internal/fettle"
	"fettle/internal/judge/runbook/pretend"
)

func step(action string, target fettle.Subject) fettle.Step {
	for _, c := range pretend.Catalogues() {
		if spec, ok := c.FindAction(action); ok {
			return fettle.Step{ID: "s", Action: action, Target: target, Host: "host:h-c", Group: pretend.Group, Effects: spec.Effects}
		}
	}
	panic("no action " + action)
}

func TestPredict(t *testing.T) {
	env := ring(t)
	c := pretend.Name("c")
	add := step("ring.add", c)
	remove := step("ring.remove", c)
	lead := step("ring.lead", pretend.Name("a"))
	lead.Params = fettle.Facts{"to": string(pretend.Name("b"))}
	late := step("ring.lead", pretend.Name("a"))
	late.Late = []fettle.Late{{Param: "to", Step: "before", Output: "who", Type: fettle.StringFact}}
	yield := step("ring.lead", pretend.Name("a"))
	yield.Effects = yield.Effects[:1]
	alone := step("box.start", "unit:h-c/ring.service")
	nobody := step("ring.remove", c)
	nobody.Group = "ring:unseen"

	without := group(t, "aV+*= bV+=")
	for name, tc := range map[string]struct {
		step  fettle.Step
		out   fettle.Facts
		steps map[string]fettle.Facts
		want  []fettle.Prediction
	}{
		"facts and group": {step: remove, want: []fettle.Prediction{
			{Step: "s", Subject: pretend.Group, Facts: fettle.Facts{"size": int64(2)}, Quorum: &without}}},
		"a fact alone": {step: alone, want: []fettle.Prediction{
			{Step: "s", Subject: "unit:h-c/ring.service", Facts: fettle.Facts{"active_state": "active"}}}},
		"who shall lead is a parameter": {step: lead, want: []fettle.Prediction{
			{Step: "s", Subject: pretend.Group, Quorum: ptr(group(t, "aV+= bV+*= cV-!"))}}},
		"who shall lead is not known yet": {step: late, want: []fettle.Prediction{
			{Step: "s", Subject: pretend.Group, Quorum: ptr(group(t, "aV+= bV+= cV-!")), NotLeader: []fettle.Subject{pretend.Name("a")}}}},
		"who shall lead is known by now": {step: late, steps: map[string]fettle.Facts{"before": {"who": string(pretend.Name("b"))}}, want: []fettle.Prediction{
			{Step: "s", Subject: pretend.Group, Quorum: ptr(group(t, "aV+= bV+*= cV-!"))}}},
		"an election": {step: yield, want: []fettle.Prediction{
			{Step: "s", Subject: pretend.Group, Quorum: ptr(group(t, "aV+= bV+= cV-!")), NotLeader: []fettle.Subject{pretend.Name("a")}}}},
		"a group that nobody sees": {step: nobody, want: nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := Predict(lost(), tc.step, tc.out, tc.steps, env)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}

	t.Run("what depends on outputs", func(t *testing.T) {
		_, w, err := Predict(lost(), remove, nil, nil, env)
		if err != nil {
			t.Fatal(err)
		}
		before, view, err := Predict(w, add, nil, nil, env)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range before {
			if _, told := p.Facts["member_id"]; told {
				t.Error("it foretold an id that only the step can give")
			}
		}
		if v, known := view.Facts(c)["member_id"]; known {
			t.Errorf("the old id %v would be taken for the new one", v)
		}
		if v, known := view.FactsBy(c, "ring.member")["member_id"]; known {
			t.Errorf("by its probe the old id %v would be taken for the new one", v)
		}
		if _, known := view.Asked(c, "member_id"); known {
			t.Error("it was asked for before it was changed")
		}
		after, view, err := Predict(w, add, fettle.Facts{"id": "new"}, nil, env)
		if err != nil {
			t.Fatal(err)
		}
		if view.Facts(c)["member_id"] != "new" || after[1].Facts["size"] != int64(3) || after[0].Facts["member_id"] != "new" {
			t.Errorf("%+v", after)
		}
	})

	t.Run("the world is not touched", func(t *testing.T) {
		w := lost()
		before, _ := w.Quorum(pretend.Group, time.Time{})
		if _, _, err := Predict(w, remove, nil, nil, env); err != nil {
			t.Fatal(err)
		}
		after, _ := w.Quorum(pretend.Group, time.Time{})
		if d := cmp.Diff(before, after); d != "" || w.Facts(pretend.Group)["size"] != int64(3) {
			t.Error(d, w.Facts(pretend.Group))
		}
		if late.Params != nil {
			t.Error("the step was changed")
		}
	})
}

func ptr(g fettle.QuorumGroup) *fettle.QuorumGroup { return &g }

func TestPredictErrors(t *testing.T) {
	env := ring(t)
	effect := func(e ...fettle.EffectSpec) fettle.Step {
		return fettle.Step{ID: "s", Target: pretend.Name("c"), Group: pretend.Group, Effects: e}
	}
	noGroup := effect(fettle.EffectSpec{Quorum: fettle.QuorumStop})
	noGroup.Group = ""
	for name, c := range map[string]struct {
		step fettle.Step
		want string
	}{
		"two values":        {effect(fettle.EffectSpec{Fact: "size", To: "1"}, fettle.EffectSpec{On: "target", Fact: "size", To: "2"}), "effect 2: two values are declared for fact size of ring-member:r/c"},
		"on does not parse": {effect(fettle.EffectSpec{On: "((", Fact: "size", To: "1"}), "effect 1: on: "},
		"on is no subject":  {effect(fettle.EffectSpec{On: "'x'", Fact: "size", To: "1"}), `effect 1: on: subject "x"`},
		"to does not parse": {effect(fettle.EffectSpec{Fact: "size", To: "1 +"}), "effect 1: to: "},
		"no group":          {noGroup, "the step names no quorum group"},
		"not a member":      {effect(fettle.EffectSpec{On: "'ring-member:r/z'", Quorum: fettle.QuorumStop}), "stop in ring:r: ring-member:r/z is not a member"},
	} {
		if _, _, err := Predict(lost(), c.step, nil, nil, env); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// Compare finds every field that is not as foretold, and says so in a sentence.
func TestCompare(t *testing.T) {
	since := now.Add(time.Minute)
	predicted := []fettle.Prediction{
		{Step: "s", Subject: pretend.Name("c"), Facts: fettle.Facts{"running": true, "member_id": "id-c", "lag_ms": int64(2), "peers": []string{"a", "b", "c"}}},
		{Step: "s", Subject: pretend.Group, Quorum: ptr(group(t, "aV+* bV+ cV+"))},
	}
	observed := func(c fettle.Facts, g string) []fettle.Observation {
		q := group(t, g)
		return []fettle.Observation{
			{Subject: pretend.Name("c"), Host: "host:h-c", Probe: "ring.member", Asked: since, Facts: c},
			{Subject: pretend.Group, Host: "host:h-a", Probe: "ring.group", Asked: since, Quorum: &q},
		}
	}
	asForetold := fettle.Facts{"running": true, "member_id": "id-c", "lag_ms": int64(2), "peers": []string{"a", "b", "c"}}
	for name, c := range map[string]struct {
		predicted []fettle.Prediction
		seen      []fettle.Observation
		want      []string
	}{
		"as foretold": {predicted, observed(asForetold, "aV+* bV+ cV+"), nil},
		"nothing seen since": {predicted, nil, []string{
			"ring-member:r/c lag_ms: predicted 2, not observed yet",
			`ring-member:r/c member_id: predicted "id-c", not observed yet`,
			"ring-member:r/c peers: predicted [a, b, c], not observed yet",
			"ring-member:r/c running: predicted yes, not observed yet",
			"ring:r members: predicted 3, not observed yet",
		}},
		"every fact is another": {predicted, observed(fettle.Facts{"running": false, "member_id": "2", "lag_ms": int64(3), "peers": []string{"a"}}, "aV+* bV+ cV+"), []string{
			"ring-member:r/c lag_ms: predicted 2, observed 3",
			`ring-member:r/c member_id: predicted "id-c", observed "2"`,
			"ring-member:r/c peers: predicted [a, b, c], observed [a]",
			"ring-member:r/c running: predicted yes, observed no",
		}},
		"a fact is gone": {predicted[:1], observed(fettle.Facts{"running": true, "member_id": "id-c", "lag_ms": int64(2)}, "aV+* bV+ cV+"), []string{
			"ring-member:r/c peers: predicted [a, b, c], not observed yet",
		}},
		"serving":              {predicted[1:], observed(nil, "aV+* bV+ cV-"), []string{"ring-member:r/c serving: predicted yes, observed no"}},
		"serving unknown":      {predicted[1:], observed(nil, "aV+* bV+ cV?"), []string{"ring-member:r/c serving: predicted yes, not known yet"}},
		"no vote":              {predicted[1:], observed(nil, "aV+* bV+ cL+"), []string{"ring-member:r/c vote: predicted yes, observed no"}},
		"another identity":     {predicted[1:], observed(nil, "aV+* bV+ cV+~"), []string{"ring-member:r/c id: predicted id-c, observed "}},
		"missing":              {predicted[1:], observed(nil, "aV+* bV+"), []string{"ring-member:r/c membership: predicted a member, observed none"}},
		"one too many":         {predicted[1:], observed(nil, "aV+* bV+ cV+ dL?"), []string{"ring-member:r/d membership: predicted none, observed a member"}},
		"another leads":        {predicted[1:], observed(nil, "aV+ bV+* cV+"), []string{"ring-member:r/a leader: predicted yes, observed no", "ring-member:r/b leader: predicted no, observed yes"}},
		"nobody leads":         {predicted[1:], observed(nil, "aV+ bV+ cV+"), []string{"ring-member:r/a leader: predicted yes, observed no"}},
		"an election":          {one(group(t, "aV+ bV+ cV+"), "a"), observed(nil, "aV+ bV+* cV+"), nil},
		"it did not yield":     {one(group(t, "aV+ bV+ cV+"), "a"), observed(nil, "aV+* bV+ cV+"), []string{"ring-member:r/a leader: predicted no, observed yes"}},
		"not foretold":         {one(group(t, "aV? bV+~ cL?")), observed(nil, "aV- bV+ cL+"), nil},
		"log lost":             {one(group(t, "aV+=")), observed(nil, "aV+!"), []string{"ring-member:r/a log_lost: predicted no, observed yes"}},
		"log not seen":         {one(group(t, "aV+=")), observed(nil, "aV+"), nil},
		"nothing was foretold": {nil, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := lost()
			for _, o := range c.seen {
				w.Observe(o)
			}
			var got []string
			for _, d := range Compare(c.predicted, w, since) {
				got = append(got, d.Text)
				if d.String() != d.Text || d.Step != "s" || d.Subject == "" || d.Field == "" {
					t.Errorf("%+v", d)
				}
				if unseen := strings.HasSuffix(d.Text, "yet"); unseen != d.Unseen {
					t.Errorf("unseen %v: %s", d.Unseen, d.Text)
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func one(g fettle.QuorumGroup, notLeader ...string) []fettle.Prediction {
	p := fettle.Prediction{Step: "s", Subject: pretend.Group, Quorum: &g}
	for _, n := range notLeader {
		p.NotLeader = append(p.NotLeader, pretend.Name(n))
	}
	return []fettle.Prediction{p}
}

// What is predicted and then observed exactly so differs in nothing.
func TestCompareFindsNothingWhereAllIsAsForetold(t *testing.T) {
	env := ring(t)
	rapid.Check(t, func(rt *rapid.T) {
		g := anyGroup(rt)
		w := lost(func(o *fettle.Observation) {
			if o.Quorum != nil {
				o.Quorum = &g
			}
		})
		s := step(rapid.SampledFrom([]string{"ring.stop", "ring.start", "ring.remove", "ring.promote", "ring.lead"}).Draw(rt, "action"), rapid.SampledFrom(g.Members).Draw(rt, "on").Subject)
		predicted, _, err := Predict(w, s, nil, nil, env)
		if err != nil {
			rt.Fatal(err)
		}
		later := now.Add(time.Second)
		for _, p := range predicted {
			w.Observe(fettle.Observation{Subject: p.Subject, Host: "host:h", Probe: "any", Asked: later, Facts: p.Facts, Quorum: p.Quorum})
		}
		if got := Compare(predicted, w.Since(later), later); len(got) > 0 {
			rt.Fatal(got)
		}
	})
}
