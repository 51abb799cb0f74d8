// Package world is what is known: the latest observation of every subject by
// every observer, the graph that they span, the conditions and the claims in
// flight. It is the one input, besides a step and the time, of every judgement.
//
// It is not a history (an incident is) and it does not judge: it holds what was
// observed and answers questions about it, the same answer for the same
// observations in whatever order they came in, unless one replaced another.
//
// A World is not safe for concurrent use; its one owner (the loop) feeds it and
// asks it. Predictions are made on an Overlay and never touch the World.
package world

import (
	"maps"
	"slices"
	"time"

	"fettle/internal/fettle"
)

// World holds the present facts. The zero value is not usable; call New.
type World struct {
	nodes map[fettle.Subject]*node
	kinds map[fettle.Kind]map[fettle.Subject]bool
	conds map[fettle.ConditionKey]fettle.Condition
	held  map[string][]fettle.Claim // by dispatch key
	gone  graves
}

type node struct {
	seen map[fettle.Observer]fettle.Observation // only while the observer does not say Gone
	out  map[arc]int                            // how many observations show this edge
	in   map[arc]int
	cond map[fettle.Code]bool
}

type arc struct {
	rel   fettle.Relation
	other fettle.Subject
}

// View is what judgements read: the World, or an Overlay that predicts on it.
type View interface {
	// Facts returns the newest known value of each fact of a subject, over all
	// observers. The map is shared: read only.
	Facts(fettle.Subject) fettle.Facts
	// FactsBy is Facts restricted to one probe.
	FactsBy(s fettle.Subject, probe string) fettle.Facts
	// Asked returns when the oldest of the facts that Facts returns for these
	// names was asked for; false when one of them is not known.
	Asked(s fettle.Subject, names ...string) (time.Time, bool)
	// Observations returns what each observer last saw of a subject, sorted by
	// observer.
	Observations(fettle.Subject) []fettle.Observation
	// Related walks a path; the result is sorted and without duplicates.
	Related(fettle.Subject, fettle.Path) []fettle.Subject
	// Quorum returns the group as those who observed it no earlier than since,
	// taken together, see it; false when nobody did. The zero since takes all.
	Quorum(group fettle.Subject, since time.Time) (fettle.QuorumGroup, bool)
	// Replicas is the same for a replica set: the worst that was seen.
	Replicas(s fettle.Subject, since time.Time) (fettle.ReplicaSet, bool)
	// Condition returns a condition's state, or false where it was never judged.
	Condition(fettle.ConditionKey) (fettle.Condition, bool)
	// ConditionsOf returns all judged conditions of a subject, sorted by code.
	ConditionsOf(fettle.Subject) []fettle.Condition
	// Claims returns the claims in flight, sorted by dispatch key.
	Claims() []fettle.Claim
	// Subjects returns the known subjects of a kind, sorted.
	Subjects(fettle.Kind) []fettle.Subject
}

// New returns an empty world.
func New() *World {
	return &World{
		nodes: map[fettle.Subject]*node{},
		kinds: map[fettle.Kind]map[fettle.Subject]bool{},
		conds: map[fettle.ConditionKey]fettle.Condition{},
		held:  map[string][]fettle.Claim{},
	}
}

func (w *World) node(s fettle.Subject) *node {
	n := w.nodes[s]
	if n == nil {
		n = &node{
			seen: map[fettle.Observer]fettle.Observation{},
			out:  map[arc]int{}, in: map[arc]int{}, cond: map[fettle.Code]bool{},
		}
		w.nodes[s] = n
		k := s.Kind()
		if w.kinds[k] == nil {
			w.kinds[k] = map[fettle.Subject]bool{}
		}
		w.kinds[k][s] = true
	}
	return n
}

// Observe takes an observation in, replacing the same observer's earlier one of
// the same subject. An observation asked for earlier than the one that is there
// is late and is dropped, also when what is there is that the subject is gone:
// Observe returns false.
//
// An unknown observation keeps the edges of the one before: not to see is not to
// see that something is gone.
func (w *World) Observe(o fettle.Observation) bool {
	n := w.node(o.Subject)
	before, had := n.seen[o.Observer()]
	if had && o.Asked.Before(before.Asked) || w.gone.after(o) {
		w.sweep(o.Subject)
		return false
	}
	if !o.Known() && had {
		o.Edges = before.Edges
	}
	if had {
		w.unlink(before.Edges)
	}
	if o.Gone {
		delete(n.seen, o.Observer())
		w.gone.bury(o)
		w.sweep(o.Subject)
		return true
	}
	w.link(o.Edges)
	n.seen[o.Observer()] = o
	return true
}

func (w *World) link(edges []fettle.Edge) {
	for _, e := range edges {
		w.node(e.From).out[arc{e.Rel, e.To}]++
		w.node(e.To).in[arc{e.Rel, e.From}]++
	}
}

func (w *World) unlink(edges []fettle.Edge) {
	for _, e := range edges {
		drop(w.node(e.From).out, arc{e.Rel, e.To})
		drop(w.node(e.To).in, arc{e.Rel, e.From})
		w.sweep(e.From)
		w.sweep(e.To)
	}
}

func drop(m map[arc]int, a arc) {
	if m[a]--; m[a] <= 0 {
		delete(m, a)
	}
}

// sweep forgets a subject that nobody sees, nothing points to and no condition
// speaks of.
func (w *World) sweep(s fettle.Subject) {
	n := w.nodes[s]
	if n == nil || len(n.seen)+len(n.out)+len(n.in)+len(n.cond) > 0 {
		return
	}
	delete(w.nodes, s)
	delete(w.kinds[s.Kind()], s)
}

// Known reports whether any observer sees the subject at present.
func (w *World) Known(s fettle.Subject) bool {
	n := w.nodes[s]
	return n != nil && len(n.seen) > 0
}

// Observations implements View.
func (w *World) Observations(s fettle.Subject) []fettle.Observation {
	n := w.nodes[s]
	if n == nil || len(n.seen) == 0 {
		return nil
	}
	list := make([]fettle.Observation, 0, len(n.seen))
	// any order: the list is sorted below, and no two observers are equal
	for _, o := range n.seen {
		list = append(list, o)
	}
	if len(list) > 1 {
		slices.SortFunc(list, func(a, b fettle.Observation) int { return compareObservers(a.Observer(), b.Observer()) })
	}
	return list
}

func compareObservers(a, b fettle.Observer) int {
	if a.Host != b.Host {
		if a.Host < b.Host {
			return -1
		}
		return 1
	}
	switch {
	case a.Probe < b.Probe:
		return -1
	case a.Probe > b.Probe:
		return 1
	}
	return 0
}

// Facts implements View.
func (w *World) Facts(s fettle.Subject) fettle.Facts { return merge(w.Observations(s), "") }

// FactsBy implements View.
func (w *World) FactsBy(s fettle.Subject, probe string) fettle.Facts {
	return merge(w.Observations(s), probe)
}

// Asked implements View.
func (w *World) Asked(s fettle.Subject, names ...string) (time.Time, bool) {
	return asked(w.Observations(s), names)
}

// merge takes each fact from the newest observation that has it.
func merge(seen []fettle.Observation, probe string) fettle.Facts {
	var only fettle.Facts
	known := 0
	for _, o := range seen {
		if o.Known() && (probe == "" || o.Probe == probe) {
			only = o.Facts
			known++
		}
	}
	if known < 2 {
		return only
	}
	merged := fettle.Facts{}
	at := map[string]time.Time{}
	for _, o := range seen {
		if !o.Known() || probe != "" && o.Probe != probe {
			continue
		}
		// any order: each fact is put under its own name
		for k, v := range o.Facts {
			if t, ok := at[k]; !ok || o.Asked.After(t) {
				merged[k], at[k] = v, o.Asked
			}
		}
	}
	return merged
}

func asked(seen []fettle.Observation, names []string) (time.Time, bool) {
	var oldest time.Time
	for _, name := range names {
		var at time.Time
		found := false
		for _, o := range seen {
			if _, ok := o.Facts[name]; ok && o.Known() && (!found || o.Asked.After(at)) {
				at, found = o.Asked, true
			}
		}
		if !found {
			return time.Time{}, false
		}
		if oldest.IsZero() || at.Before(oldest) {
			oldest = at
		}
	}
	return oldest, !oldest.IsZero()
}

// Subjects implements View.
func (w *World) Subjects(k fettle.Kind) []fettle.Subject {
	return slices.Sorted(maps.Keys(w.kinds[k]))
}

// SetCondition records a condition's state.
func (w *World) SetCondition(c fettle.Condition) {
	w.conds[c.ConditionKey] = c
	w.node(c.Subject).cond[c.Code] = true
}

// DropCondition forgets a condition whose subject is gone.
func (w *World) DropCondition(k fettle.ConditionKey) {
	delete(w.conds, k)
	if n := w.nodes[k.Subject]; n != nil {
		delete(n.cond, k.Code)
		w.sweep(k.Subject)
	}
}

// Condition implements View.
func (w *World) Condition(k fettle.ConditionKey) (fettle.Condition, bool) {
	c, ok := w.conds[k]
	return c, ok
}

// ConditionsOf implements View.
func (w *World) ConditionsOf(s fettle.Subject) []fettle.Condition {
	n := w.nodes[s]
	if n == nil {
		return nil
	}
	var list []fettle.Condition
	for _, code := range slices.Sorted(maps.Keys(n.cond)) {
		list = append(list, w.conds[fettle.ConditionKey{Code: code, Subject: s}])
	}
	return list
}

// Raised returns all raised conditions, sorted by key.
func (w *World) Raised() []fettle.Condition {
	var list []fettle.Condition
	// any order: the list is sorted below, and no two keys are equal
	for _, c := range w.conds {
		if c.Raised() {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b fettle.Condition) int { return a.ConditionKey.Compare(b.ConditionKey) })
	return list
}

// Hold records the claims of a dispatch that is in flight.
func (w *World) Hold(key string, claims []fettle.Claim) { w.held[key] = claims }

// Release forgets them, when its outcome is known and verified or given up.
func (w *World) Release(key string) { delete(w.held, key) }

// Claims implements View.
func (w *World) Claims() []fettle.Claim {
	var list []fettle.Claim
	for _, key := range slices.Sorted(maps.Keys(w.held)) {
		list = append(list, w.held[key]...)
	}
	return list
}
