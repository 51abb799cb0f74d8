package agent

import (
	"cmp"
	"slices"

	"fettle/internal/fettle"
)

// ear is told what a server would be told: what is, and then what changes, in order.
// It is called while the picture is held, and must not block.
type ear func([]fettle.Observation, []fettle.Condition)

// listen tells an ear everything that is, and from then on what changes, until the
// function that it returns is called.
func (p *picture) listen(e ear) (stop func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e(p.present())
	p.ear = e
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ear = nil
	}
}

// present is everything that is, sorted. mu is held.
func (p *picture) present() (observations []fettle.Observation, conditions []fettle.Condition) {
	for _, o := range p.seen {
		observations = append(observations, o)
	}
	slices.SortFunc(observations, func(a, b fettle.Observation) int {
		return cmp.Or(cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Probe, b.Probe))
	})
	for key := range p.conds {
		if c, ok := p.world.Condition(key); ok {
			conditions = append(conditions, c)
		}
	}
	slices.SortFunc(conditions, func(a, b fettle.Condition) int { return a.Compare(b.ConditionKey) })
	return observations, conditions
}

// heard tells the ear, if there is one. mu is held.
func (p *picture) heard(observations []fettle.Observation, conditions []fettle.Condition) {
	if p.ear != nil && len(observations)+len(conditions) > 0 {
		p.ear(observations, conditions)
	}
}

// ill reports whether a condition is raised that somebody might do something about.
func (p *picture) ill(onPurpose map[fettle.Code]bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.conds {
		if c, ok := p.world.Condition(key); ok && c.Raised() && !onPurpose[key.Code] {
			return true
		}
	}
	return false
}
