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
