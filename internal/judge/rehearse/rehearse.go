// Package rehearse runs runbook tests: it plays the observations of a test file
// to the real mind, in pretended time, and holds what follows against what the
// file expects. It is to runbooks what promtool is to alerting rules.
//
// Nothing is faked of the judge: conditions, diagnosis, ladder, plan and guards
// are those of production. Only the machines are played: a gather is answered
// with the newest observations of the file, asked anew, and a step that is
// allowed is not done; the case then stands at "dispatched".
package rehearse

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
)

// Begin is the time at which every case begins. It is of no meaning.
var Begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Result is what became of one case.
type Result struct {
	File, Case string
	Wrong      []Mismatch // empty: it passed
}

// Mismatch is one expectation that was not met.
type Mismatch struct {
	Line int // of the expectation in the file
	Text string
}

// String returns file:line: text.
func (r Result) String() string {
	if len(r.Wrong) == 0 {
		return fmt.Sprintf("ok   %s: %s", r.File, r.Case)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "FAIL %s: %s", r.File, r.Case)
	for _, w := range r.Wrong {
		fmt.Fprintf(&b, "\n  %s:%d: %s", r.File, w.Line, w.Text)
	}
	return b.String()
}

// File runs every case of a test file. newMind returns a fresh mind under the
// given policy. A file without a case, or a case without an expectation, fails:
// a test that cannot fail is none.
func File(t *runbook.TestFile, newMind func(fettle.Policy) (*incident.Mind, error)) ([]Result, error) {
	if len(t.Cases) == 0 {
		return nil, fmt.Errorf("%s: it has no case; a test without one proves nothing", t.File)
	}
	var out []Result
	for _, c := range t.Cases {
		m, err := newMind(t.Policy)
		if err != nil {
			return nil, err
		}
		p := &play{mind: m, newest: map[fettle.Observer]map[fettle.Subject]fettle.Observation{}, book: t.Runbook}
		r := Result{File: t.File, Case: c.Name}
		if len(c.Checks) == 0 {
			r.Wrong = append(r.Wrong, Mismatch{c.Line, "it expects nothing, so it cannot fail"})
		}
		p.run(c, &r)
		out = append(out, r)
	}
	return out, nil
}

type play struct {
	mind   *incident.Mind
	book   string
	newest map[fettle.Observer]map[fettle.Subject]fettle.Observation
	now    time.Time
}

func (p *play) run(c runbook.Case, r *Result) {
	arrivals := c.Arrivals
	for _, check := range c.Checks {
		until := Begin.Add(check.After)
		for len(arrivals) > 0 && !Begin.Add(arrivals[0].After).After(until) {
			at := Begin.Add(arrivals[0].After)
			p.passUntil(at)
			var batch []fettle.Observation
			for len(arrivals) > 0 && Begin.Add(arrivals[0].After).Equal(at) {
				batch = append(batch, p.arrive(arrivals[0].Observation, at))
				arrivals = arrivals[1:]
			}
			p.take(incident.Input{At: at, Observations: batch})
		}
		p.passUntil(until)
		p.take(incident.Input{At: until})
		for _, text := range p.compare(check) {
			r.Wrong = append(r.Wrong, Mismatch{check.Line, text})
		}
	}
}

func (p *play) arrive(o fettle.Observation, at time.Time) fettle.Observation {
	o.Asked = at
	if p.newest[o.Observer()] == nil {
		p.newest[o.Observer()] = map[fettle.Subject]fettle.Observation{}
	}
	p.newest[o.Observer()][o.Subject] = o
	return o
}

// passUntil lets time pass up to, not including, t, waking the mind when it
// wants to be woken. The bound on wakes keeps a mind that asks for the same
// moment for ever from hanging a test.
func (p *play) passUntil(t time.Time) {
	const most = 100_000
	for range most {
		at, ok := p.mind.Next()
		if !ok || !at.Before(t) {
			return
		}
		if at.Before(p.now) {
			at = p.now
		}
		p.take(incident.Input{At: at})
	}
}

// take feeds an input and answers every gather with the newest observations.
func (p *play) take(in incident.Input) {
	p.now = in.At
	decisions := p.mind.Take(in)
	for len(decisions) > 0 {
		d := decisions[0]
		decisions = decisions[1:]
		if d.Kind == incident.Gather || d.Kind == incident.Look {
			decisions = append(decisions, p.mind.Take(incident.Input{At: in.At, Observations: p.look(d.Looks), Gathered: d.Key})...)
		}
	}
}

func (p *play) look(looks []fettle.Look) []fettle.Observation {
	var out []fettle.Observation
	// any order: they are sorted below
	for who, seen := range p.newest {
		// any order: they are sorted below
		for s, o := range seen {
			if slices.ContainsFunc(looks, func(l fettle.Look) bool {
				return l.Subject == s && l.Probe == who.Probe && (l.Host == "" || l.Host == who.Host)
			}) {
				o.Asked = p.now
				out = append(out, o)
			}
		}
	}
	slices.SortFunc(out, func(a, b fettle.Observation) int {
		return strings.Compare(string(a.Subject)+"|"+string(a.Host)+"|"+a.Probe, string(b.Subject)+"|"+string(b.Host)+"|"+b.Probe)
	})
	return out
}
