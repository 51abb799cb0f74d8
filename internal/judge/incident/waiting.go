package incident

import (
	"fmt"
	"slices"
	"time"

	"fettle/internal/fettle"
)

// refusedFor is how long the next step may be refused before a person is called:
// longer than it takes a member to come back, a host to boot, or an agent to be
// started again.
const refusedFor = 2 * time.Minute

// tellOfRefusals calls a person, once, when the next step has been refused for long.
// What people did themselves (froze, stopped it), what another server does and what
// only comes and goes needs nobody. It is asked again as before: a refusal that is
// lifted is still acted upon.
func (m *Mind) tellOfRefusals(r *Record, no []fettle.Verdict, why string) {
	if slices.ContainsFunc(no, func(v fettle.Verdict) bool {
		return slices.Contains([]string{"freeze", "maintenance", "person", "leader", "flapping"}, v.Guard)
	}) {
		r.Progress.Refused = time.Time{} // somebody's, or for now: it begins anew
		return
	}
	if r.Progress.Refused.IsZero() {
		r.Progress.Refused = m.now
	}
	if r.Progress.RefusalTold || m.now.Sub(r.Progress.Refused) < refusedFor {
		return
	}
	r.Progress.RefusalTold = true
	text := fmt.Sprintf("its next step has been refused for %v: %s", m.now.Sub(r.Progress.Refused).Round(time.Second), why)
	m.tell(r, fettle.Event{Kind: fettle.EvEscalated, Text: text})
	m.decisions = append(m.decisions, Decision{Kind: Call, Incident: r.ID, Text: text})
}

// stuck calls a person, once, about a step of which nobody can say what became of
// it: its machine may never come back to tell, and everything that would touch the
// same waits for it.
func (m *Mind) stuck(r *Record, o fettle.Outcome) {
	if slices.ContainsFunc(r.Story, func(e fettle.Event) bool { return e.Kind == fettle.EvEscalated && e.Key == o.Key }) {
		return
	}
	text := "it is still not known what became of " + o.Key
	if o.Error != "" {
		text += " (" + o.Error + ")"
	}
	text += "; nothing else is done until it is (`fettle incident refuse " + r.ID + "` once you know)"
	r.Why = text
	m.tell(r, fettle.Event{Kind: fettle.EvEscalated, Key: o.Key, Text: text})
	m.decisions = append(m.decisions, Decision{Kind: Call, Incident: r.ID, Text: text})
}
