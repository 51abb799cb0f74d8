package world

import (
	"slices"
	"time"

	"fettle/internal/fettle"
)

// Trace is a View of a World that remembers whom it was asked about: an answer stands
// until one of them is among the world's Moves.
type Trace struct {
	w    *World
	read []fettle.Subject
	all  bool
}

// Traced returns a Trace of w that was asked nothing yet.
func (w *World) Traced() *Trace { return &Trace{w: w} }

// Read returns the subjects that what was answered so far hangs on, sorted and without
// repeats; false where it hangs on more than subjects.
func (t *Trace) Read() ([]fettle.Subject, bool) {
	slices.Sort(t.read)
	t.read = slices.Compact(t.read)
	return t.read, !t.all
}

// Since is World.Since, traced.
func (t *Trace) Since(at time.Time) View { return recent{View: t, since: at} }

func (t *Trace) note(s fettle.Subject) { t.read = append(t.read, s) }

// Facts implements View.
func (t *Trace) Facts(s fettle.Subject) fettle.Facts { t.note(s); return t.w.Facts(s) }

// FactsBy implements View.
func (t *Trace) FactsBy(s fettle.Subject, probe string) fettle.Facts {
	t.note(s)
	return t.w.FactsBy(s, probe)
}

// Asked implements View.
func (t *Trace) Asked(s fettle.Subject, names ...string) (time.Time, bool) {
	t.note(s)
	return t.w.Asked(s, names...)
}

// Observations implements View.
func (t *Trace) Observations(s fettle.Subject) []fettle.Observation {
	t.note(s)
	return t.w.Observations(s)
}

// Related implements View. It hangs on everything on the way.
func (t *Trace) Related(s fettle.Subject, path fettle.Path) []fettle.Subject {
	return t.w.related(s, path, t.note)
}

// Quorum implements View.
func (t *Trace) Quorum(group fettle.Subject, since time.Time) (fettle.QuorumGroup, bool) {
	t.note(group)
	return t.w.Quorum(group, since)
}

// Replicas implements View.
func (t *Trace) Replicas(s fettle.Subject, since time.Time) (fettle.ReplicaSet, bool) {
	t.note(s)
	return t.w.Replicas(s, since)
}

// Condition implements View.
func (t *Trace) Condition(k fettle.ConditionKey) (fettle.Condition, bool) {
	t.note(k.Subject)
	return t.w.Condition(k)
}

// ConditionsOf implements View.
func (t *Trace) ConditionsOf(s fettle.Subject) []fettle.Condition {
	t.note(s)
	return t.w.ConditionsOf(s)
}

// Claims implements View. Moves does not tell of them.
func (t *Trace) Claims() []fettle.Claim { t.all = true; return t.w.Claims() }

// Subjects implements View. Moves does not tell of them.
func (t *Trace) Subjects(k fettle.Kind) []fettle.Subject { t.all = true; return t.w.Subjects(k) }
