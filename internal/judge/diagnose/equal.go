package diagnose

import (
	"slices"

	"fettle/internal/fettle"
)

// equal reports whether two groups say the same.
func (g *Group) equal(h *Group) bool {
	a, b := &g.Diagnosis, &h.Diagnosis
	return g.Key == h.Key && g.Gone == h.Gone && a.Cost == b.Cost && a.Stopped == b.Stopped &&
		slices.Equal(g.Members, h.Members) && slices.Equal(a.Ill, b.Ill) && slices.Equal(a.Look, b.Look) &&
		slices.EqualFunc(a.Causes, b.Causes, equalCauses) &&
		slices.EqualFunc(a.Unsettled, b.Unsettled, func(x, y fettle.Alternative) bool {
			return x.Cost == y.Cost && slices.Equal(x.Causes, y.Causes)
		})
}

func equalCauses(a, b fettle.Cause) bool {
	return a.ConditionKey == b.ConditionKey && a.Observed == b.Observed && a.Cost == b.Cost &&
		slices.Equal(a.Explains, b.Explains) && slices.Equal(a.For, b.For) && slices.Equal(a.Against, b.Against)
}
