package runbook

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/runbook/yamlfile"
)

// TestFile is what must follow from what is observed, for one runbook: the
// promtool of runbooks. Running it is for whoever has the whole judge at hand.
type TestFile struct {
	Runbook string
	Policy  fettle.Policy // zero: the default
	Cases   []Case
	File    string
}

// Case is one story.
type Case struct {
	Name     string
	Doc      string
	Line     int
	Arrivals []Arrival // by time; those of the file's world first
	Checks   []Check   // by time
}

// Arrival is an observation and when it arrives, from the beginning of the case.
// Its Asked is zero: the runner adds After to the time that it begins at.
type Arrival struct {
	After       time.Duration
	Observation fettle.Observation
}

// Check is what must be so at one time of a case.
type Check struct {
	After                  time.Duration
	Line                   int
	Raised, Clear, Unknown []fettle.ConditionKey
	Causes                 []fettle.ConditionKey // nil: not compared; empty: none
	Plan                   *WantPlan
	NoPlan                 string   // a part of the reason; "": not compared
	Begun                  []string // ids of steps; nil: not compared; empty: none
	Refused                *WantRefusal
}

// WantPlan is the plan that must have been made. Empty fields are not compared.
type WantPlan struct {
	Rung  string
	Level *fettle.Level
	Loses string
	Steps []WantStep
}

// WantStep is one of its steps that are not skipped.
type WantStep struct {
	ID     string
	Action string
	Target fettle.Subject
	Host   fettle.Subject
	With   fettle.Facts
}

// WantRefusal is a refusal that must follow.
type WantRefusal struct {
	Step      string
	Invariant string
	Why       string
}

// ParseTests reads a runbook test file and checks it against the catalogues.
// The error, if any, is a *yamlfile.Error with everything that is wrong.
func ParseTests(file string, src []byte, catalogue []fettle.Catalogue) (*TestFile, error) {
	var s testShape
	report, parsed := yamlfile.Decode(file, src, &s)
	if !parsed {
		return nil, report.Err()
	}
	c := &testChecker{Report: report, known: catalogue}
	t := &TestFile{Runbook: s.Runbook.Value, File: file}
	if s.Policy != nil {
		t.Policy = s.Policy.policy(report)
		t.Policy.Hash = digest(src)
	}
	first := map[string]int{}
	for _, cs := range s.Cases {
		if line, twice := first[cs.Case.Value]; twice {
			c.Add(cs.At, fmt.Sprintf("the first is on line %d", line), "a second case is called %q", cs.Case.Value)
		}
		first[cs.Case.Value] = cs.At.Line
		made := Case{Name: cs.Case.Value, Doc: cs.Doc.Value, Line: cs.At.Line}
		for _, o := range append(slices.Clone(s.World), cs.Observe...) {
			made.Arrivals = append(made.Arrivals, c.arrival(o))
		}
		slices.SortStableFunc(made.Arrivals, func(a, b Arrival) int { return cmp.Compare(a.After, b.After) })
		for _, e := range cs.Expect {
			made.Checks = append(made.Checks, c.check(e))
		}
		slices.SortStableFunc(made.Checks, func(a, b Check) int { return cmp.Compare(a.After, b.After) })
		t.Cases = append(t.Cases, made)
	}
	if err := report.Err(); err != nil {
		return nil, err
	}
	return t, nil
}

type testChecker struct {
	*yamlfile.Report
	known catalogues
}

func (c *testChecker) subject(t yamlfile.Text) fettle.Subject {
	if !t.Set() {
		return ""
	}
	s, err := fettle.ParseSubject(t.Value)
	if err != nil {
		c.Add(t.At, "", "%v", err)
	}
	return s
}

func (c *testChecker) arrival(o seenShape) Arrival {
	seen := fettle.Observation{
		Subject: c.subject(o.Subject), Host: c.subject(o.Host), Probe: o.Probe.Value,
		Reason: fettle.Reason(o.Reason.Value), Gone: o.Gone.Value, Facts: c.facts(o),
	}
	if o.Host.Set() && seen.Host != "" && seen.Host.Kind() != fettle.KindHost {
		c.Add(o.Host.At, "for example host:h1", "host must be a host; this is a %s", seen.Host.Kind())
	}
	if o.Reason.Set() && (len(o.Facts) > 0 || len(o.Quorum) > 0 || o.Replicas != nil) {
		c.Add(o.Reason.At, "leave the reason out, or the facts", "an observation that could not be made has no facts")
	}
	for _, e := range o.Edges {
		edge := fettle.Edge{From: seen.Subject, Rel: fettle.Relation(e.Rel.Value), To: c.subject(e.To)}
		if e.From.Set() {
			edge.From = c.subject(e.From)
		}
		seen.Edges = append(seen.Edges, edge)
	}
	if o.Quorum != nil {
		g := fettle.QuorumGroup{}
		for _, m := range o.Quorum {
			member := fettle.QuorumMember{Subject: c.subject(m.Subject), ID: m.ID.Value, Voter: !m.Voter.Set() || m.Voter.Value, Leader: m.Leader.Value}
			// An unknown answer has been reported and becomes Unknown.
			_ = member.Serving.UnmarshalText([]byte(m.Serving.Value))
			_ = member.LogLost.UnmarshalText([]byte(m.LogLost.Value))
			g.Members = append(g.Members, member)
		}
		slices.SortFunc(g.Members, func(a, b fettle.QuorumMember) int { return cmp.Compare(a.Subject, b.Subject) })
		seen.Quorum = &g
	}
	if o.Replicas != nil {
		seen.Replicas = &fettle.ReplicaSet{Copies: o.Replicas.Copies.Value, InSync: o.Replicas.InSync.Value, Minimum: o.Replicas.Minimum.Value}
	}
	return Arrival{After: o.At.Value, Observation: seen}
}

// facts checks an observation's facts against what its probe declares.
func (c *testChecker) facts(o seenShape) fettle.Facts {
	spec, ok := c.known.probe(o.Probe.Value)
	if !ok {
		if o.Probe.Set() {
			c.Add(o.Probe.At, yamlfile.DidYouMean(o.Probe.Value, c.known.probes()), "unknown probe %q", o.Probe.Value)
		}
		return nil
	}
	if kind := fettle.Subject(o.Subject.Value).Kind(); o.Subject.Set() && kind != spec.Kind {
		c.Add(o.Subject.At, "", "probe %s observes a %s; this is a %s", spec.Name, spec.Kind, kind)
	}
	types := map[string]fettle.FactType{}
	var names []string
	for _, f := range spec.Facts {
		types[f.Name] = f.Type
		names = append(names, f.Name)
	}
	var out fettle.Facts
	for _, e := range o.Facts {
		want, ok := types[e.Key.Value]
		switch {
		case !ok:
			c.Add(e.Key.At, yamlfile.DidYouMean(e.Key.Value, names), "probe %s has no fact %q", spec.Name, e.Key.Value)
		case e.Value.Plain != nil && fettle.TypeOf(e.Value.Plain) != want:
			c.Add(e.Value.At, "", "fact %s: want %s, found %s", e.Key.Value, TypeName(want), TypeName(fettle.TypeOf(e.Value.Plain)))
		case e.Value.Plain != nil:
			if out == nil {
				out = fettle.Facts{}
			}
			out[e.Key.Value] = e.Value.Plain
		}
	}
	return out
}

func (c *testChecker) keys(list []yamlfile.Text) []fettle.ConditionKey {
	if list == nil {
		return nil
	}
	keys := []fettle.ConditionKey{}
	for _, t := range list {
		code, _, ok := strings.Cut(t.Value, " on ")
		if !ok {
			c.Add(t.At, "for example etcd.member_down on etcd-member:m1/c", "a condition is written CODE on SUBJECT")
			continue
		}
		spec, known := c.known.condition(fettle.Code(code))
		if !known {
			c.Add(t.At, yamlfile.DidYouMean(code, c.known.codes()), "unknown condition %q", code)
		}
		s := c.subject(t.Sub(len(code)+len(" on "), len(t.Value)))
		if known && s != "" && s.Kind() != spec.Kind {
			c.Add(t.Place(len(code)+len(" on ")), "", "condition %s befalls a %s; this is a %s", code, spec.Kind, s.Kind())
		}
		keys = append(keys, fettle.ConditionKey{Code: fettle.Code(code), Subject: s})
	}
	slices.SortFunc(keys, fettle.ConditionKey.Compare)
	return keys
}

func (c *testChecker) check(s checkShape) Check {
	k := Check{After: s.At.Value, Line: s.Placed.At.Line, Raised: c.keys(s.Raised), Clear: c.keys(s.Clear), Unknown: c.keys(s.Unknown),
		Causes: c.keys(s.Causes), NoPlan: s.NoPlan.Value}
	if s.Plan != nil && s.NoPlan.Set() {
		c.Add(s.NoPlan.At, "leave one of them out", "a plan and no plan cannot both be wanted")
	}
	if s.Plan != nil {
		k.Plan = c.wantPlan(*s.Plan)
	}
	if s.Begun != nil {
		k.Begun = []string{}
	}
	for _, id := range s.Begun {
		k.Begun = append(k.Begun, id.Value)
	}
	if s.Refused != nil {
		k.Refused = &WantRefusal{Step: s.Refused.Step.Value, Invariant: s.Refused.Invariant.Value, Why: s.Refused.Why.Value}
	}
	if s.Raised == nil && s.Clear == nil && s.Unknown == nil && s.Causes == nil && s.Plan == nil && !s.NoPlan.Set() && s.Begun == nil && s.Refused == nil {
		c.Add(s.Placed.At, "say what must be so: raised, clear, unknown, causes, plan, no_plan, begun or refused", "an expectation that expects nothing")
	}
	return k
}

func (c *testChecker) wantPlan(s wantPlanShape) *WantPlan {
	w := &WantPlan{Rung: s.Rung.Value, Loses: s.Loses.Value}
	if s.Level.Set() {
		var l fettle.Level
		// An unknown level has been reported and becomes Observe.
		_ = l.UnmarshalText([]byte(s.Level.Value))
		w.Level = &l
	}
	for _, st := range s.Steps {
		step := WantStep{ID: st.ID.Value, Action: st.Action.Value, Target: c.subject(st.Target), Host: c.subject(st.Host)}
		if st.Action.Set() {
			if _, ok := c.known.action(st.Action.Value); !ok {
				c.Add(st.Action.At, yamlfile.DidYouMean(st.Action.Value, c.known.actions()), "unknown action %q", st.Action.Value)
			}
		}
		for _, e := range st.With {
			if step.With == nil {
				step.With = fettle.Facts{}
			}
			step.With[e.Key.Value] = e.Value.Plain
		}
		w.Steps = append(w.Steps, step)
	}
	return w
}
