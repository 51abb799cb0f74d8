package diagnose

import (
	"errors"
	"fmt"
	"time"
)

// Weights are the numbers that the diagnoser weighs explanations with, and the
// limits of its search. They are integers, published, and the same for every
// fleet: a diagnosis can be checked by hand. The reason for each default is at
// DefaultWeights.
//
// The price of one cause is
//
//	Cause + Layer × (layers above hardware)
//	+ Supposed                              if it is not raised itself
//	+ AbsentAlways × (always effects that were seen to be absent)
//	+ AbsentOften × (often effects that were seen to be absent)
//
// where the last two together add at most AbsentObserved to a cause that is
// raised. An explanation costs what its causes cost together.
type Weights struct {
	Cause          int // each cause
	Layer          int // each layer above hardware
	Supposed       int // a cause that nobody saw
	AbsentAlways   int // each always effect that was seen to be absent
	AbsentOften    int // each often effect that was seen to be absent
	AbsentObserved int // the most that absent effects add to an observed cause

	Margin int // explanations that cost at most this much more than the best are too close to call; less than Cause

	ClockError time.Duration // by which the clocks of two hosts may differ

	Burst int // a supposed cause that could account for so many ill subjects at once is asked for evidence, chosen or not

	DoubtLeast    int // an observer is doubted when at least so many things away from its own host seem dead to it alone…
	DoubtPermille int // …and they are more than this share of all that it looks at there

	Work         int // elementary steps of the search in one knot of shared causes, before it stops early
	Alternatives int // the most other explanations that are reported
	Looks        int // the most looks that are asked for by one diagnosis
}

// DefaultWeights returns the published weights.
func DefaultWeights() Weights {
	return Weights{
		// The unit that everything else is measured against: large enough that
		// parts of a cause can be said in integers.
		Cause: 10,

		// With seven layers the dearest observed cause costs 16: a layer decides
		// between equals and never outweighs a further cause.
		Layer: 1,

		// One symptom (at most 16) is never laid at the door of something that
		// nobody saw (at least 25); three of the cheapest (33) are, at that of
		// any shared cause up to the data layer (29). With two it depends on the
		// layers, as it does for a person.
		Supposed: 15,

		// As dear as the dearest symptom: each always effect that was seen to be
		// absent takes back one that is there, so a supposed shared cause must
		// have more on its side than against it.
		AbsentAlways: 16,

		// A quarter of that, and more than Margin: one is enough to decide
		// between equals, four weigh as much as an absent always effect.
		AbsentOften: 4,

		// What was seen is there, whatever should have followed and did not: then
		// the catalogue is wrong as likely as the observation. The dearest
		// observed cause (16 + 8) stays cheaper than the cheapest supposed one.
		AbsentObserved: 8,

		// Three layers' difference. A further cause, a supposed one and even one
		// absent often effect are all outside, so what is left to settle by a
		// look is only what nothing speaks about.
		Margin: 3,

		// Hosts kept by NTP are within milliseconds; one second is what a host
		// may be off by before time synchronisation itself is a condition.
		ClockError: time.Second,

		// Two may be chance; three ill at once that share something is a burst.
		Burst: 3,

		// A member of a five-member cluster looks at four others: losing all of
		// them is a lost quorum, not a blind observer. From five on, and from
		// more than half, blindness is the simpler explanation.
		DoubtLeast: 5, DoubtPermille: 500,

		// About half a millisecond, so that one change stays under one. Ten
		// overlapping causes need some thousands.
		Work: 100_000,

		// More than a person compares, and more than are asked for at once.
		Alternatives: 8, Looks: 24,
	}
}

// heaviest bounds every weight, so that no sum of them can overflow.
const heaviest = 1_000_000

func (w Weights) check() error {
	var wrong []error
	for _, n := range []struct {
		name  string
		value int
		least int
	}{
		{"Cause", w.Cause, 1}, {"Layer", w.Layer, 0}, {"Supposed", w.Supposed, 1},
		{"AbsentAlways", w.AbsentAlways, 0}, {"AbsentOften", w.AbsentOften, 0}, {"AbsentObserved", w.AbsentObserved, 0},
		{"Margin", w.Margin, 0}, {"Burst", w.Burst, 2}, {"DoubtLeast", w.DoubtLeast, 1},
		{"DoubtPermille", w.DoubtPermille, 1}, {"Work", w.Work, 1}, {"Alternatives", w.Alternatives, 1}, {"Looks", w.Looks, 1},
	} {
		if n.value < n.least || n.value > heaviest {
			wrong = append(wrong, fmt.Errorf("weight %s is %d; want %d to %d (see DefaultWeights)", n.name, n.value, n.least, heaviest))
		}
	}
	if w.Margin >= w.Cause {
		// Else an explanation with a needless cause would be too close to call.
		wrong = append(wrong, fmt.Errorf("weight Margin is %d and Cause %d; Margin must be less", w.Margin, w.Cause))
	}
	if w.AbsentOften > w.AbsentAlways {
		wrong = append(wrong, fmt.Errorf("weight AbsentOften is %d and AbsentAlways %d; often speaks less than always", w.AbsentOften, w.AbsentAlways))
	}
	if w.ClockError < 0 || w.ClockError > 24*time.Hour {
		wrong = append(wrong, fmt.Errorf("weight ClockError is %v; want 0 to 24h", w.ClockError))
	}
	return errors.Join(wrong...)
}
