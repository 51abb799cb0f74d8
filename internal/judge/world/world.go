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
	"strings"
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
	moved moves
	rises map[fettle.ConditionKey]bool // that are raised
	list  []fettle.Condition           // they, sorted; nil: to be put together anew
}

type node struct {
	seen few[fettle.Observer, fettle.Observation] // only while the observer does not say Gone
	out  few[arc, int]                            // how many observations show this edge
	in   few[arc, int]
	cond few[fettle.Code, bool]
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
		rises: map[fettle.ConditionKey]bool{},
	}
}

func (w *World) node(s fettle.Subject) *node {
	n := w.nodes[s]
	if n == nil {
		n = &node{}
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
	var before fettle.Observation
	last, had := n.seen.get(o.Observer())
	if had {
		before = *last
	}
	if had && o.Asked.Before(before.Asked) || w.gone.after(o) {
		w.sweep(o.Subject)
		return false
	}
	if !o.Known() && had {
		o.Edges = before.Edges
	}
	w.moved.subject(o.Subject)
	if o.Gone {
		if had {
			w.unlink(before.Edges)
		}
		n.seen.remove(o.Observer())
		w.gone.bury(o)
		w.sweep(o.Subject)
		return true
	}
	w.relink(before.Edges, o.Edges)
	*n.seen.ensure(o.Observer()) = o
	return true
}

// Shows reports whether what an observer last saw of a subject has these edges.
func (w *World) Shows(s fettle.Subject, by fettle.Observer, edges []fettle.Edge) bool {
	n := w.nodes[s]
	if n == nil {
		return false
	}
	last, had := n.seen.get(by)
	return had && slices.Equal(last.Edges, edges)
}

func (w *World) link(edges []fettle.Edge) {
	for _, e := range edges {
		w.rearranged(e)
		*w.node(e.From).out.ensure(arc{e.Rel, e.To})++
		*w.node(e.To).in.ensure(arc{e.Rel, e.From})++
	}
}

func (w *World) unlink(edges []fettle.Edge) {
	for _, e := range edges {
		w.rearranged(e)
		drop(&w.node(e.From).out, arc{e.Rel, e.To})
		drop(&w.node(e.To).in, arc{e.Rel, e.From})
		w.sweep(e.From)
		w.sweep(e.To)
	}
}

func (w *World) rearranged(e fettle.Edge) {
	w.moved.Arcs = w.moved.on
	w.moved.subject(e.From)
	w.moved.subject(e.To)
}

func drop(m *few[arc, int], a arc) {
	if n := m.ensure(a); *n > 1 {
		*n--
		return
	}
	m.remove(a)
}

// sweep forgets a subject that nobody sees, nothing points to and no condition
// speaks of.
func (w *World) sweep(s fettle.Subject) {
	n := w.nodes[s]
	if n == nil || n.seen.len()+n.out.len()+n.in.len()+n.cond.len() > 0 {
		return
	}
	delete(w.nodes, s)
	delete(w.kinds[s.Kind()], s)
}

// Known reports whether any observer sees the subject at present.
func (w *World) Known(s fettle.Subject) bool {
	n := w.nodes[s]
	return n != nil && n.seen.len() > 0
}

// Observations implements View.
func (w *World) Observations(s fettle.Subject) []fettle.Observation {
	return w.AppendObservations(nil, s)
}

// AppendObservations appends what Observations returns to list, for a reader that asks
// again and again and has room.
func (w *World) AppendObservations(list []fettle.Observation, s fettle.Subject) []fettle.Observation {
	n := w.nodes[s]
	if n == nil {
		return list
	}
	from := len(list)
	list = slices.Grow(list, n.seen.len())
	for i := range n.seen.list {
		list = append(list, n.seen.list[i].value)
	}
	if added := list[from:]; len(added) > 1 {
		slices.SortFunc(added, func(a, b fettle.Observation) int { return compareObservers(a.Observer(), b.Observer()) })
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

// Fact returns one of the facts that Facts returns, without putting the others together;
// nil: it is not known.
func (w *World) Fact(s fettle.Subject, name string) any {
	n := w.nodes[s]
	if n == nil {
		return nil
	}
	var newest *fettle.Observation
	for i := range n.seen.list {
		o := &n.seen.list[i].value
		if _, has := o.Facts[name]; !has || !o.Known() {
			continue
		}
		if newest == nil || newer(o, newest) {
			newest = o
		}
	}
	if newest == nil {
		return nil
	}
	return newest.Facts[name]
}

// newer says which of two observations of a subject a fact is taken from: the newer, and
// of two of the same time the first by observer.
func newer(a, b *fettle.Observation) bool {
	if c := a.Asked.Compare(b.Asked); c != 0 {
		return c > 0
	}
	return compareObservers(a.Observer(), b.Observer()) < 0
}

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
	before, was := w.conds[c.ConditionKey]
	w.conds[c.ConditionKey] = c
	w.turn(before, c, was, true)
	*w.node(c.Subject).cond.ensure(c.Code) = true
}

// DropCondition forgets a condition whose subject is gone.
func (w *World) DropCondition(k fettle.ConditionKey) {
	before, was := w.conds[k]
	delete(w.conds, k)
	if was {
		w.turn(before, fettle.Condition{ConditionKey: k}, true, false)
	}
	if n := w.nodes[k.Subject]; n != nil {
		n.cond.remove(k.Code)
		w.sweep(k.Subject)
	}
}

// turn notes what becomes of a condition.
func (w *World) turn(before, after fettle.Condition, was, is bool) {
	w.moved.subject(after.Subject)
	w.moved.condition(before, after, was, is)
	switch {
	case is && after.Raised():
		w.rises[after.ConditionKey], w.list = true, nil
	case was && before.Raised():
		delete(w.rises, after.ConditionKey)
		w.list = nil
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
	for _, e := range n.cond.list {
		list = append(list, w.conds[fettle.ConditionKey{Code: e.key, Subject: s}])
	}
	slices.SortFunc(list, func(a, b fettle.Condition) int { return strings.Compare(string(a.Code), string(b.Code)) })
	return list
}

// Raised returns all raised conditions, sorted by key. The list is shared: read only.
func (w *World) Raised() []fettle.Condition {
	if w.list != nil || len(w.rises) == 0 {
		return w.list
	}
	w.list = make([]fettle.Condition, 0, len(w.rises))
	// any order: the list is sorted below, and no two keys are equal
	for key := range w.rises {
		w.list = append(w.list, w.conds[key])
	}
	slices.SortFunc(w.list, func(a, b fettle.Condition) int { return a.ConditionKey.Compare(b.ConditionKey) })
	return w.list
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
