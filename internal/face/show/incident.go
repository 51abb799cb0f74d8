package show

import (
	"fmt"
	"time"

	"fettle/internal/fettle"
)

// Condition writes one condition with its evidence.
func (p *Printer) Condition(c fettle.Condition, severity fettle.Severity) {
	title := c.Title
	if title == "" {
		title = string(c.Code)
	}
	flag := ""
	if c.Flapping {
		flag = " (flapping: repair is suspended)"
	}
	p.Text(p.Severity(severity)+" ", fmt.Sprintf("%s: %s [%s]%s", c.Subject, title, c.Code, flag))
	for _, e := range c.Evidence {
		if e.Says == fettle.Unknown && e.Reason == "" {
			continue
		}
		facts := ""
		for _, name := range sorted(e.Facts) {
			facts += fmt.Sprintf(" %s=%v", name, e.Facts[name])
		}
		says := "says " + e.Says.String()
		if e.Reason != "" {
			says = "could not tell: " + string(e.Reason)
		}
		p.Text("         ", p.Dim(fmt.Sprintf("%s by %s %s%s", e.Observer.Probe, e.Observer.Host.Name(), says, facts)))
	}
}

// explainsMost is how many effects of a cause are written: one that takes a zone away has
// thousands.
const explainsMost = 50

// Diagnosis writes the causes with the evidence for and against.
func (p *Printer) Diagnosis(d fettle.Diagnosis) {
	for _, c := range d.Causes {
		seen := "seen"
		if !c.Observed {
			seen = "supposed, not seen"
		}
		p.Text("  cause    ", fmt.Sprintf("%s (%s)", c.ConditionKey, seen))
		shown := c.Explains[:min(len(c.Explains), explainsMost)]
		for _, k := range shown {
			if k != c.ConditionKey {
				p.Text("    explains ", k.String())
			}
		}
		if more := len(c.Explains) - len(shown); more > 0 {
			p.Text("    explains ", fmt.Sprintf("%d more (-o json has all)", more))
		}
		for _, s := range c.For {
			p.Text("    for      ", s)
		}
		for _, s := range c.Against {
			p.Text("    against  ", s)
		}
	}
	for _, a := range d.Unsettled {
		p.Text("  or       ", fmt.Sprintf("%v, at cost %d against %d", a.Causes, a.Cost, d.Cost))
	}
	for _, l := range d.Look {
		p.Text("  look     ", fmt.Sprintf("%s at %s would settle it", l.Probe, l.Subject))
	}
	if d.Stopped != "" {
		p.Text("  note     ", "the search was stopped early: "+d.Stopped)
	}
	for _, k := range d.Ill {
		p.Text("  "+p.Yellow("doubt")+"    ", k.String()+" rests on an observer that seems ill itself")
	}
}

// State returns a word for an incident's state, coloured.
func (p *Printer) State(s fettle.IncidentState) string {
	switch s {
	case fettle.Resolved, fettle.Closed:
		return p.Green(string(s))
	case fettle.Escalated:
		return p.Red(string(s))
	case fettle.Proposed, fettle.Held:
		return p.Yellow(string(s))
	default:
		return string(s)
	}
}

// Incident writes one incident: head, diagnosis, plan, and its story.
func (p *Printer) Incident(in fettle.Incident) {
	p.IncidentLine(in)
	if in.Why != "" {
		p.Text("  why      ", in.Why)
	}
	p.alone(in.Alone)
	p.Diagnosis(in.Diagnosis)
	if in.Plan != nil {
		p.Plan(*in.Plan)
	}
	p.Line("  story")
	for _, e := range in.Story {
		p.Event(in.Opened, e)
	}
	for _, r := range in.Receipts {
		p.Receipt(r)
	}
}

// alone says that an agent went through it by itself.
func (p *Printer) alone(a *fettle.Alone) {
	if a != nil {
		p.Text("  alone    ", fmt.Sprintf("by the agent of %s, which reached no server (permit %s)", a.Host, a.Permit))
	}
}

// IncidentLine writes an incident's head on one line.
func (p *Printer) IncidentLine(in fettle.Incident) {
	took := ""
	if in.State.Ended() {
		took = " after " + Took(in.Ended.Sub(in.Opened))
	}
	p.Text(p.Bold(in.ID)+" ", fmt.Sprintf("%s %s%s  %s", in.Opened.Format("2006-01-02 15:04:05"), p.State(in.State), took, in.Cause))
}

// Event writes one event, with its time from the beginning.
func (p *Printer) Event(from time.Time, e fettle.Event) {
	text := e.Text
	if e.By != "" {
		text += " (" + e.By + ")"
	}
	if e.Took > 0 {
		text += " [" + Took(e.Took) + "]"
	}
	if e.Times > 1 {
		text += fmt.Sprintf(" (%d times)", e.Times)
	}
	p.Text(fmt.Sprintf("  %9s %-9s ", "+"+Took(e.At.Sub(from)), p.kind(e.Kind)), text)
}

func (p *Printer) kind(k fettle.EventKind) string {
	padded := fmt.Sprintf("%-9s", k)
	switch k {
	case fettle.EvRaised, fettle.EvFailed, fettle.EvEscalated:
		return p.Red(padded)
	case fettle.EvRefused, fettle.EvAsked, fettle.EvHeld:
		return p.Yellow(padded)
	case fettle.EvVerified, fettle.EvResolved, fettle.EvCleared:
		return p.Green(padded)
	default:
		return padded
	}
}

// Receipt writes what gave way.
func (p *Printer) Receipt(r fettle.Receipt) {
	text := fmt.Sprintf("%s, %d bytes", r.What, r.Bytes)
	if r.Where != "" {
		text += ", now at " + r.Where
	}
	if r.Back != "" {
		text += "; back with: " + r.Back
	}
	p.Text("  receipt  ", text)
}

// Explain writes why an incident was treated as it was: besides the story,
// every verdict of every guard, and why not the other rungs.
func (p *Printer) Explain(in fettle.Incident) {
	p.IncidentLine(in)
	if in.Why != "" {
		p.Text("  now      ", in.Why)
	}
	p.alone(in.Alone)
	p.Line("%s", p.Bold("  Why this cause"))
	p.Diagnosis(in.Diagnosis)
	p.Line("%s", p.Bold("  What was decided, and on what"))
	for _, e := range in.Story {
		p.Event(in.Opened, e)
		p.Verdicts(e.Verdicts, true)
	}
	if in.Plan != nil {
		p.Line("%s", p.Bold("  The plan"))
		p.Plan(*in.Plan)
		p.Text("  made with ", fmt.Sprintf("judge %s, catalogue %s, runbooks %s, policy %s", in.Plan.Judged.Judge, short(in.Plan.Judged.Catalogue), short(in.Plan.Judged.Runbooks), short(in.Plan.Judged.Policy)))
	}
}
