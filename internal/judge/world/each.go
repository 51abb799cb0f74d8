package world

import "fettle/internal/fettle"

// EachSubject calls visit with every known subject, in no particular order: for
// a reader that takes in the whole world at once and whose result does not
// depend on the order.
func (w *World) EachSubject(visit func(fettle.Subject)) {
	// any order: the visitor has to put things in order itself
	for s := range w.nodes {
		visit(s)
	}
}

// Each calls observed with what each observer last saw of a subject, and judged
// with each of its conditions, both in no particular order and for the same kind
// of reader. The pointers are good during the call only.
func (w *World) Each(s fettle.Subject, observed func(*fettle.Observation), judged func(*fettle.Condition)) {
	n := w.nodes[s]
	if n == nil {
		return
	}
	// any order: the visitor has to put things in order itself
	for _, o := range n.seen {
		observed(&o)
	}
	// any order: the visitor has to put things in order itself
	for code := range n.cond {
		c := w.conds[fettle.ConditionKey{Code: code, Subject: s}]
		judged(&c)
	}
}
