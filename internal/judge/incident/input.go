package incident

import (
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/guard"
)

// Input is one thing that happened, with its time. Every field but At may be
// empty; an Input with nothing but At lets time pass. Inputs are recorded as
// JSON and replayed.
type Input struct {
	At           time.Time            `json:"at"`
	Observations []fettle.Observation `json:"observations,omitempty"`
	Conditions   []fettle.Condition   `json:"conditions,omitempty"` // judged elsewhere
	Gathered     string               `json:"gathered,omitempty"`   // the Gather of this key was answered, as far as it will be
	Outcome      *fettle.Outcome      `json:"outcome,omitempty"`    // of an Intend or a Recover
	Answer       *Answer              `json:"answer,omitempty"`
	Freeze       *guard.Freeze        `json:"freeze,omitempty"`
	Thaw         bool                 `json:"thaw,omitempty"`
	ThawBy       string               `json:"thaw_by,omitempty"`
	Window       *guard.Window        `json:"window,omitempty"`     // of maintenance, put by ID
	EndWindow    string               `json:"end_window,omitempty"` // by ID
	EndedBy      string               `json:"ended_by,omitempty"`
	Leader       *bool                `json:"leader,omitempty"`
	Policy       *fettle.Policy       `json:"policy,omitempty"`
	Merged       *Merged              `json:"merged,omitempty"` // what an agent went through alone
	Forget       []string             `json:"forget,omitempty"` // incidents that are in files now
}

// Answer is what a person said to an incident.
type Answer struct {
	Incident string    `json:"incident"`
	Say      Say       `json:"say"`
	Plan     string    `json:"plan,omitempty"` // the hash of the plan that is approved
	By       string    `json:"by"`
	Until    time.Time `json:"until,omitzero"` // of an approval
	Why      string    `json:"why,omitempty"`

	// Of an approval: the person's signature, where it was given (guard.Approval).
	Note        []byte `json:"note,omitempty"`
	Certificate []byte `json:"certificate,omitempty"`
}

// Say is a person's word.
type Say string

// The words.
const (
	SayApprove Say = "approve"
	SayRefuse  Say = "refuse" // the incident goes to the person: Fettle does no more about it
	SayUndo    Say = "undo"   // take back what was done, as far as it can be
)

// DecisionKind sorts decisions.
type DecisionKind string

// The kinds of decision.
const (
	Gather  DecisionKind = "gather"  // observe the looks now, then feed Gathered with Key
	Look    DecisionKind = "look"    // the same, with nobody waiting for it
	Intend  DecisionKind = "intend"  // make the intent durable, then dispatch; feed the Outcome
	Recover DecisionKind = "recover" // ask the agent what became of Key; feed the Outcome
	Save    DecisionKind = "save"    // keep the record, durably, before what follows
	Call    DecisionKind = "call"    // call a person
)

// Decision is one thing to be done.
type Decision struct {
	Kind     DecisionKind     `json:"kind"`
	Incident string           `json:"incident,omitempty"`
	Key      string           `json:"key,omitempty"`
	Looks    []fettle.Look    `json:"looks,omitempty"`
	Within   time.Duration    `json:"within_ns,omitempty"` // how long a gather may take
	Plan     string           `json:"plan,omitempty"`      // hash
	Step     *fettle.Step     `json:"step,omitempty"`      // of Intend and Recover: late parameters filled in
	Undo     bool             `json:"undo,omitempty"`
	Outputs  fettle.Facts     `json:"outputs,omitempty"`  // of the step to undo
	Approval *fettle.Approval `json:"approval,omitempty"` // that the step goes with, where a person signed one
	Record   *Record          `json:"record,omitempty"`
	Text     string           `json:"text,omitempty"` // of Call
	Claims   []fettle.Claim   `json:"claims,omitempty"`
}

// Record is an incident with what is needed to go on with it after a crash.
type Record struct {
	fettle.Incident
	restored bool     // it is from before this mind; not kept
	poked    bool     // something that it depends on changed; not kept
	over     bool     // its cause was seen to end, and not since to be there; not kept
	effects  int      // how many its story said last; not kept
	Progress Progress `json:"progress"`
}

// Phase says what an incident waits for.
type Phase string

// The phases.
const (
	PhaseIdle    Phase = "idle"    // for something to change, or Due
	PhaseSettle  Phase = "settle"  // for a look that settles the diagnosis
	PhaseGather  Phase = "gather"  // for the facts of the next step
	PhaseIntent  Phase = "intent"  // for a dispatch's outcome
	PhaseRecover Phase = "recover" // for what became of a dispatch
	PhaseVerify  Phase = "verify"  // for the expectation to be observed
	PhaseHold    Phase = "hold"    // for the expectation to have held
	PhaseClear   Phase = "clear"   // for the cause to clear after the last step
)

// Progress is where an incident stands in its ladder and its plan.
type Progress struct {
	Phase       Phase                 `json:"phase"`
	Since       time.Time             `json:"since"`             // of the phase
	Due         time.Time             `json:"due,omitzero"`      // when something must happen without an input
	Deadline    time.Time             `json:"deadline,omitzero"` // of the phase: of the expectation, or the end of the hold
	Rung        int                   `json:"rung"`              // of the ladder: index over all runbooks' rungs for the cause
	Attempt     int                   `json:"attempt"`           // plans begun
	Step        int                   `json:"step"`              // index in the plan
	Try         int                   `json:"try"`               // dispatches of any step, makes keys unique
	Key         string                `json:"key,omitempty"`     // in flight, or the last
	Undoing     bool                  `json:"undoing,omitempty"` // steps are taken back, from Step downwards
	UndoWhy     string                `json:"undo_why,omitempty"`
	UndoAll     bool                  `json:"undo_all,omitempty"`     // what earlier rungs did is taken back too
	Done        []DoneStep            `json:"done,omitempty"`         // steps done, in order
	Left        []LeftPlan            `json:"left,omitempty"`         // plans that failed, and what they did, in order
	Predicted   []fettle.Prediction   `json:"predicted,omitempty"`    // for the step in flight
	Baseline    []fettle.ConditionKey `json:"baseline,omitempty"`     // raised before the step in flight
	Intended    time.Time             `json:"intended,omitzero"`      // when the step in flight was decided on
	Acted       time.Time             `json:"acted,omitzero"`         // when the step in flight was done: only what was asked for later verifies it
	Again       int                   `json:"again,omitempty"`        // consecutive refusals or retries, for the back-off
	Refused     time.Time             `json:"refused,omitzero"`       // since when the next step has been refused
	RefusalTold bool                  `json:"refusal_told,omitempty"` // a person was called about that
	Looked      int                   `json:"looked,omitempty"`       // times that a settling look was asked for
	Round       time.Time             `json:"round,omitzero"`         // the onset since which everything around the cause was looked at
	Wide        bool                  `json:"wide,omitempty"`         // everything about the cause was looked at
	Approval    *guard.Approval       `json:"approval,omitempty"`
	Mine        bool                  `json:"mine,omitempty"`     // a person took it over: nothing more is done by itself
	Attempts    []guard.Attempt       `json:"attempts,omitempty"` // plans begun, for the ladder's memory
	Asked       string                `json:"asked,omitempty"`    // hash of the plan that a person was asked about
}

// DoneStep is a step that was done and can perhaps be undone.
type DoneStep struct {
	ID      string       `json:"id"`
	Step    fettle.Step  `json:"step"` // as it was dispatched
	Key     string       `json:"key"`
	Outputs fettle.Facts `json:"outputs,omitempty"`
	Undone  bool         `json:"undone,omitempty"`
	Skipped bool         `json:"skipped,omitempty"`
}

// LeftPlan is a plan that failed half-way and was left for the next rung. What it
// did stands until a person wants it back.
type LeftPlan struct {
	Plan fettle.Plan `json:"plan"`
	Done []DoneStep  `json:"done"`
}

func (r *Record) clone() *Record {
	c := *r
	c.Conditions = append([]fettle.ConditionKey(nil), r.Conditions...)
	c.Story = append([]fettle.Event(nil), r.Story...)
	c.Receipts = append([]fettle.Receipt(nil), r.Receipts...)
	c.Progress.Done = append([]DoneStep(nil), r.Progress.Done...)
	c.Progress.Left = append([]LeftPlan(nil), r.Progress.Left...)
	if r.Plan != nil {
		p := *r.Plan
		c.Plan = &p
	}
	return &c
}

// step returns the plan's present step, nil past the end.
func (r *Record) step() *fettle.Step {
	if r.Plan == nil || r.Progress.Step < 0 || r.Progress.Step >= len(r.Plan.Steps) {
		return nil
	}
	return &r.Plan.Steps[r.Progress.Step]
}

// outputs returns what the steps done so far produced, by step.
func (r *Record) outputs() map[string]fettle.Facts {
	out := map[string]fettle.Facts{}
	for _, d := range r.Progress.Done {
		if !d.Undone && !d.Skipped {
			out[d.ID] = d.Outputs
		}
	}
	return out
}

// begun reports whether the present plan has touched anything.
func (r *Record) begun() bool {
	for _, d := range r.Progress.Done {
		if !d.Skipped {
			return true
		}
	}
	return false
}

// inFlight reports whether a dispatch may be under way.
func (r *Record) inFlight() bool {
	return r.Progress.Phase == PhaseIntent || r.Progress.Phase == PhaseRecover
}
