package fettle

import "time"

// Code names a condition in the catalogue: adapter, dot, ill ("etcd.member_lost").
type Code string

// Layer places a condition in the stack, from the cause-like bottom to the
// symptom-like top.
type Layer int8

// The layers. The zero value is no layer, which no catalogue may use.
const (
	NoLayer Layer = iota
	Hardware
	HostLayer // operating system: services, filesystems, memory
	Network
	Coordination // consensus, leases, membership
	Data
	Mesh
	Application
)

var layerNames = []string{"", "hardware", "host", "network", "coordination", "data", "mesh", "application"}

// String returns the layer's name, "" for NoLayer.
func (l Layer) String() string {
	if l < 0 || int(l) >= len(layerNames) {
		return ""
	}
	return layerNames[l]
}

// MarshalText writes String.
func (l Layer) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads what String writes; anything else becomes NoLayer.
func (l *Layer) UnmarshalText(text []byte) error {
	*l = NoLayer
	for i, n := range layerNames {
		if n == string(text) {
			*l = Layer(i)
		}
	}
	return nil
}

// Severity says how bad a raised condition is for those who use the subject.
type Severity string

// The severities.
const (
	Notice   Severity = "notice"   // look at it in working hours
	Warning  Severity = "warning"  // redundancy or headroom is gone
	Critical Severity = "critical" // service is impaired or data is at risk
)

// Scope says who evaluates a condition.
type Scope string

// The scopes.
const (
	HostScope    Scope = "host"    // one machine's observations suffice: the agent evaluates
	ClusterScope Scope = "cluster" // needs several hosts' observations: the server evaluates
)

// Agreement says how the rule's answers over several observers combine.
type Agreement string

// The agreements. An observer that does not know takes no part in Any and All
// beyond making the answer unknown where it could have decided it.
const (
	AnyObserver  Agreement = "any"      // raised when one says yes; clear when all who know say no
	AllObservers Agreement = "all"      // raised when all who know say yes, and one does
	MostHosts    Agreement = "majority" // raised when most of the hosts that looked say yes, and for clear likewise
)

// ConditionSpec is a condition's entry in the catalogue: data, never code.
//
// Raise and Clear are CEL rules over the latest observations of one subject, by
// each observer in turn. They may read:
//
//	self         map: the facts of the subject from this spec's Probe, as this observer sees them
//	host         map: the same observer host's facts of the subject's host, where it has any
//	peers        list of maps: the latest known facts (same Probe) of the other parts of the same whole
//	whole        map: the latest known facts of what this subject is part of
//	parts        list of maps: the latest known facts (any probe) of what is part of this subject
//	unreachable  int: how many independent hosts asked this subject and got no answer
//	observers    int: how many hosts asked this subject at all
//
// Each map in peers and parts also has "subject". Reading an absent fact makes
// the rule's answer unknown. A rule whose observer did not know is evaluated
// only if the rule reads nothing but unreachable and observers.
type ConditionSpec struct {
	Code      Code
	Title     string // one line with {fact} placeholders, filled from self
	Kind      Kind   // of the subjects it can befall
	Layer     Layer
	Severity  Severity
	Scope     Scope
	Probe     string    // whose facts the rules read
	Observers Agreement // "" is AnyObserver
	Raise     string
	Clear     string        // "" is "the raise rule is known to be false"
	Delay     time.Duration // how long Raise must hold before it is raised; 0: at once
	ClearHold time.Duration // how long Clear must hold before it is clear; 0: at once
	Expiry    time.Duration // an observation older than this is no longer known: the condition becomes unknown, never clear
	Flap      Flap
	Effects   []EffectOn // which other conditions it brings about
	CausedBy  []EffectOn // the same edges declared from the other end: Condition, on what Path leads to from here, brings this one about
	NotMended string     // when no runbook names it: why not
	Explains  bool       // reported as a cause only, for instance a person's stop: it explains others and is never repaired
	Doc       string     // what it means and how a person checks it by hand
}

// Flap damps a condition that comes and goes: after Changes changes within
// Window, repair is suspended (reporting never) until it has been quiet for
// Window. The zero Flap is DefaultFlap.
type Flap struct {
	Changes int
	Window  time.Duration
}

// DefaultFlap is six changes in ten minutes: three full rounds of a restart loop
// that a human would have noticed.
var DefaultFlap = Flap{Changes: 6, Window: 10 * time.Minute}

// Surely says how surely a cause brings about an effect.
type Surely string

// The degrees. An Always effect that is seen to be absent speaks against the
// cause; Often speaks less; Sometimes not at all.
const (
	Always    Surely = "always"
	Often     Surely = "often"
	Sometimes Surely = "sometimes"
)

// EffectOn is one causal edge: the condition that owns it, on a subject, brings
// about Condition on every subject that Path leads to.
type EffectOn struct {
	Condition Code
	Path      Path
	Surely    Surely
	Within    time.Duration // the effect shows at most this long after the cause
}

// ConditionKey identifies one condition of one subject.
type ConditionKey struct {
	Code    Code    `json:"code"`
	Subject Subject `json:"subject"`
}

// String returns "code on subject".
func (k ConditionKey) String() string { return string(k.Code) + " on " + string(k.Subject) }

// Compare orders keys by subject, then code.
func (k ConditionKey) Compare(l ConditionKey) int {
	switch {
	case k.Subject != l.Subject:
		return cmpString(string(k.Subject), string(l.Subject))
	default:
		return cmpString(string(k.Code), string(l.Code))
	}
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	default:
		return 0
	}
}

// Condition is the state of one catalogued ill of one subject.
type Condition struct {
	ConditionKey
	State     Tri        `json:"state"`               // Yes is raised, No is clear
	Since     time.Time  `json:"since"`               // when State became what it is
	Title     string     `json:"title,omitempty"`     // filled in
	LastClear time.Time  `json:"last_clear,omitzero"` // asked-for time of the last observation that showed it clear; zero: never seen clear
	FirstSeen time.Time  `json:"first_seen,omitzero"` // asked-for time of the first observation that showed it raised, of this episode
	Evidence  []Evidence `json:"evidence,omitempty"`
	Flapping  bool       `json:"flapping,omitempty"`
}

// Raised reports whether the condition is known to be there.
func (c Condition) Raised() bool { return c.State == Yes }

// Evidence is one observer's part in a condition's state.
type Evidence struct {
	Observer Observer  `json:"observer"`
	Asked    time.Time `json:"asked"`
	Says     Tri       `json:"says"`
	Facts    Facts     `json:"facts,omitempty"`  // those that the rule read
	Reason   Reason    `json:"reason,omitempty"` // why it does not know
}
