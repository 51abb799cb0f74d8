package fettle

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Plan is what will be done for one cause: one rung of one runbook, made
// concrete. It is data: it can be printed, compared, hashed and replayed.
type Plan struct {
	Schema    int          `json:"schema"`
	Incident  string       `json:"incident"`
	Cause     ConditionKey `json:"cause"`
	Runbook   string       `json:"runbook"`
	Rung      string       `json:"rung"`
	Attempt   int          `json:"attempt"` // how many times this rung was begun for this trouble before
	Judged    Pins         `json:"judged"`  // what it was made with
	Takes     []Taking     `json:"takes,omitempty"`
	Risk      Risk         `json:"risk"`
	ProvedBy  string       `json:"proved_by,omitempty"` // the lab test that proved the rung
	Loses     string       `json:"loses,omitempty"`     // what would be lost for good, said in a sentence
	Steps     []Step       `json:"steps"`
	Predicted []Prediction `json:"predicted,omitempty"` // the facts after each step, as far as declared
	Hash      string       `json:"hash"`                // of everything above; an approval binds it
}

// Pins are the hashes of what a decision was made with, so that a replay can
// tell a changed judge or catalogue from a changed world.
type Pins struct {
	Judge     string `json:"judge"`     // version of the pure code
	Catalogue string `json:"catalogue"` // hash over all adapters' catalogues
	Runbooks  string `json:"runbooks"`
	Policy    string `json:"policy"`
}

// Step is one action on one target. Everything it needs is in it.
type Step struct {
	ID          string        `json:"id"` // unique in its plan
	Action      string        `json:"action"`
	Version     int           `json:"version"`
	Target      Subject       `json:"target"`
	Host        Subject       `json:"host"`            // whose agent acts
	Group       Subject       `json:"group,omitempty"` // the quorum group that counts the target's vote
	Params      Facts         `json:"params,omitempty"`
	Late        []Late        `json:"late,omitempty"`        // parameters that come from earlier steps
	When        string        `json:"when,omitempty"`        // CEL; known to be false: the step is skipped
	Requires    []string      `json:"requires,omitempty"`    // CEL preconditions, asked again before the step
	Generations []Generation  `json:"generations,omitempty"` // facts that must still be what they were
	Looks       []Look        `json:"looks,omitempty"`       // what is asked afresh before the guards decide
	Fresh       time.Duration `json:"fresh_ns"`              // the oldest fact that the guards may decide on
	Claims      []Claim       `json:"claims,omitempty"`
	Effects     []EffectSpec  `json:"effects,omitempty"`
	Expect      string        `json:"expect,omitempty"`       // CEL: what must be observed
	Within      time.Duration `json:"within_ns"`              // by when
	Hold        time.Duration `json:"hold_ns,omitempty"`      // for how long it must stay so
	Timeout     time.Duration `json:"timeout_ns"`             // of the action itself
	Undo        bool          `json:"undo,omitempty"`         // its action can undo it
	ForwardOnly string        `json:"forward_only,omitempty"` // why not
	Fences      Subject       `json:"fences,omitempty"`       // a host that must be proven fenced before this step (S4)
	SafePoint   bool          `json:"safe_point,omitempty"`   // after it, a frozen plan may rest
	Risk        Risk          `json:"risk"`
	Takes       []Taking      `json:"takes,omitempty"`
}

// Late is a parameter whose value an earlier step will have produced.
type Late struct {
	Param  string   `json:"param"`
	Step   string   `json:"step"`
	Output string   `json:"output"`
	Type   FactType `json:"type"` // that it must have when it is known
}

// Generation pins a fact at the value it had when the plan was made.
type Generation struct {
	Subject Subject `json:"subject"`
	Fact    string  `json:"fact"`
	Value   Value   `json:"value"`
}

// UnmarshalJSON reads the value back as the type that it had: a plan that comes
// out of a store must pin what was pinned.
func (g *Generation) UnmarshalJSON(data []byte) error {
	var raw struct {
		Subject Subject         `json:"subject"`
		Fact    string          `json:"fact"`
		Value   json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return fmt.Errorf("generation: %w", err)
	}
	var facts Facts
	if err := json.Unmarshal(slices.Concat([]byte(`{"value":`), raw.Value, []byte(`}`)), &facts); err != nil {
		return fmt.Errorf("generation of %s: %w", raw.Subject, err)
	}
	*g = Generation{Subject: raw.Subject, Fact: raw.Fact, Value: facts["value"]}
	return nil
}

// Claim is what a step takes away while it runs.
type Claim struct {
	What   Taking  `json:"what"`
	Of     Subject `json:"of"`     // the quorum group, replica set or failure domain
	Member Subject `json:"member"` // which part of it
}

// Prediction is what must be observed of one subject after a step.
type Prediction struct {
	Step    string       `json:"step"`
	Subject Subject      `json:"subject"`
	Facts   Facts        `json:"facts,omitempty"`
	Quorum  *QuorumGroup `json:"quorum,omitempty"`

	// NotLeader are members that must not lead afterwards, where it is not
	// foretold who will: an election is not ours to predict.
	NotLeader []Subject `json:"not_leader,omitempty"`
}

// Verdict is a guard's answer on one step.
type Verdict struct {
	Guard      string `json:"guard"`
	Invariant  string `json:"invariant"` // "S2"
	Allow      bool   `json:"allow"`
	Why        string `json:"why"`                  // a sentence
	Arithmetic string `json:"arithmetic,omitempty"` // the numbers: "serving 2 − 1 = 1 < majority 2"
	Lifts      string `json:"lifts,omitempty"`      // what would lift the refusal
}

// Proof shows that a host cannot act any more (S4). Only a proof for the host's
// present boot counts.
type Proof struct {
	Host   Subject   `json:"host"`
	BootID string    `json:"boot_id"` // the boot that it ended
	Kind   ProofKind `json:"kind"`
	At     time.Time `json:"at"`
	By     string    `json:"by,omitempty"` // the person, of a signed word
}

// ProofKind says how it is known that a host is fenced. A passed timer is none.
type ProofKind string

// The kinds of proof.
const (
	PowerOff   ProofKind = "power-off"   // the power was seen to be off
	BootChange ProofKind = "boot-change" // another boot id was seen
	PoisonPill ProofKind = "poison-pill" // taken, with a hardware watchdog verified to be armed
	SignedWord ProofKind = "signed-word" // a person vouches
)
