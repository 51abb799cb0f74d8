// Package guard says whether a step may start. Every guard is a total, pure
// function of a Question: the step, the facts, the time and what the loop knows
// of the plan. A guard that does not know, refuses, and says why, with the
// numbers, and what would lift the refusal.
//
// It is not the policy (that is data, read here) and it does not act. Its
// invariants are S1 to S14 of the design, as far as a server can keep them; each
// guard names the one that it keeps. The list is fixed: no runbook, adapter or
// user can take a guard out of it.
package guard

import (
	"slices"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/world"
)

// Question is everything that a decision on one step may depend on.
type Question struct {
	Plan   fettle.Plan
	Step   fettle.Step // late parameters filled in
	View   world.View
	Now    time.Time
	Policy fettle.Policy

	// Onset is when the trouble was first seen: what was asked for earlier tells
	// of a world that is no more, however young it is.
	Onset time.Time

	// Undo: the step is not applied but taken back. Releases are free of
	// freeze, maintenance, budgets, rate and autonomy, never of S2 and S4.
	Undo bool
	// Begun: the plan has done a step already. What only decides whether a plan
	// may begin (rate) is not asked again.
	Begun bool
	// Ahead: the plan has not begun, and this is one of its later steps, on the
	// world as the steps before it are foretold to leave it. See Foresee.
	Ahead bool

	Level    fettle.Level // that the policy gives this plan
	LevelWhy string
	Approval *Approval      // nil: nobody approved
	Freeze   *Freeze        // nil: not frozen
	Windows  []Window       // of maintenance, open or not
	Leader   bool           // this server holds the leader token, asked just now
	Attempts []Attempt      // plans begun, within the rate's window, anywhere
	Permit   *fettle.Permit // under which an agent that is cut off decides by itself; nil: a server decides
	Flapping bool           // the cause flaps
	Proofs   []fettle.Proof

	// Predicted is what the plan foretells of the quorum group of this step,
	// from the facts as they are now; nil when the step foretells none.
	Predicted *fettle.QuorumGroup

	// Requires holds the answer to each of Step.Requires, in order.
	Requires []Answer
	// Ill reports whether a subject has a raised condition that takes something
	// from its users.
	Ill func(fettle.Subject) bool
	// Doubtful reports whether a subject was last known to be ill, as Ill has it, and
	// cannot be known at present. Of others the worst case counts (S1). nil: none is.
	Doubtful func(fettle.Subject) bool
	// Stopped returns the condition that says that a person stopped this, or
	// what it runs on, on purpose.
	Stopped func(fettle.Subject) (fettle.ConditionKey, bool)
	// Action is the step's catalogue entry; nil is refused.
	Action *fettle.ActionSpec
}

// since is how far back the guards look: no further than the step says, and not
// before the trouble began. A later step is judged on what is known; what it rests
// on is asked for anew before it.
func (q Question) since() time.Time {
	if q.Ahead {
		return time.Time{}
	}
	t := q.Now.Add(-q.Step.Fresh)
	if q.Onset.After(t) {
		return q.Onset
	}
	return t
}

// Answer is the value of a precondition and, where it is not yes, why.
type Answer struct {
	Says fettle.Tri
	Why  string
}

// Approval is a person's yes to one plan, by hash, with an end.
type Approval struct {
	Plan  string    `json:"plan"` // hash
	By    string    `json:"by"`
	Until time.Time `json:"until"`

	// The person's signature, where there is one. It is not judged here: it goes with
	// every step of the plan to those who check it.
	Note        []byte `json:"note,omitempty"`
	Certificate []byte `json:"certificate,omitempty"` // X.509, DER
}

// Freeze stops everything that is new.
type Freeze struct {
	By    string    `json:"by"`
	Since time.Time `json:"since"`
	Why   string    `json:"why,omitempty"`
}

// Attempt is a plan that was begun.
type Attempt struct {
	At    time.Time           `json:"at"`
	Cause fettle.ConditionKey `json:"cause"`
	Rung  string              `json:"rung"`
}

// Guard is one of the list.
type Guard struct {
	Name      string
	Invariant string
	judge     func(Question) fettle.Verdict
	when      moment
}

// moment is when a guard can answer.
type moment int

const (
	atStart moment = iota // only when the step is about to start
	ahead                 // before the plan begins, too, on what is foretold
)

// List returns the guards, in the order in which they are asked.
func List() []Guard {
	return []Guard{
		{"leader", "S7", leader, atStart},
		{"permit", "S12", standing, ahead},
		{"freeze", "S11", freeze, atStart},
		{"maintenance", "S11", maintenance, atStart},
		{"person", "S11", person, ahead},
		{"catalogued", "S7", catalogued, ahead},
		{"settled", "S1", settled, atStart},
		{"freshness", "S1", freshness, atStart},
		{"preconditions", "S7", preconditions, ahead},
		{"generations", "S7", generations, atStart},
		{"own-store", "S2", ownStore, ahead},
		{"quorum", "S2", quorum, ahead},
		{"identity", "S2", identity, ahead},
		{"implied-quorum", "S2", impliedQuorum, ahead},
		{"implied-identity", "S2", impliedIdentity, ahead},
		{"replicas", "S2", replicas, ahead},
		{"budget", "S3", budget, ahead},
		{"fencing", "S4", fencing, atStart},
		{"data", "S5", data, ahead},
		{"reachability", "S8", reachability, ahead},
		{"forward-only", "S9", forwardOnly, ahead},
		{"ladder", "S10", ladder, atStart},
		{"flapping", "S10", flapping, atStart},
		{"secrets", "S14", secrets, ahead},
		{"autonomy", "S7", autonomy, atStart},
	}
}

// Check asks every guard and returns all their verdicts, also after a refusal:
// a person is told everything that stands in the way at once. A guard that
// panics, refuses.
func Check(q Question) []fettle.Verdict { return check(List(), q) }

// Foresee asks about a later step of a plan that has not begun: those guards that
// can be asked on what is foretold. A plan that would be stopped half-way is not
// begun. That it allows is no leave to start: Check is asked before each step.
func Foresee(q Question) []fettle.Verdict {
	q.Ahead = true
	return check(slices.DeleteFunc(List(), func(g Guard) bool { return g.when == atStart }), q)
}

func check(list []Guard, q Question) []fettle.Verdict {
	out := make([]fettle.Verdict, 0, len(list))
	for _, g := range list {
		out = append(out, ask(g, q))
	}
	return out
}

func ask(g Guard, q Question) (v fettle.Verdict) {
	defer func() {
		if r := recover(); r != nil {
			v = fettle.Verdict{Why: "the guard itself failed, and a guard that fails refuses", Lifts: "report this as a defect of Fettle"}
		}
		v.Guard, v.Invariant = g.Name, g.Invariant
	}()
	return g.judge(q)
}

// Allowed reports whether every verdict allows; of none, it does not.
func Allowed(verdicts []fettle.Verdict) bool {
	return len(verdicts) > 0 && !slices.ContainsFunc(verdicts, func(v fettle.Verdict) bool { return !v.Allow })
}

// Refusals returns the verdicts that refuse.
func Refusals(verdicts []fettle.Verdict) []fettle.Verdict {
	var out []fettle.Verdict
	for _, v := range verdicts {
		if !v.Allow {
			out = append(out, v)
		}
	}
	return out
}

func allow(why string) fettle.Verdict { return fettle.Verdict{Allow: true, Why: why} }

func refuse(why, arithmetic, lifts string) fettle.Verdict {
	return fettle.Verdict{Why: why, Arithmetic: arithmetic, Lifts: lifts}
}
