package incident

import "fettle/internal/fettle"

// doubtful reports whether a subject had a condition worse than a notice that cannot
// be known any more: nobody saw its end. A host whose agent is not heard, or has not
// told everything since it is, may have any: a leader that has just taken over knows
// where it stands and nothing else.
func (m *Mind) doubtful(s fettle.Subject) bool {
	if s.Kind() == fettle.KindHost {
		facts := m.world.Facts(s)
		for _, fact := range []string{"connected", "settled"} {
			if is, known := facts.Bool(fact); known && !is {
				return true
			}
		}
	}
	for _, c := range m.world.ConditionsOf(s) {
		if spec := m.specs[c.Code]; c.State == fettle.Unknown && !c.FirstSeen.IsZero() && spec != nil && spec.Severity != fettle.Notice {
			return true
		}
	}
	return false
}
