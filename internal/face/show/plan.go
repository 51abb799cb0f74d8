package show

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"fettle/internal/fettle"
)

// Plan writes a plan: its steps with target, host, parameters and what each
// takes.
func (p *Printer) Plan(plan fettle.Plan) {
	p.Text("  plan     ", fmt.Sprintf("%s, rung %s, risk %s%s", plan.Runbook, plan.Rung, plan.Risk, takes(plan.Takes)))
	p.Line("  %s", p.Dim("hash     "+short(plan.Hash)))
	if plan.Loses != "" {
		p.Text("  "+p.Red("loses")+"    ", plan.Loses)
	}
	for i, s := range plan.Steps {
		p.Text(fmt.Sprintf("  %2d ", i+1), fmt.Sprintf("%s: %s on %s%s", s.ID, s.Action, s.Target, params(s)))
		p.Text("       ", p.Dim("by "+string(s.Host)+takes(s.Takes)+back(s)))
		if s.When != "" {
			p.Text("       ", "only if "+s.When)
		}
		if s.Expect != "" {
			held := ""
			if s.Hold > 0 {
				held = ", held for " + Took(s.Hold)
			}
			p.Text("       ", fmt.Sprintf("then expects %s within %s%s", s.Expect, Took(s.Within), held))
		}
	}
}

func takes(list []fettle.Taking) string {
	if len(list) == 0 {
		return ", takes nothing"
	}
	words := make([]string, len(list))
	for i, t := range list {
		words[i] = string(t)
	}
	return ", takes " + strings.Join(words, " and ")
}

func back(s fettle.Step) string {
	if s.Undo {
		return ", can be undone"
	}
	if s.ForwardOnly == "" {
		return ", forward-only"
	}
	return ", forward-only: " + s.ForwardOnly
}

func params(s fettle.Step) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(s.Params)) {
		parts = append(parts, fmt.Sprintf("%s=%v", name, s.Params[name]))
	}
	for _, l := range s.Late {
		parts = append(parts, fmt.Sprintf("%s=${%s.%s}", l.Param, l.Step, l.Output))
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

func short(hash string) string {
	if len(hash) > 12 {
		return hash[:12]
	}
	return hash
}

// Verdicts writes what the guards said: refusals in full, permissions in full
// only when all is set, else only those with arithmetic.
func (p *Printer) Verdicts(list []fettle.Verdict, all bool) {
	for _, v := range list {
		if v.Allow && !all && v.Arithmetic == "" {
			continue
		}
		mark, word := p.Green("✓"), "allows"
		if !v.Allow {
			mark, word = p.Red("✗"), "refuses"
		}
		p.Text(fmt.Sprintf("    %s %-3s ", mark, v.Invariant), fmt.Sprintf("%s %s: %s", v.Guard, word, v.Why))
		if v.Arithmetic != "" {
			p.Text("          ", v.Arithmetic)
		}
		if v.Lifts != "" {
			p.Text("          ", "what would lift it: "+v.Lifts)
		}
	}
}

func sorted(f fettle.Facts) []string { return slices.Sorted(maps.Keys(f)) }
