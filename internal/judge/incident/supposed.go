package incident

import (
	"slices"

	"fettle/internal/fettle"
)

// unfounded ends an incident about a cause that was only ever supposed, when nothing
// is left to suppose it for: nobody will ever see it clear. It reports whether it did.
// What can no longer be known of its effects keeps it open.
func (m *Mind) unfounded(r *Record) bool {
	c, _ := m.world.Condition(r.Cause)
	if _, grouped := m.groupOf[r.Cause]; grouped || r.Cause.Code == "" || c.State != fettle.Unknown || !c.FirstSeen.IsZero() || r.begun() || r.inFlight() {
		return false
	}
	supposed := slices.ContainsFunc(r.Diagnosis.Causes, func(c fettle.Cause) bool { return c.ConditionKey == r.Cause && !c.Observed })
	if !supposed {
		return false
	}
	elsewhere := false
	for _, k := range r.Conditions {
		e, known := m.world.Condition(k)
		switch {
		case k == r.Cause:
		case e.Raised():
			elsewhere = true // and is explained there
		case known && e.State == fettle.Unknown:
			return false
		}
	}
	if elsewhere {
		why := "it is no longer needed to explain anything"
		m.tell(r, fettle.Event{Kind: fettle.EvDiagnosed, Text: why})
		m.end(r, fettle.Closed, why)
		return true
	}
	text := "it was supposed, and all that it was supposed for is clear"
	m.tell(r, fettle.Event{Kind: fettle.EvResolved, Text: text, Took: m.now.Sub(r.Opened)})
	m.end(r, fettle.Resolved, text)
	return true
}
