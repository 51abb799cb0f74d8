package world

import "fettle/internal/fettle"

// These walk the world without putting anything in order: for a reader that
// takes in much of it at once, and whose result does not depend on the order. The
// pointers are good during the call only, and to be read only.

// EachObservation calls visit with what every observer last saw of every
// subject, all of one subject in a row.
func (w *World) EachObservation(visit func(*fettle.Observation)) {
	// any order: the visitor puts things in order itself
	for _, n := range w.nodes {
		for i := range n.seen.list {
			visit(&n.seen.list[i].value)
		}
	}
}

// EachCondition calls visit with every judged condition.
func (w *World) EachCondition(visit func(*fettle.Condition)) {
	var c fettle.Condition
	// any order: the visitor puts things in order itself
	for _, c = range w.conds {
		visit(&c)
	}
}

// Each calls observed with what each observer last saw of a subject, and judged
// with each of its conditions.
func (w *World) Each(s fettle.Subject, observed func(*fettle.Observation), judged func(*fettle.Condition)) {
	n := w.nodes[s]
	if n == nil {
		return
	}
	for i := range n.seen.list {
		observed(&n.seen.list[i].value)
	}
	if n.cond.len() == 0 {
		return
	}
	var c fettle.Condition // one for all: the visitor's pointer escapes
	for i := range n.cond.list {
		c = w.conds[fettle.ConditionKey{Code: n.cond.list[i].key, Subject: s}]
		judged(&c)
	}
}

// Size returns how many subjects are known and how many conditions are judged.
func (w *World) Size() (subjects, conditions int) { return len(w.nodes), len(w.conds) }
