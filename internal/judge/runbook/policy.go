package runbook

import (
	"fmt"
	"path"

	"fettle/internal/fettle"
	"fettle/internal/judge/runbook/yamlfile"
)

type policyShape struct {
	yamlfile.Placed
	Autonomy []ruleShape   `yaml:"autonomy" jsonschema_description:"How far rungs may go by themselves. The last rule that matches decides; without one a rung is judged by what it takes away."`
	Budgets  []budgetShape `yaml:"budgets" jsonschema_description:"How much of a pool may be ill or claimed at once. All numbers hold together."`
	Rate     *rateShape    `yaml:"rate" jsonschema_description:"How often a subject, and the fleet, is acted upon."`

	Disposable []yamlfile.Text `yaml:"disposable" jsonschema_description:"Classes of things that may be let go without being kept. Left out: package-cache, journal-past-limit and rotated-logs; [] is none."`

	Permits    []grantShape      `yaml:"permits" jsonschema_description:"What agents may do alone while they reach no server; the first that matches decides. Left out: start services that failed; [] is nothing."`
	PermitLife yamlfile.Duration `yaml:"permit_life" jsonschema_description:"How long a permit holds from when it was last renewed, at most a week. Left out: 24h."`
}

func (policyShape) Noun() string { return "a policy" }

type ruleShape struct {
	yamlfile.Placed
	Runbook yamlfile.Text `yaml:"runbook" jsonschema:"required" jsonschema_description:"Pattern over runbook names; * is any text."`
	Rung    yamlfile.Text `yaml:"rung" jsonschema:"required" jsonschema_description:"Pattern over rung names."`
	Subject yamlfile.Text `yaml:"subject" jsonschema:"required" jsonschema_description:"Pattern over the subjects that are acted upon."`
	Level   yamlfile.Text `yaml:"level" jsonschema:"required,enum=observe,enum=shadow,enum=suggest,enum=approve,enum=automatic"`
}

func (ruleShape) Noun() string { return "a rule" }

type budgetShape struct {
	yamlfile.Placed
	Kind        yamlfile.Text `yaml:"kind" jsonschema:"required,pattern=^[a-z0-9-]+$" jsonschema_description:"Of the members: host, unit, etcd-member."`
	Pool        yamlfile.Text `yaml:"pool" jsonschema:"required" jsonschema_description:"Path from a member to its pool: >in a failure domain, >part-of a whole."`
	MaxNumber   yamlfile.Int  `yaml:"max_number" jsonschema:"required,minimum=0" jsonschema_description:"At most so many ill or claimed,"`
	MaxPermille yamlfile.Int  `yaml:"max_permille" jsonschema:"required,minimum=0" jsonschema_description:"and at most this share of the pool,"`
	Floor       yamlfile.Int  `yaml:"floor" jsonschema:"minimum=0" jsonschema_description:"but at least so many may be touched, however small the pool."`
	MinStay     yamlfile.Int  `yaml:"min_stay" jsonschema:"minimum=0" jsonschema_description:"Never fewer than this stay whole; the floor does not override it."`
}

func (budgetShape) Noun() string { return "a budget" }

type rateShape struct {
	yamlfile.Placed
	PerSubject yamlfile.Int      `yaml:"per_subject" jsonschema:"minimum=1" jsonschema_description:"Plans begun on one subject within the window before a person is called. Left out: 3."`
	PerFleet   yamlfile.Int      `yaml:"per_fleet" jsonschema:"minimum=1" jsonschema_description:"Plans begun anywhere within the window. Left out: 20."`
	Window     yamlfile.Duration `yaml:"window" jsonschema_description:"Left out: 1h."`
}

func (rateShape) Noun() string { return "a rate" }

// ParsePolicy reads a policy file. The error, if any, is a *yamlfile.Error with
// everything that is wrong. An empty file is an error: the zero Policy is what
// holds where there is no file.
func ParsePolicy(file string, src []byte) (fettle.Policy, error) {
	var s policyShape
	report, parsed := yamlfile.Decode(file, src, &s)
	if !parsed {
		return fettle.Policy{}, report.Err()
	}
	p := s.policy(report)
	if err := report.Err(); err != nil {
		return fettle.Policy{}, err
	}
	p.Hash = digest(src)
	return p, nil
}

// policy is what the shape means; what it cannot mean goes into the report.
func (s policyShape) policy(r *yamlfile.Report) fettle.Policy {
	var p fettle.Policy
	for _, a := range s.Autonomy {
		for _, t := range []yamlfile.Text{a.Runbook, a.Rung, a.Subject} {
			if _, err := path.Match(t.Value, ""); err != nil {
				r.Add(t.At, "* is any text, ? one character, [a-z] a class; \\ takes the next character as it is", "the pattern %q is malformed", t.Value)
			}
		}
		rule := fettle.PolicyRule{Runbook: a.Runbook.Value, Rung: a.Rung.Value, Subject: a.Subject.Value}
		// An unknown level becomes Observe here and has been reported.
		_ = rule.Level.UnmarshalText([]byte(a.Level.Value))
		p.Rules = append(p.Rules, rule)
	}
	first := map[string]int{}
	for _, b := range s.Budgets {
		if b.Pool.Set() {
			if _, err := fettle.Path(b.Pool.Value).Hops(); err != nil {
				r.Add(b.Pool.At, "for example >in, >part-of or <runs-on", "%v", err)
			}
		}
		if b.MaxPermille.Value > 1000 {
			r.Add(b.MaxPermille.At, "340 is 34 %", "max_permille is %d; a pool has 1000", b.MaxPermille.Value)
		}
		name := b.Kind.Value + " " + b.Pool.Value
		if line, twice := first[name]; twice {
			r.Add(b.At, fmt.Sprintf("the first is on line %d; keep one", line), "a second budget for %s in %s", b.Kind.Value, b.Pool.Value)
		}
		first[name] = b.At.Line
		p.Budgets = append(p.Budgets, fettle.Budget{
			Kind: fettle.Kind(b.Kind.Value), Pool: fettle.Path(b.Pool.Value), MaxNumber: b.MaxNumber.Value,
			MaxPermille: b.MaxPermille.Value, Floor: b.Floor.Value, MinStay: b.MinStay.Value,
		})
	}
	if s.Disposable != nil {
		p.Disposable = []string{} // none is not the default
	}
	for _, class := range s.Disposable {
		p.Disposable = append(p.Disposable, class.Value)
	}
	if s.Rate != nil {
		p.Rate = fettle.Rate{PerSubject: s.Rate.PerSubject.Value, PerFleet: s.Rate.PerFleet.Value, Window: s.Rate.Window.Value}
		if s.Rate.Window.Set() && s.Rate.Window.Value == 0 {
			r.Add(s.Rate.Window.At, "for example 1h", "the window is 0: nothing ever happened within it")
		}
	}
	p.Permits, p.PermitLife = s.grants(r), s.life(r)
	return p
}

// DefaultBudgets are what holds where the policy says nothing of a kind and
// pool. They speak only of kinds that every adapter shares; adapters' own kinds
// are held by the arithmetic of their quorum groups and replica sets, and by
// what the policy adds.
//
//   - Hosts of one failure domain: at most three and a tenth at once, since
//     whatever takes more than three machines of a rack is one trouble, not
//     three, and more hands make it worse; but one however small the rack (20 %
//     of four is none, and then nothing is ever mended); and one always stays.
//   - Units of one host: at most three and a fifth, for the same reason: when
//     more are ill, the host is. One even where there are four, and none needs
//     to stay: a host may have a single unit.
//   - Filesystems of one host: one at a time. They share the disk, the journal
//     and the memory, so that mending two at once proves nothing of either.
func DefaultBudgets() []fettle.Budget {
	return []fettle.Budget{
		{Kind: fettle.KindHost, Pool: ">in", MaxNumber: 3, MaxPermille: 100, Floor: 1, MinStay: 1},
		{Kind: fettle.KindUnit, Pool: ">runs-on", MaxNumber: 3, MaxPermille: 200, Floor: 1},
		{Kind: fettle.KindFilesystem, Pool: ">runs-on", MaxNumber: 1, MaxPermille: 1000, Floor: 1},
	}
}

// Budgets returns the policy's budgets, and the default ones for every kind and
// pool that it does not speak of.
func Budgets(p fettle.Policy) []fettle.Budget {
	list := append([]fettle.Budget(nil), p.Budgets...)
	for _, d := range DefaultBudgets() {
		spoken := false
		for _, b := range p.Budgets {
			spoken = spoken || (b.Kind == d.Kind && b.Pool == d.Pool)
		}
		if !spoken {
			list = append(list, d)
		}
	}
	return list
}
