package world

import (
	"slices"
	"time"

	"fettle/internal/fettle"
)

// Related implements View. A malformed path leads nowhere; catalogues and
// runbooks are checked when they are loaded, so none gets here.
func (w *World) Related(s fettle.Subject, path fettle.Path) []fettle.Subject {
	return w.related(s, path, nil)
}

// related is Related; by is told of every subject whose edges decide.
func (w *World) related(s fettle.Subject, path fettle.Path, by func(fettle.Subject)) []fettle.Subject {
	hops, err := path.Hops()
	if err != nil {
		return nil
	}
	at := []fettle.Subject{s}
	for _, h := range hops {
		var next []fettle.Subject
		for _, from := range at {
			if by != nil {
				by(from)
			}
			n := w.nodes[from]
			if n == nil {
				continue
			}
			arcs := &n.out
			if h.Back {
				arcs = &n.in
			}
			for i := range arcs.list {
				if a := &arcs.list[i].key; a.rel == h.Rel {
					next = append(next, a.other)
				}
			}
		}
		slices.Sort(next)
		at = slices.Compact(next)
	}
	return at
}

// Quorum implements View. The membership is that of the newest observation; a
// member serves if more of the hosts that know say so than deny it, and is
// unknown at a tie. The leader is the one that the newest observation names.
func (w *World) Quorum(group fettle.Subject, since time.Time) (fettle.QuorumGroup, bool) {
	var newest fettle.Observation
	votes, serves := map[fettle.Subject]int{}, map[fettle.Subject]bool{}
	lost := map[fettle.Subject]fettle.Tri{}
	found := false
	for _, o := range w.Observations(group) {
		if !o.Known() || o.Quorum == nil || o.Asked.Before(since) {
			continue
		}
		if !found || o.Asked.After(newest.Asked) {
			newest = o
		}
		found = true
		for _, m := range o.Quorum.Members {
			votes[m.Subject] += int(m.Serving)
			serves[m.Subject] = serves[m.Subject] || m.Serving == fettle.Yes
			// One who saw the damage outweighs those who did not look.
			if m.LogLost == fettle.Yes || lost[m.Subject] == fettle.Unknown {
				lost[m.Subject] = m.LogLost
			}
		}
	}
	if !found {
		return fettle.QuorumGroup{}, false
	}
	g := newest.Quorum.Clone()
	for i, m := range g.Members {
		g.Members[i].LogLost = lost[m.Subject]
		switch v := votes[m.Subject]; {
		case v > 0:
			g.Members[i].Serving = fettle.Yes
		case v < 0:
			g.Members[i].Serving = fettle.No
		default:
			g.Members[i].Serving = fettle.Unknown
		}
		g.Members[i].Disputed = g.Members[i].Serving == fettle.No && serves[m.Subject]
	}
	return g, true
}

// Replicas implements View.
func (w *World) Replicas(s fettle.Subject, since time.Time) (fettle.ReplicaSet, bool) {
	var worst fettle.ReplicaSet
	found := false
	for _, o := range w.Observations(s) {
		if !o.Known() || o.Replicas == nil || o.Asked.Before(since) {
			continue
		}
		r := *o.Replicas
		if !found {
			worst, found = r, true
			continue
		}
		worst.Copies = min(worst.Copies, r.Copies)
		worst.InSync = min(worst.InSync, r.InSync)
		worst.Minimum = max(worst.Minimum, r.Minimum)
	}
	return worst, found
}
