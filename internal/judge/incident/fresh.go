package incident

import (
	"maps"

	"fettle/internal/fettle"
	"fettle/internal/judge/diagnose"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/world"
)

// Fresh returns a mind that judges with what m judges with, under another policy,
// and knows nothing yet. What was compiled is shared: it costs a thousandth of New.
// The two may be used at the same time.
func (m *Mind) Fresh(policy fettle.Policy) *Mind {
	f := &Mind{
		cats: m.cats, specs: m.specs, acts: m.acts, causes: m.causes, env: m.env, books: m.books,
		cond: m.cond.Fresh(), diag: m.diag.Fresh(),
		policy: policy, pins: m.pins, world: world.New(), leader: true, permit: m.permit,
		groups: map[fettle.ConditionKey]diagnose.Group{}, groupOf: map[fettle.ConditionKey]fettle.ConditionKey{},
		records: map[string]*Record{}, byCause: map[fettle.ConditionKey]string{},
		spokenOf: map[fettle.Subject]bool{},
		programs: map[string]*expr.Program{}, dirty: map[string]bool{}, waiting: newWaiting(), leads: m.leads,
		waived: maps.Clone(m.waived),
	}
	f.pins.Policy, f.thorough = policy.Hash, m.thorough
	f.world.Follow()
	return f
}

// guarded is what the guards said. A test that shows what each of them is for may
// have waived one.
func (m *Mind) guarded(verdicts []fettle.Verdict) []fettle.Verdict {
	for i, v := range verdicts {
		if m.waived[v.Guard] {
			verdicts[i].Allow = true
		}
	}
	return verdicts
}
