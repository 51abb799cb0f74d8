package world

import (
	"slices"

	"fettle/internal/fettle"
)

// Moves is what has changed in a world, for a reader whose work is to be no more than
// that. Its lists are in no particular order and may have repeats.
type Moves struct {
	Subjects []fettle.Subject      // anything that a View says of them may be new, if only its age
	Turned   []fettle.ConditionKey // whose state is another, or that are judged no more, or for the first time
	Risen    []fettle.ConditionKey // that are raised and were not, or are since another time
	Arcs     bool                  // an edge came or went
}

// moves is what is noted for the reader. The zero value notes nothing.
type moves struct {
	on bool
	Moves
}

// Follow makes the world note what changes from now on.
func (w *World) Follow() { w.moved.on = true }

// Moves returns what has changed since it was called last, or since Follow. Claims are
// not among it. The lists are good until the world is changed.
func (w *World) Moves() Moves {
	m := w.moved.Moves
	w.moved.Moves = Moves{Subjects: m.Subjects[:0], Turned: m.Turned[:0], Risen: m.Risen[:0]}
	return m
}

func (m *moves) subject(s fettle.Subject) {
	if !m.on || len(m.Subjects) > 0 && m.Subjects[len(m.Subjects)-1] == s {
		return
	}
	m.Subjects = append(m.Subjects, s)
}

// condition notes what becomes of a condition: before and after, as far as there are any.
func (m *moves) condition(before, after fettle.Condition, was, is bool) {
	if !m.on {
		return
	}
	if was != is || before.State != after.State {
		key := after.ConditionKey
		if !is {
			key = before.ConditionKey
		}
		m.Turned = append(m.Turned, key)
	}
	if is && after.Raised() && (!before.Raised() || !before.FirstSeen.Equal(after.FirstSeen)) {
		m.Risen = append(m.Risen, after.ConditionKey)
	}
}

// relink puts the edges of an observation in the place of those of the one before.
func (w *World) relink(before, after []fettle.Edge) {
	if slices.Equal(before, after) {
		return
	}
	w.unlink(before)
	w.link(after)
}
