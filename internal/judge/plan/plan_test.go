package plan

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/runbook"
	"fettle/internal/judge/runbook/pretend"
	"fettle/internal/judge/world"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// now is when everything in these tests is observed.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ring(t testing.TB) *expr.Env {
	t.Helper()
	env, err := expr.New(pretend.Catalogues())
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// lost is the world in which member c is down and its data is gone.
func lost(change ...func(*fettle.Observation)) *world.World {
	w := world.New()
	for _, o := range pretend.Observations(now) {
		for _, c := range change {
			c(&o)
		}
		w.Observe(o)
	}
	return w
}

func file(t testing.TB, name string) *runbook.Runbook {
	t.Helper()
	src, err := os.ReadFile("../runbook/testdata/good/ring/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(src))
}

func parse(t testing.TB, src string) *runbook.Runbook {
	t.Helper()
	b, err := runbook.Parse("test.yaml", []byte(src), ring(t), pretend.Catalogues())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func input(b *runbook.Runbook, v world.View, rung int) Input {
	return Input{
		Incident: "inc-1", Cause: fettle.ConditionKey{Code: b.For, Subject: pretend.Name("c")}, Book: b, Rung: rung, Attempt: 2,
		Pins: fettle.Pins{Judge: "j", Catalogue: "c", Runbooks: "r", Policy: "p"}, View: v, Now: now, Catalogues: pretend.Catalogues(),
	}
}

func golden(t *testing.T, name string, v any) {
	t.Helper()
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	file := "testdata/" + name + ".json"
	if *update {
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; write it with: go test ./internal/judge/plan -update", err)
	}
	if d := cmp.Diff(string(want), string(text)); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}

// The plans that come of the made-up ring, whole.
func TestMakeGolden(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		rung int
	}{
		"replace": {"data_lost.yaml", 0},
		"wipe":    {"data_lost.yaml", 1},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Make(input(file(t, c.file), lost(), c.rung))
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, p)
		})
	}
	t.Run("start", func(t *testing.T) {
		w := lost(func(o *fettle.Observation) {
			if o.Subject == pretend.Name("c") {
				o.Facts["data_ok"] = true
			}
		})
		p, err := Make(input(file(t, "member_down.yaml"), w, 0))
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "start", p)
	})
}

// A plan can be stored and read back, and is then still what was approved.
func TestPlanSurvivesJSON(t *testing.T) {
	b := parse(t, head+`
rungs: [{rung: a, steps: [{id: n, action: ring.note, target: "${cause}", pin: [member_id, running, lag_ms, peers],
  with: {text: a, count: -3, loud: true, tags: [x, "${cause}"]}}]}]`)
	p, err := Make(input(b, lost(), 0))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var back fettle.Plan
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(p, back); d != "" {
		t.Error(d)
	}
	if Hash(back) != p.Hash || p.Hash == "" {
		t.Errorf("hash %q, after reading it back %q", p.Hash, Hash(back))
	}
}

const head = `
runbook: ring.test
for: ring.data_lost
doc: a test
`

// Where the world does not fit, the answer says what is missing, and where.
func TestNotApplicable(t *testing.T) {
	for name, c := range map[string]struct {
		book   string
		change func(*fettle.Observation)
		step   string
		why    string
	}{
		"when is false": {
			book: "rungs: [{rung: a, when: \"fact(cause, 'data_ok')\", steps: [{id: n, action: ring.note, target: \"${cause}\"}]}]",
			why:  "it does not apply: fact(cause, 'data_ok') is false",
		},
		"when is unknown": {
			book:   "rungs: [{rung: a, when: \"fact(cause, 'lag_ms') > 5\", steps: [{id: n, action: ring.note, target: \"${cause}\"}]}]",
			change: without("lag_ms"),
			why:    `it is not known whether it applies: fact(cause, 'lag_ms') > 5: fact "lag_ms" of ring-member:r/c is not known`,
		},
		"when reads a variable that is unknown": {
			book:   "vars: {lag: \"fact(cause, 'lag_ms')\"}\nrungs: [{rung: a, when: vars.lag > 5, steps: [{id: n, action: ring.note, target: \"${cause}\"}]}]",
			change: without("lag_ms"),
			why:    `it is not known whether it applies: vars.lag > 5: variable lag: fact "lag_ms" of ring-member:r/c is not known`,
		},
		"target is unknown": {
			book: "rungs: [{rung: a, steps: [{id: n, action: ring.note, target: \"${one(cause, '>in')}\"}]}]",
			step: "n", why: "target is not known: ",
		},
		"target of another kind": {
			book: "rungs: [{rung: a, steps: [{id: n, action: ring.note, target: \"${one(cause, '>uses')}\"}]}]",
			step: "n", why: "target must be a ring-member, and unit:h-c/ring.service is not",
		},
		"target is no subject": {
			book: "rungs: [{rung: a, steps: [{id: n, action: ring.note, target: \"${fact(cause, 'member_id')}\"}]}]",
			step: "n", why: `target: subject "id-c": want kind:segment`,
		},
		"acting host is unknown": {
			book:   "rungs: [{rung: a, steps: [{id: n, action: ring.note, target: \"${cause}\"}]}]",
			change: func(o *fettle.Observation) { o.Edges = nil },
			step:   "n", why: "the acting host is not known: ring-member:r/c is seen to run on 0 subjects",
		},
		"parameter is unknown": {
			book:   "rungs: [{rung: a, steps: [{id: n, action: ring.note, target: \"${cause}\", with: {text: \"${fact(cause, 'member_id')}\"}}]}]",
			change: without("member_id"),
			step:   "n", why: "parameter text is not known: ",
		},
		"parameter of another type": {
			book: "rungs: [{rung: a, steps: [{id: n, action: ring.note, target: \"${cause}\", with: {count: \"${fact(cause, 'member' + '_id')}\"}}]}]",
			step: "n", why: "parameter count: want a whole number, found text",
		},
		"text that is not UTF-8": {
			book: "rungs: [{rung: a, steps: [{id: n, action: ring.note, target: \"${cause}\", with: {text: \"${fact(cause, 'member_id')}\"}}]}]",
			change: func(o *fettle.Observation) {
				if _, ok := o.Facts["member_id"]; ok {
					o.Facts["member_id"] = "\xff"
				}
			},
			step: "n", why: `parameter text is not UTF-8 text: "\xff"`,
		},
		"pin is unknown": {
			book:   "rungs: [{rung: a, steps: [{id: n, action: ring.note, target: \"${cause}\", pin: [lag_ms]}]}]",
			change: without("lag_ms"),
			step:   "n", why: "fact lag_ms of ring-member:r/c is not known, so it cannot be pinned",
		},
		"requires reads a variable that is unknown": {
			book:   "vars: {lag: \"fact(cause, 'lag_ms')\"}\nrungs: [{rung: a, steps: [{id: n, action: ring.note, target: \"${cause}\", requires: [vars.lag > 5]}]}]",
			change: without("lag_ms"),
			step:   "n", why: "requires reads variable lag, which is not known: ",
		},
		"what an earlier step will change is not what it was": {
			book: `
vars: {g: "one(cause, '>part-of')"}
rungs:
  - rung: a
    steps:
      - {id: rm, action: ring.remove, target: "${cause}", group: "${vars.g}", with: {id: x}, claims: [{what: votes}], expect: "true", within: 1s, forward_only: yes, we must}
      - {id: add, action: ring.add, target: "${cause}", group: "${vars.g}", expect: "true", within: 1s}
      - {id: n, action: ring.note, target: "${cause}", with: {text: "${fact(cause, 'member_id')}"}}
`,
			step: "n", why: "parameter text is not known: ",
		},
		"the group cannot become so": {
			book: "vars: {g: \"one(cause, '>part-of')\"}\nrungs: [{rung: a, steps: [{id: add, action: ring.add, target: \"${cause}\", group: \"${vars.g}\", expect: \"true\", within: 1s}]}]",
			step: "add", why: "it cannot be foretold: predict step add: add-learner in ring:r: ring-member:r/c is a voter already",
		},
	} {
		t.Run(name, func(t *testing.T) {
			change := c.change
			if change == nil {
				change = func(*fettle.Observation) {}
			}
			_, err := Make(input(parse(t, head+strings.Replace(c.book, "yes, we must", "we must", 1)), lost(change), 0))
			var no *NotApplicable
			if !errors.As(err, &no) {
				t.Fatalf("want a *NotApplicable, got %v", err)
			}
			if no.Step != c.step || !strings.Contains(no.Why, c.why) || no.Rung != "a" || no.Runbook != "ring.test" {
				t.Errorf("got step %q: %s\nwant step %q: %s", no.Step, no.Why, c.step, c.why)
			}
		})
	}
}

func without(fact string) func(*fettle.Observation) {
	return func(o *fettle.Observation) { delete(o.Facts, fact) }
}

// A variable that nobody reads may be unknown.
func TestUnknownVariableThatIsNotNeeded(t *testing.T) {
	b := parse(t, head+"vars: {lag: \"fact(cause, 'lag_ms')\"}\nrungs: [{rung: a, steps: [{id: n, action: ring.note, target: \"${cause}\"}]}]")
	if _, err := Make(input(b, lost(without("lag_ms")), 0)); err != nil {
		t.Error(err)
	}
}

// What does not fit together is no NotApplicable: no other rung helps.
func TestMakeWrongInput(t *testing.T) {
	b := file(t, "data_lost.yaml")
	for name, change := range map[string]func(*Input){
		"no book":       func(in *Input) { in.Book = nil },
		"no view":       func(in *Input) { in.View = nil },
		"no such rung":  func(in *Input) { in.Rung = 2 },
		"another cause": func(in *Input) { in.Cause.Code = "ring.slow" },
	} {
		in := input(b, lost(), 0)
		change(&in)
		_, err := Make(in)
		var no *NotApplicable
		if err == nil || errors.As(err, &no) {
			t.Errorf("%s: %v", name, err)
		}
	}
	in := input(b, lost(), 0)
	in.Catalogues = []fettle.Catalogue{}
	if _, err := Make(in); err == nil || !strings.Contains(err.Error(), "no adapter offers action ring.remove") {
		t.Errorf("an action that is gone: %v", err)
	}
}

// A step whose `when` is known to be false stays in the plan, where it is asked
// again, and foretells nothing.
func TestSkippedStepForetellsNothing(t *testing.T) {
	b := parse(t, head+`
vars: {g: "one(cause, '>part-of')"}
rungs:
  - rung: a
    steps:
      - {id: start, action: ring.start, target: "${cause}", group: "${vars.g}", expect: "true", within: 1s}
      - {id: again, action: ring.start, target: "${cause}", group: "${vars.g}", when: "!fact(target, 'running')", expect: "true", within: 1s}
`)
	p, err := Make(input(b, lost(), 0))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Steps) != 2 {
		t.Fatalf("%d steps", len(p.Steps))
	}
	for _, f := range p.Predicted {
		if f.Step != "start" {
			t.Errorf("%+v", f)
		}
	}
	if len(p.Predicted) != 2 {
		t.Errorf("the first step changes the member and the group: %+v", p.Predicted)
	}
}

func TestLoses(t *testing.T) {
	b := parse(t, head+"rungs: [{rung: a, loses: \"all since ${fact(cause, 'lag_ms')} ms\", steps: [{id: n, action: ring.note, target: \"${cause}\"}]}]")
	for name, c := range map[string]struct {
		w    *world.World
		want string
	}{
		"known":   {lost(), "all since 2 ms"},
		"unknown": {lost(without("lag_ms")), "all since ${fact(cause, 'lag_ms')} ms (not all of it is known: "},
	} {
		p, err := Make(input(b, c.w, 0))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(p.Loses, c.want) {
			t.Errorf("%s: %q", name, p.Loses)
		}
	}
}
