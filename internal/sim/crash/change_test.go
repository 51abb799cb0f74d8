package crash

import (
	"fmt"
	"slices"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/plan"
	"fettle/internal/judge/world"
)

// change is what a step does to the machines: the effects that its catalogue
// declares, as the plan predicted them, and the consequences that only the real
// system has.
func (a doer) change(before history, d fettle.Dispatch) (effect, error) {
	e := effect{Key: d.Key, Step: d.Step.ID, Action: d.Step.Action, Target: d.Step.Target, Outputs: a.outputs(d)}
	view := world.New()
	for _, o := range before.sorted() {
		o.Asked = time.Unix(0, 0)
		view.Observe(o)
	}
	step := d.Step
	step.Effects = append(slices.Clone(step.Effects), consequences()[step.Action]...)
	predicted, _, err := plan.Predict(view, step, e.Outputs, nil, a.env)
	if err != nil {
		return effect{}, fmt.Errorf("%s: %w", d.Key, err)
	}
	var of fettle.Subject // the group that changed, if one did
	var group fettle.QuorumGroup
	for _, p := range predicted {
		if was, ok := view.Quorum(p.Subject, time.Time{}); ok && p.Quorum != nil {
			of, group = p.Subject, settled(was, *p.Quorum, step, e.Outputs)
		}
	}
	for _, o := range before.sorted() {
		now := o
		now.Facts = o.Facts.Clone()
		for _, p := range predicted {
			for name, v := range p.Facts {
				if p.Subject == o.Subject && a.tells(o.Probe, name) {
					if now.Facts == nil {
						now.Facts, now.Reason = fettle.Facts{}, ""
					}
					now.Facts[name] = v
				}
			}
		}
		if of != "" {
			now = follow(now, of, group)
		}
		if !equal(o, now) {
			e.Was, e.Now = append(e.Was, o), append(e.Now, now)
		}
	}
	return e, nil
}

// restore is what the undo of a step does: its effect the other way round.
func (a doer) restore(before history, d fettle.Dispatch) (effect, error) {
	for _, done := range slices.Backward(before.effects) {
		if done.Step == d.Step.ID && done.Action == d.Step.Action && done.Target == d.Step.Target && !done.Undo {
			return effect{Key: d.Key, Step: d.Step.ID, Action: d.Step.Action, Target: d.Step.Target, Undo: true, Was: done.Now, Now: done.Was}, nil
		}
	}
	return effect{}, fmt.Errorf("%s: there is nothing to undo", d.Key)
}

// tells reports whether a probe has a fact, by any catalogue: the effects of one
// system's action show in others' probes too.
func (a doer) tells(probe, fact string) bool {
	for _, c := range shipped() {
		for _, spec := range c.Probes {
			if spec.Name == probe {
				return slices.ContainsFunc(spec.Facts, func(f fettle.FactSpec) bool { return f.Name == fact })
			}
		}
	}
	return false
}

// outputs are what an action's catalogue promises, the same in every run.
func (a doer) outputs(d fettle.Dispatch) fettle.Facts {
	var out fettle.Facts
	for _, p := range a.spec.Outputs {
		if out == nil {
			out = fettle.Facts{}
		}
		switch p.Type {
		case fettle.IntFact:
			out[p.Name] = int64(500)
		case fettle.BoolFact:
			out[p.Name] = true
		case fettle.ListFact:
			out[p.Name] = []string{d.Step.ID}
		case fettle.StringFact:
			out[p.Name] = fmt.Sprintf("%x", d.Step.ID+d.Step.Target.Name()) // as good for an identity in hex as for a path
		}
	}
	return out
}

func equal(a, b fettle.Observation) bool {
	return string(toJSON(a)) == string(toJSON(b))
}
