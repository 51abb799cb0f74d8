package fettle

import "time"

// IncidentState is where the story of one trouble stands.
type IncidentState string

// The states. An incident begins Open and ends Resolved or Closed; Escalated
// waits for a person and goes on watching.
const (
	Open      IncidentState = "open"      // raised; cause not settled yet
	Proposed  IncidentState = "proposed"  // a plan waits for a person's approval
	Acting    IncidentState = "acting"    // a step's intent is durable, its outcome not yet known
	Verifying IncidentState = "verifying" // the step is done; its expectation is awaited or held
	Undoing   IncidentState = "undoing"   // a step made it worse and is being undone
	Held      IncidentState = "held"      // freeze, budget, flapping or a refusal: it will be asked again
	Escalated IncidentState = "escalated" // a person is called; Why says what for
	Resolved  IncidentState = "resolved"  // repaired and verified, or cleared by itself
	Closed    IncidentState = "closed"    // a person ended it
)

// Ended reports whether nothing more will happen.
func (s IncidentState) Ended() bool { return s == Resolved || s == Closed }

// Incident is the whole story of one trouble, as people and programs read it.
type Incident struct {
	Schema     int            `json:"schema"`
	ID         string         `json:"id"`
	Opened     time.Time      `json:"opened"`
	Ended      time.Time      `json:"ended,omitzero"`
	State      IncidentState  `json:"state"`
	Why        string         `json:"why,omitempty"` // of Held and Escalated: the reason and what lifts it
	Cause      ConditionKey   `json:"cause"`         // the cause that it is about
	Conditions []ConditionKey `json:"conditions"`    // all that the cause explains, itself included
	Diagnosis  Diagnosis      `json:"diagnosis"`
	Plan       *Plan          `json:"plan,omitempty"` // the present one
	Story      []Event        `json:"story"`
	Receipts   []Receipt      `json:"receipts,omitempty"`
	Alone      *Alone         `json:"alone,omitempty"` // an agent went through it while it was cut off; nil: no
}

// EventKind sorts the events of a story.
type EventKind string

// The kinds of event, in the order in which they usually come.
const (
	EvRaised    EventKind = "raised"    // a condition was raised
	EvCleared   EventKind = "cleared"   // a condition cleared
	EvUnknown   EventKind = "unknown"   // a condition can no longer be known
	EvDiagnosed EventKind = "diagnosed" // the diagnosis became this
	EvPlanned   EventKind = "planned"   // this plan was made
	EvAsked     EventKind = "asked"     // a person is asked
	EvAnswered  EventKind = "answered"  // a person answered
	EvRefused   EventKind = "refused"   // a guard refused
	EvIntent    EventKind = "intent"    // a step's intent is durable
	EvDone      EventKind = "done"      // the agent said what came of it
	EvSkipped   EventKind = "skipped"   // a step was not needed
	EvVerified  EventKind = "verified"  // expectation and prediction were observed and held
	EvFailed    EventKind = "failed"    // a step or its expectation failed
	EvUndone    EventKind = "undone"    // a step was undone
	EvHeld      EventKind = "held"      // nothing is done for now
	EvEscalated EventKind = "escalated" // a person is called
	EvResolved  EventKind = "resolved"
	EvNote      EventKind = "note"
)

// Event is one line of an incident's story.
type Event struct {
	At       time.Time     `json:"at"`
	Kind     EventKind     `json:"kind"`
	Text     string        `json:"text"` // a sentence
	Step     string        `json:"step,omitempty"`
	Key      string        `json:"key,omitempty"` // the dispatch's
	By       string        `json:"by,omitempty"`  // a person
	Verdicts []Verdict     `json:"verdicts,omitempty"`
	Took     time.Duration `json:"took_ns,omitempty"`
	Times    int           `json:"times,omitempty"` // a repeat is folded: how often it was said
}
