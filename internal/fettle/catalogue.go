package fettle

import "time"

// Catalogue is everything that an adapter knows and can do, as data: what the
// judge reads, what the documentation is made from, what the hash of a decision
// covers.
type Catalogue struct {
	Adapter    string // its folder's name, and the prefix of its codes, probes, actions and faults
	Doc        string // what it sees, what it mends, what it never does
	Versions   string // of the external system, tested in the lab
	Kinds      []KindSpec
	Conditions []ConditionSpec
	Probes     []ProbeSpec
	Actions    []ActionSpec
	Faults     []FaultSpec
}

// KindSpec documents a kind of subject.
type KindSpec struct {
	Kind Kind
	Doc  string // what its segments are
}

// ProbeSpec describes one probe: what it reads, how often, how long it may take.
type ProbeSpec struct {
	Name     string // "etcd.member"
	Kind     Kind   // of the subjects that it observes
	Facts    []FactSpec
	Interval time.Duration // between polls while nothing is told; jittered by the runner
	Timeout  time.Duration // cut off after this; what it looked at is then TimedOut
	Told     bool          // a watcher reports changes at once, and the poll is only its safety net
	Needs    string        // privilege or credential, for the message when it is missing
	Root     bool          // only root sees it: an agent without root has its executor look
	Doc      string
}

// FactSpec documents one fact of a probe. Rules that read a fact that no probe
// declares do not compile.
type FactSpec struct {
	Name  string
	Type  FactType
	Doc   string // with the unit
	Actor bool   // a string: who last changed the subject (a person, fettle, a tool by its name); "" where nobody did
}

// FactType is the type of a fact's value.
type FactType string

// The fact types.
const (
	BoolFact   FactType = "bool"
	IntFact    FactType = "int"
	StringFact FactType = "string"
	ListFact   FactType = "list" // of strings
)

// TypeOf returns the type of a value, "" of one that no fact may have, a float
// above all.
func TypeOf(v Value) FactType {
	switch v.(type) {
	case bool:
		return BoolFact
	case int64:
		return IntFact
	case string:
		return StringFact
	case []string:
		return ListFact
	}
	return ""
}

// Risk says how bad an action can be when everything goes wrong.
type Risk string

// The risks.
const (
	LowRisk    Risk = "low"
	MediumRisk Risk = "medium"
	HighRisk   Risk = "high"
)

// Taking is one kind of thing that a step takes away, while it runs or for good.
type Taking string

// What a step may take away. The first four are claims on a group or pool; the
// rest are said so that the policy can judge a rung by them.
const (
	TakesVotes        Taking = "votes"
	TakesReplicas     Taking = "replicas"
	TakesCapacity     Taking = "capacity"     // the subject serves less, or not, while the step runs
	TakesReachability Taking = "reachability" // the machine may be cut off
	TakesData         Taking = "data"         // sets data aside, or lets declared-disposable data go
	TakesHistory      Taking = "history"      // old revisions, logs
)

// ActionSpec describes an action, as data.
type ActionSpec struct {
	Name     string // "etcd.member_remove"
	Version  int
	Target   Kind
	Params   []ParamSpec
	Outputs  []ParamSpec
	Risk     Risk
	Scope    Scope    // HostScope: touches only the acting host
	Takes    []Taking // empty: it only gives
	Effects  []EffectSpec
	Timeout  time.Duration
	Armed    bool   // it is Armable: a revert is armed before it, by a unit of its own (S8). What takes reachability must be
	Disposes string // the class of disposable things that it lets go ("package-cache"); the policy must list it (S5)
	Undo     bool   // Undo restores what was, as far as the facts it declares
	NoUndo   string // otherwise: why it is forward-only
	Needs    string // privilege or credential
	Doc      string
}

// ParamSpec describes a parameter or an output of an action.
type ParamSpec struct {
	Name     string
	Type     FactType
	Required bool
	Doc      string
}

// EffectSpec is one declared change that an action makes to the facts. Plans
// predict with it; after the step the observed fact must be equal.
//
// On and To are CEL over the step: target, host, group (subjects), with (the
// parameters), out (the outputs; only known after the step), was (the value
// before). Either Fact or Quorum is set.
type EffectSpec struct {
	On     string       `json:"on"`               // CEL giving the subject; "" is target
	Fact   string       `json:"fact,omitempty"`   // its name
	To     string       `json:"to,omitempty"`     // CEL giving its value after the step
	Quorum QuorumEffect `json:"quorum,omitempty"` // what becomes of On as a member of the step's group
}

// QuorumEffect is a change to a quorum group.
type QuorumEffect string

// The quorum effects, on one member.
const (
	QuorumStop    QuorumEffect = "stop"        // a member stops serving
	QuorumStart   QuorumEffect = "start"       // a member serves again
	QuorumRemove  QuorumEffect = "remove"      // a member leaves the group
	QuorumLearner QuorumEffect = "add-learner" // a member joins without a vote
	QuorumPromote QuorumEffect = "promote"     // a learner becomes a voter
	QuorumLead    QuorumEffect = "lead"        // On becomes the leader
	QuorumYield   QuorumEffect = "yield"       // On is no longer the leader
	QuorumOnly    QuorumEffect = "only"        // the group is made anew with On as its only voter
)

// FaultSpec describes a fault that can be injected.
type FaultSpec struct {
	Name   string // "etcd.kill"
	Target Kind
	Params []ParamSpec
	Raises Code // the condition that must follow
	Doc    string
}

// FindCondition returns the spec of a code.
func (c *Catalogue) FindCondition(code Code) (*ConditionSpec, bool) {
	for i := range c.Conditions {
		if c.Conditions[i].Code == code {
			return &c.Conditions[i], true
		}
	}
	return nil, false
}

// FindAction returns the spec of an action.
func (c *Catalogue) FindAction(name string) (*ActionSpec, bool) {
	for i := range c.Actions {
		if c.Actions[i].Name == name {
			return &c.Actions[i], true
		}
	}
	return nil, false
}

// Join returns the catalogues with every CausedBy edge turned into an Effects
// edge of its cause, so that readers need to look at Effects only. An edge to or
// from a condition that no catalogue has is dropped: its adapter is not there.
func Join(catalogues []Catalogue) []Catalogue {
	out := make([]Catalogue, len(catalogues))
	at := map[Code]*ConditionSpec{}
	for i, c := range catalogues {
		c.Conditions = append([]ConditionSpec(nil), c.Conditions...)
		out[i] = c
		for j := range out[i].Conditions {
			spec := &out[i].Conditions[j]
			at[spec.Code] = spec
		}
	}
	for i := range out {
		for j := range out[i].Conditions {
			spec := &out[i].Conditions[j]
			known := spec.Effects[:0:0]
			for _, e := range spec.Effects {
				if at[e.Condition] != nil {
					known = append(known, e)
				}
			}
			spec.Effects = known
		}
	}
	for i := range out {
		for j := range out[i].Conditions {
			spec := &out[i].Conditions[j]
			for _, c := range spec.CausedBy {
				if cause := at[c.Condition]; cause != nil {
					cause.Effects = append(cause.Effects, EffectOn{Condition: spec.Code, Path: c.Path.Reverse(), Surely: c.Surely, Within: c.Within})
				}
			}
			spec.CausedBy = nil
		}
	}
	return out
}
