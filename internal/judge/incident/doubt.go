package incident

import "fettle/internal/fettle"

// doubtful reports whether a subject had a condition worse than a notice that cannot
// be known any more: nobody saw its end.
func (m *Mind) doubtful(s fettle.Subject) bool {
	for _, c := range m.world.ConditionsOf(s) {
		if spec := m.specs[c.Code]; c.State == fettle.Unknown && !c.FirstSeen.IsZero() && spec != nil && spec.Severity != fettle.Notice {
			return true
		}
	}
	return false
}
