package condition

import (
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/world"
)

// Resume puts into w what was raised when the judge before this one ended: a
// process that starts again would else call clear what is between its raise and
// its clear rule. Call it before anything is judged.
//
// Each is unknown until its subject is observed again. Then it goes on as the same
// episode: between the two rules it is raised, without another Delay, and it needs
// its ClearHold to become clear. One that the first judgement finds raised is so
// since its Since, or since that judgement where Since is zero: the caller leaves
// it out where too much may have happened in between.
//
// Times that are later than now are of a clock that was set back: that it was first
// seen now is then all that is certain. Conditions that are not raised are passed
// over; those that no catalogue has stay unknown for good.
func (e *Evaluator) Resume(w *world.World, raised []fettle.Condition, now time.Time) {
	for _, c := range raised {
		if c.State != fettle.Yes {
			continue
		}
		if c.FirstSeen.IsZero() {
			c.FirstSeen = c.Since
		}
		if c.FirstSeen.IsZero() || c.FirstSeen.After(now) {
			c.FirstSeen, c.LastClear = now, time.Time{}
		}
		if !c.Since.IsZero() && !c.Since.After(now) {
			e.resumed[c.ConditionKey] = c.Since
		}
		c.State, c.Since = fettle.Unknown, now
		w.SetCondition(c)
	}
}
