package incident

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"fettle/internal/fettle"
)

// tellSeen writes into the story, once for each observer, what is known of the
// cause besides what its condition rests on: a person who must go on from here
// needs what was looked at, above all what no rung could act upon.
func (m *Mind) tellSeen(r *Record, spec *fettle.ConditionSpec) {
	for _, o := range m.world.Observations(r.Cause.Subject) {
		if o.Probe == spec.Probe || !o.Known() || len(o.Facts) == 0 {
			continue
		}
		head := fmt.Sprintf("seen by %s/%s: ", o.Host.Name(), o.Probe)
		if slices.ContainsFunc(r.Story, func(e fettle.Event) bool { return e.Kind == fettle.EvNote && strings.HasPrefix(e.Text, head) }) {
			continue
		}
		var facts []string
		for _, name := range slices.Sorted(maps.Keys(o.Facts)) {
			value := fmt.Sprint(o.Facts[name])
			if list, ok := o.Facts.List(name); ok {
				value = strings.Join(list, ", ")
			}
			facts = append(facts, name+" = "+value)
		}
		m.tell(r, fettle.Event{Kind: fettle.EvNote, Text: head + strings.Join(facts, "; ")})
	}
}
