package runbook

import (
	"slices"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
)

// Runbook is a ladder of rungs for one cause, checked and compiled. It is not
// changed after Parse and may be read by several goroutines at once.
type Runbook struct {
	Name  string
	For   fettle.Code
	Doc   string
	Vars  []Var
	Rungs []Rung
	File  string
	Hash  string // sha256 of the file, in hex

	env *expr.Env
}

// Env is the environment that the runbook was compiled in.
func (b *Runbook) Env() *expr.Env { return b.env }

// Rung returns the index of the rung of this name.
func (b *Runbook) Rung(name string) (int, bool) {
	i := slices.IndexFunc(b.Rungs, func(r Rung) bool { return r.Name == name })
	return i, i >= 0
}

// Var is a name for a value that is evaluated once, when a plan is made.
type Var struct {
	Name    string
	Program *expr.Program
}

// Rung is one way to mend the cause.
type Rung struct {
	Name     string
	Doc      string
	When     *expr.Program // nil: always
	ProvedBy string
	Loses    *expr.Template // nil: nothing
	Steps    []Step
}

// Takes returns what the steps take away, each kind once, sorted.
func (r Rung) Takes() []fettle.Taking {
	var all []fettle.Taking
	for _, s := range r.Steps {
		all = append(all, s.Takes...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Risk returns the highest risk of the steps.
func (r Rung) Risk() fettle.Risk {
	worst := fettle.LowRisk
	for _, s := range r.Steps {
		worst = WorseRisk(worst, s.Action.Risk)
	}
	return worst
}

// WorseRisk returns the higher of two risks. A risk that nobody stated is high.
func WorseRisk(a, b fettle.Risk) fettle.Risk {
	order := []fettle.Risk{fettle.LowRisk, fettle.MediumRisk, fettle.HighRisk}
	i, j := slices.Index(order, a), slices.Index(order, b)
	if i < 0 || j < 0 {
		return fettle.HighRisk
	}
	return order[max(i, j)]
}

// Step is one action of a rung. A nil template was left out.
type Step struct {
	ID          string
	Action      fettle.ActionSpec
	Target      *expr.Template
	Host        *expr.Template // nil: the host that the target runs on, or is
	Group       *expr.Template
	With        []Param
	When        string   // CEL
	Requires    []string // CEL
	Pins        []Pin
	Looks       []Look
	Fresh       time.Duration
	Claims      []Claim
	Effects     []Effect
	Expect      string // CEL
	Within      time.Duration
	Hold        time.Duration
	ForwardOnly string
	SafePoint   bool
	Takes       []fettle.Taking // of the action and the claims, sorted

	when *expr.Program
}

// Whether is the compiled When, nil when there is none.
func (s Step) Whether() *expr.Program { return s.when }

// Param is one parameter of a step. Exactly one of Value, Text, List and Late
// is set.
type Param struct {
	Spec  fettle.ParamSpec
	Value fettle.Value     // a literal
	Text  *expr.Template   // evaluated when the plan is made
	List  []*expr.Template // the same, a list of texts
	Late  *fettle.Late     // an output of an earlier step
}

// Pin is a fact that must still be what it was.
type Pin struct {
	Subject *expr.Template // nil: the target
	Fact    string
}

// Look is what is asked afresh.
type Look struct {
	Subject *expr.Template // nil: the target
	Probe   string
	Host    *expr.Template // nil: from anywhere
}

// Claim is what the step takes away while it runs.
type Claim struct {
	What   fettle.Taking
	Of     *expr.Template // nil: the step's group
	Member *expr.Template // nil: the target
}

// Effect is an effect of the action, compiled.
type Effect struct {
	Spec fettle.EffectSpec
	On   *expr.Program // nil: the target
	To   *expr.Program // nil: a quorum effect
}

// DefaultFresh is the age of the oldest fact that the guards may decide on
// where a step says nothing: two polls of a probe that is polled every two
// seconds, with a second to spare. Looks make a step independent of it.
const DefaultFresh = 5 * time.Second
