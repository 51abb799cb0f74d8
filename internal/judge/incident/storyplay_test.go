package incident_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"fettle/internal/face/show"
	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
)

// told is a story as it was played to a mind.
type told struct {
	t       testing.TB
	mind    *incident.Mind
	file    *storyFile
	sets    map[string]map[string]string // what an action makes of its target
	queue   []arrival                    // by time
	newest  map[seenBy]fettle.Observation
	now     time.Time
	touched []string
	asked   map[string]bool // before anything was touched
	calls   []string
	inputs  int
}

type arrival struct {
	at    time.Time
	order int
	in    incident.Input
	asked []fettle.Observation // from now on, who looks sees this
}

type seenBy struct {
	subject fettle.Subject
	by      fettle.Observer
}

// mindOf is a mind for a story, with the causal knowledge of these catalogues.
func mindOf(t testing.TB, s *storyFile, cats []fettle.Catalogue) *incident.Mind {
	t.Helper()
	books := fstest.MapFS{}
	for code, rungs := range s.Runbooks {
		books[strings.ReplaceAll(code, ".", "/")+".yaml"] = &fstest.MapFile{Data: fmt.Appendf(nil, "runbook: %s\nfor: %s\ndoc: Of a story.\n%s", code, code, rungs)}
	}
	m, err := incident.New(incident.Options{
		Catalogues: cats,
		Policy:     fettle.Policy{Rules: []fettle.PolicyRule{{Runbook: "*", Rung: "*", Subject: "*", Level: fettle.Automatic}}},
		Books: func(env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
			return runbook.Load(books, env, cats)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// play tells a story to a mind, from its first observation to its end. What is
// decided is done, and takes a second.
func play(t testing.TB, s *storyFile, cats []fettle.Catalogue) *told {
	t.Helper()
	p := &told{t: t, mind: mindOf(t, s, cats), file: s, newest: map[seenBy]fettle.Observation{}, asked: map[string]bool{}, sets: map[string]map[string]string{}}
	for _, a := range s.Actions {
		p.sets[a.Name] = a.Sets
	}
	p.later(start, incident.Input{Observations: s.places(t)}, nil)
	for _, e := range s.See {
		if e.After == "" {
			p.schedule(start, e)
		}
	}
	end := start.Add(span(t, s.Until))
	for range 1_000_000 {
		at := end
		if len(p.queue) > 0 && p.queue[0].at.Before(at) {
			at = p.queue[0].at
		}
		if next, ok := p.mind.Next(); ok && next.Before(at) {
			at = next
		}
		if at.Before(p.now) {
			at = p.now
		}
		if at.Equal(end) {
			p.take(incident.Input{At: end})
			return p
		}
		p.at(at)
	}
	t.Fatal("the story does not end")
	return nil
}

// at feeds what arrives at a time, together.
func (p *told) at(at time.Time) {
	in := incident.Input{At: at}
	var outcomes []incident.Input
	for len(p.queue) > 0 && !p.queue[0].at.After(at) {
		a := p.queue[0]
		p.queue = p.queue[1:]
		for _, o := range a.asked {
			p.newest[seenBy{o.Subject, o.Observer()}] = o
		}
		for _, o := range a.in.Observations {
			o.Asked = at
			p.newest[seenBy{o.Subject, o.Observer()}] = o
			in.Observations = append(in.Observations, o)
		}
		if a.in.Outcome != nil {
			a.in.At = at
			outcomes = append(outcomes, a.in)
		}
	}
	p.take(in)
	for _, o := range outcomes {
		o.Observations = nil
		p.take(o)
	}
}

func (p *told) later(at time.Time, in incident.Input, asked []fettle.Observation) {
	p.queue = append(p.queue, arrival{at: at, order: p.inputs, in: in, asked: asked})
	p.inputs++
	slices.SortFunc(p.queue, func(a, b arrival) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.order, b.order)) })
}

func (p *told) schedule(from time.Time, e seeShape) {
	list := e.observations(p.t)
	for n := range max(e.Times, 1) {
		at := from.Add(span(p.t, e.At) + time.Duration(n)*span(p.t, e.Every))
		if e.Asked {
			p.later(at, incident.Input{}, list)
		} else {
			p.later(at, incident.Input{Observations: list}, nil)
		}
	}
}

func (p *told) take(in incident.Input) {
	p.now = in.At
	decisions := p.mind.Take(in)
	for len(decisions) > 0 {
		d := decisions[0]
		decisions = decisions[1:]
		switch d.Kind {
		case incident.Gather, incident.Look:
			decisions = append(decisions, p.mind.Take(incident.Input{At: in.At, Observations: p.look(d.Looks), Gathered: d.Key})...)
		case incident.Call:
			p.calls = append(p.calls, d.Text)
		case incident.Intend:
			p.do(d)
		case incident.Recover:
			p.t.Errorf("asked what became of %s, which was answered", d.Key)
		case incident.Save:
		}
	}
}

func (p *told) look(looks []fettle.Look) []fettle.Observation {
	var out []fettle.Observation
	for _, l := range looks {
		if len(p.touched) == 0 {
			p.asked[l.Probe+" "+string(l.Subject)] = true
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(p.newest), func(a, b seenBy) int {
		return cmp.Or(cmp.Compare(a.subject, b.subject), cmp.Compare(a.by.Host, b.by.Host), cmp.Compare(a.by.Probe, b.by.Probe))
	}) {
		if slices.ContainsFunc(looks, func(l fettle.Look) bool { return l.Subject == k.subject && l.Probe == k.by.Probe }) {
			o := p.newest[k]
			o.Asked = p.now
			out = append(out, o)
		}
	}
	return out
}

// do does a step: a second later the facts are as it makes them.
func (p *told) do(d incident.Decision) {
	what := d.Step.Action + " " + string(d.Step.Target)
	if d.Undo {
		what = "undo " + what
	}
	p.touched = append(p.touched, what)
	at := p.now.Add(time.Second)
	in := incident.Input{Outcome: &fettle.Outcome{Schema: 1, Key: d.Key, Fate: fettle.Done}}
	for k, o := range p.newest {
		if k.subject != d.Step.Target || o.Facts == nil {
			continue
		}
		facts := o.Facts.Clone()
		for fact, to := range p.sets[d.Step.Action] {
			if _, has := facts[fact]; has {
				facts[fact] = literal(to)
			}
		}
		o.Facts = facts
		in.Observations = append(in.Observations, o)
	}
	slices.SortFunc(in.Observations, func(a, b fettle.Observation) int { return cmp.Compare(a.Probe+string(a.Host), b.Probe+string(b.Host)) })
	p.later(at, in, nil)
	for _, e := range p.file.See {
		if e.After == what {
			p.schedule(at, e)
		}
	}
}

func literal(cel string) fettle.Value {
	switch cel {
	case "true", "false":
		return cel == "true"
	}
	if text, ok := strings.CutPrefix(cel, `"`); ok {
		return strings.TrimSuffix(text, `"`)
	}
	var n int64
	if _, err := fmt.Sscan(cel, &n); err != nil {
		return nil
	}
	return n
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func (p *told) causes() []string {
	var out []string
	for _, g := range p.mind.Groups() {
		for _, c := range g.Diagnosis.Causes {
			out = append(out, c.String())
		}
	}
	slices.Sort(out)
	return out
}

// explained is what `fettle incident explain` says of every incident, and who was
// called and what was touched. What changes with every shipped catalogue (the hashes
// that a plan was made with) is left out.
func (p *told) explained() string {
	var b strings.Builder
	pr := &show.Printer{W: &b}
	for _, in := range p.mind.Incidents() {
		pr.Explain(in)
		fmt.Fprintln(&b)
	}
	for _, c := range p.calls {
		pr.Text("called:  ", c)
	}
	for _, c := range p.touched {
		fmt.Fprintln(&b, "touched: "+c)
	}
	var kept []string
	for _, line := range strings.Split(b.String(), "\n") {
		if text := strings.TrimSpace(line); !strings.HasPrefix(text, "made with") && !strings.HasPrefix(text, "hash  ") && !strings.HasPrefix(text, "runbooks ") {
			kept = append(kept, strings.TrimRight(line, " "))
		}
	}
	return strings.Join(kept, "\n")
}
