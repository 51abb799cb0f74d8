package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"fettle/internal/act/roster"
	"fettle/internal/face/show"
	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
	"fettle/internal/loop"
)

// findings is what doctor saw, for programs.
type findings struct {
	Host       string             `json:"host"`
	Looked     []roster.Item      `json:"looked"`
	NotSeen    []unseen           `json:"not_seen"`
	Subjects   int                `json:"subjects"`
	Conditions []fettle.Condition `json:"conditions"` // raised
	Unknown    []fettle.Condition `json:"unknown"`
	Incidents  []fettle.Incident  `json:"incidents"` // with cause and the plan that would be followed
	Took       time.Duration      `json:"took_ns"`
}

type unseen struct {
	Subject fettle.Subject `json:"subject"`
	Probe   string         `json:"probe"`
	Reason  fettle.Reason  `json:"reason"`
	Detail  string         `json:"detail,omitempty"`
	Needs   string         `json:"needs,omitempty"`
}

func (a *app) doctorCommand() *cobra.Command {
	var configs adapterFolder
	var patience time.Duration
	c := &cobra.Command{
		Use: "doctor", Short: "Look at this machine: findings, causes, plan; changes nothing",
		Long: `Looks once at everything that the adapters can see of this machine, judges it
and says what is wrong, why, and what Fettle would do. It changes nothing and
works without root, in a container and without systemd; what it could not see
it names, with what would let it see it.

Exit status: 0 nothing is wrong, 1 something is, 2 too little could be seen, or
not for long enough.`,
		Example: "  fettle doctor\n  sudo fettle doctor -o json | jq '.incidents[].cause'", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			begin := time.Now()
			l, err := a.openLocal(ctx, stateDir(), string(configs), false)
			if err != nil {
				return err
			}
			f, m, err := a.examine(ctx, l, patience)
			if cerr := l.close(); err == nil {
				err = cerr
			}
			if err != nil {
				return err
			}
			f.Took = time.Since(begin)
			if err := a.print(f, func(p *show.Printer) { printFindings(p, f, m) }); err != nil {
				return err
			}
			switch {
			case serious(m, f.Conditions):
				return &Exit{Code: ExitIll}
			case f.Subjects == 0:
				return exit(ExitUnknown, "nothing could be looked at; run it as root, or see above what is missing")
			case serious(m, unsettled(f.Unknown)):
				return &Exit{Code: ExitUnknown}
			}
			return nil
		},
	}
	configs.flag(c)
	c.Flags().DurationVar(&patience, "patience", 0, "how long to wait for conditions that must hold for some time")
	return c
}

// unsettled are the conditions that look ill so far and must stay so for a while
// before they are raised: one look cannot tell.
func unsettled(unknown []fettle.Condition) []fettle.Condition {
	return slices.DeleteFunc(slices.Clone(unknown), func(c fettle.Condition) bool {
		return !slices.ContainsFunc(c.Evidence, func(e fettle.Evidence) bool { return e.Says == fettle.Yes })
	})
}

// serious reports whether a condition in the list is worse than a notice.
func serious(m *incident.Mind, list []fettle.Condition) bool {
	for _, c := range list {
		if m.Severity(c.Code) != fettle.Notice {
			return true
		}
	}
	return false
}

// examine looks at everything and judges it.
func (a *app) examine(ctx context.Context, l *local, patience time.Duration) (findings, *incident.Mind, error) {
	// Doctor acts on nothing: every rung is only suggested.
	suggest := fettle.Policy{Budgets: runbook.DefaultBudgets(), Rules: []fettle.PolicyRule{{Runbook: "*", Rung: "*", Subject: "*", Level: fettle.Suggest}}}
	m, err := a.mind(suggest, nil)
	if err != nil {
		return findings{}, nil, err
	}
	a.progress("looking …")
	hands := loop.Local{Runner: l.runner, Host: l.m.Identity.Host}
	seen, err := loop.Survey(ctx, m, hands, l.m.Clock.Now, l.sleep, l.runner.Once, patience)
	if err != nil {
		return findings{}, nil, err
	}
	f := findings{Host: l.m.Identity.Hostname, Looked: l.roster.Items, Conditions: []fettle.Condition{}, Unknown: []fettle.Condition{}, NotSeen: []unseen{}, Incidents: append([]fettle.Incident{}, m.Incidents()...)}
	needs := map[string]string{}
	subjects := map[fettle.Subject]bool{}
	for _, p := range l.runner.Specs() {
		needs[p.Name] = p.Needs
	}
	for _, o := range seen {
		if o.Known() {
			subjects[o.Subject] = true
			continue
		}
		f.NotSeen = append(f.NotSeen, unseen{o.Subject, o.Probe, o.Reason, o.Detail, needs[o.Probe]})
	}
	f.Subjects = len(subjects)
	for _, s := range slices.Sorted(maps.Keys(subjects)) {
		for _, c := range m.View().ConditionsOf(s) {
			if c.State == fettle.Unknown {
				f.Unknown = append(f.Unknown, c)
			}
		}
	}
	f.Conditions = append(f.Conditions, m.View().Raised()...)
	return f, m, nil
}

func printFindings(p *show.Printer, f findings, m *incident.Mind) {
	p.Text("", fmt.Sprintf("%s: looked at %d things in %s", f.Host, f.Subjects, show.Took(f.Took)))
	for _, item := range f.Looked {
		if item.Error != "" {
			p.Text(p.Yellow("not seen ")+" ", fmt.Sprintf("%s: %s", item.Adapter, item.Error))
		}
	}
	for _, u := range f.NotSeen {
		text := fmt.Sprintf("%s by %s: %s", u.Subject, u.Probe, u.Reason)
		if u.Detail != "" {
			text += ": " + u.Detail
		}
		if u.Needs != "" {
			text += " (needs: " + u.Needs + ")"
		}
		p.Text(p.Yellow("not seen ")+" ", text)
	}
	pending := unsettled(f.Unknown)
	for _, c := range pending {
		p.Text(p.Yellow("not sure ")+" ", fmt.Sprintf("%s: %s [%s], so far; `fettle doctor --patience 30s` waits to see whether it stays so", c.Subject, c.Title, c.Code))
	}
	if len(f.Conditions) == 0 && len(pending) == 0 {
		p.Line("%s", p.Green("nothing is wrong with what could be seen"))
	}
	for _, c := range f.Conditions {
		p.Condition(c, m.Severity(c.Code))
	}
	for _, in := range f.Incidents {
		p.Line("")
		p.Text(p.Bold("because  "), m.Title(in.Cause)+" ("+in.Cause.String()+")")
		p.Diagnosis(in.Diagnosis)
		switch {
		case in.Plan != nil:
			p.Line("Fettle would do this:")
			p.Plan(*in.Plan)
			for _, e := range in.Story {
				if e.Kind == fettle.EvAsked {
					p.Verdicts(withoutAutonomy(e.Verdicts), false)
				}
			}
			p.Line("Next: `fettle repair` shows this plan again, asks, and does it.")
		case in.Why != "":
			p.Text("no plan: ", in.Why)
		}
	}
}

// withoutAutonomy leaves out that doctor may not act: it says so by being doctor.
func withoutAutonomy(list []fettle.Verdict) []fettle.Verdict {
	return slices.DeleteFunc(slices.Clone(list), func(v fettle.Verdict) bool { return v.Guard == "autonomy" })
}
