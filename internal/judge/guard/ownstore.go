package guard

import (
	"slices"

	"fettle/internal/fettle"
)

// ownStore (S2): nothing is done to the group that holds the store by which Fettle
// decides. A plan that takes it down half-way could be neither finished nor undone, and
// who could tell? What a server says of its store is believed however old it is. Where
// it is not known which of the groups of that kind it is, it is each of them.
func ownStore(q Question) fettle.Verdict {
	held := storeGroups(q)
	if len(held) == 0 {
		return allow("Fettle's store is its own")
	}
	for _, group := range touched(q) {
		for _, g := range held {
			if group.Kind() != g.Kind {
				continue
			}
			switch names, known := named(q, group); {
			case slices.Contains(names, g.ID):
				return refuse(string(group)+" holds Fettle's own store, which Fettle never mends by itself", "it is "+string(g.Kind)+" "+g.ID, liftsStore)
			case !known || g.ID == "":
				return refuse("it is not known whether "+string(group)+" holds Fettle's own store, which Fettle never mends by itself", "the store is in "+string(g.Kind)+" "+g.ID, "an observer that can reach a member of "+string(group)+"; or "+liftsStore)
			}
		}
	}
	return allow("it is not what holds Fettle's store")
}

const liftsStore = "mend it by hand, or move Fettle's store (`fettle backup`, then `fettle restore`)"

// storeGroups are the groups that servers say hold their store, and that the permit
// says does.
func storeGroups(q Question) []fettle.StoreGroup {
	var out []fettle.StoreGroup
	for _, s := range q.View.Subjects(fettle.KindServer) {
		if g, ok := fettle.StoreGroupOf(q.View.Facts(s)); ok && !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	if q.Permit != nil && q.Permit.Store != nil && !slices.Contains(out, *q.Permit.Store) {
		out = append(out, *q.Permit.Store)
	}
	return out
}

// touched are the groups that a step works on: the one that it names, what it claims of,
// its target, whatever that is part of, and whatever hangs on it by the graph. A step on
// a host that takes nothing from it works on none of those that run there.
func touched(q Question) []fettle.Subject {
	at := []fettle.Subject{q.Step.Target, q.Step.Group}
	for _, c := range q.Step.Claims {
		at = append(at, c.Of, c.Member)
	}
	switch k := q.Step.Target.Kind(); {
	case k == fettle.KindUnit, k == fettle.KindHost && (len(q.Step.Takes) > 0 || q.Undo):
		at = append(at, q.View.Related(q.Step.Target, "<uses")...)
		at = append(at, q.View.Related(q.Step.Target, "<uses <uses")...)
		if k == fettle.KindHost {
			at = append(at, q.View.Related(q.Step.Target, "<runs-on")...)
		}
	}
	var out []fettle.Subject
	for _, s := range at {
		if s == "" {
			continue
		}
		for _, g := range append(q.View.Related(s, ">part-of"), s) {
			if !slices.Contains(out, g) {
				out = append(out, g)
			}
		}
	}
	return out
}

// named are the names that observers, whenever they looked, know a group by; known,
// where there is one.
func named(q Question, group fettle.Subject) (names []string, known bool) {
	for _, o := range q.View.Observations(group) {
		if o.Quorum != nil && o.Quorum.ID != "" && !slices.Contains(names, o.Quorum.ID) {
			names = append(names, o.Quorum.ID)
		}
	}
	return names, len(names) > 0
}
