package fettle

import "time"

// Diagnosis is the set of causes that best explains what is raised.
type Diagnosis struct {
	Causes    []Cause        `json:"causes"`              // sorted by key
	Unsettled []Alternative  `json:"unsettled,omitempty"` // other explanations within the margin: too close to call
	Look      []Look         `json:"look,omitempty"`      // what would settle it
	Cost      int            `json:"cost"`
	Stopped   string         `json:"stopped,omitempty"` // not empty: the search was bounded, and why
	Ill       []ConditionKey `json:"ill,omitempty"`     // an observer that seems ill itself; nothing is repaired on its word
}

// Cause is one condition that explains itself and others.
type Cause struct {
	ConditionKey
	Observed bool           `json:"observed"` // raised itself, not only supposed
	Explains []ConditionKey `json:"explains,omitempty"`
	For      []string       `json:"for,omitempty"`     // sentences
	Against  []string       `json:"against,omitempty"` // sentences
	Cost     int            `json:"cost"`
}

// Alternative is another set of causes and what it costs.
type Alternative struct {
	Causes []ConditionKey `json:"causes"`
	Cost   int            `json:"cost"`
}

// Look asks for a fresh observation of a subject by a probe, wherever it can be
// made; Host restricts it to one observer's host.
type Look struct {
	Subject Subject `json:"subject"`
	Probe   string  `json:"probe"`
	Host    Subject `json:"host,omitempty"`
}

// Onset is when a condition began: after it was last seen clear and no later
// than it was first seen raised, both widened by the clock error. A zero After
// means since ever.
type Onset struct {
	After, Before time.Time
}
