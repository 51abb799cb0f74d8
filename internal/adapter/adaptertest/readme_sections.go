package adaptertest

import (
	"fmt"
	"strings"

	"fettle/internal/fettle"
)

func (p *page) probe(s fettle.ProbeSpec) {
	p.line("### `%s`", s.Name)
	p.text("%s", sentence(s.Doc))
	how := fmt.Sprintf("looked at every %s", span(s.Interval))
	if s.Told {
		how = fmt.Sprintf("told of changes at once, and looked at every %s to be sure", span(s.Interval))
	}
	p.text("Subject: `%s`; %s; what does not answer within %s is unknown.%s", s.Kind, how, span(s.Timeout), needs(s.Needs))
	p.WriteString("| fact | type | meaning |\n|---|---|---|\n")
	for _, f := range s.Facts {
		fmt.Fprintf(p, "| `%s` | %s | %s |\n", f.Name, f.Type, strings.ReplaceAll(f.Doc, "|", `\|`))
	}
	p.end()
}

func needs(what string) string {
	if what == "" {
		return ""
	}
	return " Needs: " + sentence(what)
}

func (p *page) condition(s fettle.ConditionSpec) {
	p.line("### `%s`: %s", s.Code, s.Severity)
	p.text("%s", sentence(strings.ToUpper(s.Title[:1])+s.Title[1:]))
	p.text("%s", sentence(s.Doc))
	p.item("%s layer; judged %s, from `%s`%s.", upper(s.Layer.String()), judgedBy(s.Scope), s.Probe, agreement(s.Observers))
	p.item("Raised%s by `%s`.", after(s.Delay > 0, span(s.Delay)), s.Raise)
	if s.Clear != "" {
		p.item("Clear%s by `%s`.", after(s.ClearHold > 0, span(s.ClearHold)), s.Clear)
	} else if s.ClearHold > 0 {
		p.item("Clear when that is known to be false%s.", after(true, span(s.ClearHold)))
	}
	if s.Expiry > 0 {
		p.item("Unknown when nobody has looked for %s.", span(s.Expiry))
	}
	for _, e := range s.Effects {
		p.item("Brings about `%s` %s: %s, within %s.", e.Condition, onPath(e.Path), e.Surely, span(e.Within))
	}
	for _, e := range s.CausedBy {
		p.item("Brought about by `%s` %s: %s, within %s.", e.Condition, onPath(e.Path), e.Surely, span(e.Within))
	}
	switch {
	case s.Explains:
		p.item("Reported, never mended: it is somebody's will, and explains what follows from it.")
	case s.NotMended != "":
		p.item("Not mended: %s", sentence(s.NotMended))
	}
	p.end()
}

func upper(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func judgedBy(s fettle.Scope) string {
	if s == fettle.HostScope {
		return "by the machine's own agent"
	}
	return "by the server, over all that see it"
}

func agreement(a fettle.Agreement) string {
	switch a {
	case fettle.MostHosts:
		return ", by the majority of the hosts that look"
	case fettle.AllObservers:
		return ", by all who know"
	default:
		return ""
	}
}

func after(held bool, d string) string {
	if !held {
		return ""
	}
	return " once it has held for " + d + ","
}

// onPath says where a path leads, in words where there are some.
func onPath(path fettle.Path) string {
	switch path {
	case fettle.Self:
		return "on itself"
	case ">uses":
		return "of what it uses"
	case "<uses":
		return "of what uses it"
	case ">part-of":
		return "of the whole that it is part of"
	case "<part-of":
		return "of its parts"
	case ">runs-on":
		return "of its host"
	case "<runs-on":
		return "of what runs on it"
	default:
		return "along `" + string(path) + "`"
	}
}

func (p *page) action(s fettle.ActionSpec) {
	p.line("### `%s`", s.Name)
	p.text("%s", sentence(s.Doc))
	var takes []string
	for _, t := range s.Takes {
		takes = append(takes, string(t))
	}
	takesAway := "takes nothing away"
	if len(takes) > 0 {
		takesAway = "takes " + strings.Join(takes, ", ")
	}
	reach := "touches its own host only"
	if s.Scope != fettle.HostScope {
		reach = "reaches beyond its host"
	}
	p.item("On a `%s`; %s risk; %s; %s; given up on after %s.", s.Target, s.Risk, takesAway, reach, span(s.Timeout))
	if s.Undo {
		p.item("Can be taken back.")
	} else {
		p.item("Cannot be taken back: %s", sentence(s.NoUndo))
	}
	if s.Disposes != "" {
		p.item("Lets go only what the policy lists as disposable: `%s`.", s.Disposes)
	}
	for _, e := range s.Effects {
		p.item("Afterwards: %s.", effect(e))
	}
	if s.Needs != "" {
		p.item("Needs: %s", sentence(s.Needs))
	}
	p.params("Parameter", s.Params)
	p.params("Output", s.Outputs)
	p.end()
}

func effect(e fettle.EffectSpec) string {
	on := "it"
	if e.On != "" {
		on = "`" + e.On + "`"
	}
	switch e.Quorum {
	case "":
		return fmt.Sprintf("`%s` of %s is `%s`", e.Fact, on, e.To)
	case fettle.QuorumStop:
		return on + " does not serve in its quorum group"
	case fettle.QuorumStart:
		return on + " serves in its quorum group"
	case fettle.QuorumRemove:
		return on + " is no member of its quorum group"
	case fettle.QuorumLearner:
		return on + " is a member of its quorum group, without a vote"
	case fettle.QuorumPromote:
		return on + " has a vote in its quorum group"
	case fettle.QuorumLead:
		return on + " leads its quorum group"
	case fettle.QuorumYield:
		return on + " does not lead its quorum group"
	default:
		return fmt.Sprintf("of its quorum group %s is: %s", on, e.Quorum)
	}
}

func (p *page) params(word string, list []fettle.ParamSpec) {
	for _, s := range list {
		must := ""
		if s.Required {
			must = ", required"
		}
		p.item("%s `%s` (%s%s): %s", word, s.Name, s.Type, must, sentence(s.Doc))
	}
}
