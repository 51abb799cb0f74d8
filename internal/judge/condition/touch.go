package condition

import (
	"slices"

	"fettle/internal/fettle"
	"fettle/internal/judge/world"
)

// toJudge collects the conditions that a touch can have changed.
type toJudge struct {
	e    *Evaluator
	w    *world.World
	keys map[fettle.ConditionKey]job
}

// job is one condition to judge.
type job struct {
	spec  *spec
	named bool // its subject was touched by name, not only as somebody's neighbour
}

// touched adds all that new observations of s can have changed. Where they have
// other edges than before, both ends of each edge that came or went count as
// touched too: the edges need not be about s itself.
func (t *toJudge) touched(s fettle.Subject) {
	for _, sp := range t.e.specs[s.Kind()] {
		t.keys[fettle.ConditionKey{Code: sp.Code, Subject: s}] = job{sp, true}
	}
	moved := t.rewired(s)
	t.spread(s, slices.Contains(moved, s))
	for _, end := range moved {
		if end != s {
			t.spread(end, true)
		}
	}
}

// rewired returns the ends of the edges that came or went with the observations
// of s, sorted, and remembers the present ones.
func (t *toJudge) rewired(s fettle.Subject) []fettle.Subject {
	var now []fettle.Edge
	t.e.room = t.w.AppendObservations(t.e.room[:0], s)
	for i := range t.e.room {
		o := &t.e.room[i]
		if len(now) == 0 {
			now = slices.Clip(o.Edges) // most have one observer; what it has is never changed
		} else {
			now = append(now, o.Edges...)
		}
	}
	before := t.e.edges[s]
	if slices.Equal(before, now) {
		return nil
	}
	count := map[fettle.Edge]int{}
	for _, e := range now {
		count[e]++
	}
	for _, e := range before {
		count[e]--
	}
	var ends []fettle.Subject
	for _, e := range slices.Concat(before, now) {
		if count[e] != 0 {
			ends = append(ends, e.From, e.To)
		}
	}
	if len(now) == 0 {
		delete(t.e.edges, s)
	} else {
		t.e.edges[s] = now
	}
	slices.Sort(ends)
	return slices.Compact(ends)
}

// spread adds the conditions of s and those of its neighbours that read it.
// rewired: what s is related to has changed, not only its facts.
func (t *toJudge) spread(s fettle.Subject, rewired bool) {
	t.add(s, always)
	read := t.e.readers
	if read.parts || read.peers {
		for _, whole := range t.w.Related(s, toWhole) {
			t.add(whole, (*spec).readsParts)
			if t.reads(s.Kind(), (*spec).readsPeers) {
				t.addAll(t.w.Related(whole, toParts), (*spec).readsPeers)
			}
		}
	}
	if read.whole {
		t.addAll(t.w.Related(s, toParts), (*spec).readsWhole)
	}
	if read.peers && rewired {
		t.addAll(t.w.Related(s, toParts), (*spec).readsPeers)
	}
	if read.host && s.Kind() == fettle.KindHost {
		t.addAll(t.w.Related(s, toTenants), (*spec).readsHost)
	}
}

func (t *toJudge) reads(k fettle.Kind, what func(*spec) bool) bool {
	return slices.ContainsFunc(t.e.specs[k], what)
}

func (t *toJudge) addAll(subjects []fettle.Subject, which func(*spec) bool) {
	for _, s := range subjects {
		t.add(s, which)
	}
}

func (t *toJudge) add(s fettle.Subject, which func(*spec) bool) {
	for _, sp := range t.e.specs[s.Kind()] {
		if which(sp) {
			key := fettle.ConditionKey{Code: sp.Code, Subject: s}
			t.keys[key] = job{sp, t.keys[key].named}
		}
	}
}

func always(*spec) bool { return true }
