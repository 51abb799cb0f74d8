package world

import (
	"time"

	"fettle/internal/fettle"
)

// Since returns a View of w that knows only what was asked for at t or later:
// after a step its success is observed, not remembered. Edges, conditions and
// claims are w's own.
func (w *World) Since(t time.Time) View { return recent{View: w, since: t} }

type recent struct {
	View
	since time.Time
}

func (r recent) Observations(s fettle.Subject) []fettle.Observation {
	var list []fettle.Observation
	for _, o := range r.View.Observations(s) {
		if !o.Asked.Before(r.since) {
			list = append(list, o)
		}
	}
	return list
}

func (r recent) Facts(s fettle.Subject) fettle.Facts { return merge(r.Observations(s), "") }

func (r recent) FactsBy(s fettle.Subject, probe string) fettle.Facts {
	return merge(r.Observations(s), probe)
}

func (r recent) Asked(s fettle.Subject, names ...string) (time.Time, bool) {
	return asked(r.Observations(s), names)
}

func (r recent) Quorum(g fettle.Subject, since time.Time) (fettle.QuorumGroup, bool) {
	return r.View.Quorum(g, later(since, r.since))
}

func (r recent) Replicas(s fettle.Subject, since time.Time) (fettle.ReplicaSet, bool) {
	return r.View.Replicas(s, later(since, r.since))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Counting returns a View of v that counts only the word of those who looked at t
// or later, where anybody did: who has not looked since a member went down would
// outvote who has. Facts are v's own, which are the newest anyway.
func Counting(v View, t time.Time) View { return counting{View: v, since: t} }

type counting struct {
	View
	since time.Time
}

func (c counting) Quorum(g fettle.Subject, since time.Time) (fettle.QuorumGroup, bool) {
	if group, ok := c.View.Quorum(g, later(since, c.since)); ok {
		return group, true
	}
	return c.View.Quorum(g, since)
}

func (c counting) Replicas(s fettle.Subject, since time.Time) (fettle.ReplicaSet, bool) {
	if set, ok := c.View.Replicas(s, later(since, c.since)); ok {
		return set, true
	}
	return c.View.Replicas(s, since)
}
