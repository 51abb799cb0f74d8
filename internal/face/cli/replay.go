package cli

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"fettle/internal/face/control"
	"fettle/internal/face/show"
	"fettle/internal/judge/incident"
)

func (a *app) replayCommand() *cobra.Command {
	return &cobra.Command{
		Use: "replay FILE…", Short: "Take the decisions of a recording again, and show what differs",
		Long: `Feeds the inputs of a recording to this binary's judge and compares every
decision with the recorded one. Exit status 0: the same; 1: it differs;
2: it could not be replayed.`,
		Example: "  fettle demo --record ./recorded\n  fettle replay ./recorded/*.json", Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			type outcome struct {
				File      string   `json:"file"`
				Incidents int      `json:"incidents"`
				Inputs    int      `json:"inputs"`
				Different []string `json:"different"`
			}
			var all []outcome
			differs := false
			for _, file := range args {
				rec, err := readRecording(file)
				if err != nil {
					return err
				}
				m, err := incident.New(incident.Options{Catalogues: control.Catalogues(a.Adapters), Books: a.books, Policy: rec.Policy, Evaluates: rec.Evaluates})
				if err != nil {
					return err
				}
				diff, err := rec.Replay(m)
				if err != nil {
					return &Exit{Code: ExitUnknown, Err: fmt.Errorf("%s: %w", file, err)}
				}
				differs = differs || len(diff) > 0
				all = append(all, outcome{file, len(rec.Incidents), len(rec.Inputs), append([]string{}, diff...)})
			}
			if err := a.print(all, func(p *show.Printer) {
				for _, o := range all {
					if len(o.Different) == 0 {
						p.Text(p.Green("same")+"  ", fmt.Sprintf("%s: %d incidents from %d inputs, every decision as recorded", o.File, o.Incidents, o.Inputs))
						continue
					}
					p.Text(p.Red("differs")+"  ", o.File)
					for _, d := range o.Different {
						p.Text("  ", d)
					}
				}
			}); err != nil {
				return err
			}
			if differs {
				return &Exit{Code: ExitIll}
			}
			return nil
		},
	}
}

func readRecording(file string) (incident.Recording, error) {
	var rec incident.Recording
	data, err := os.ReadFile(file)
	if err != nil {
		return rec, exit(ExitUsage, "read the recording: %w", err)
	}
	if err := json.Unmarshal(data, &rec); err != nil {
		return rec, &Exit{Code: ExitUnknown, Err: fmt.Errorf("%s is not a recording: %w (they are made with --record)", file, err)}
	}
	return rec, nil
}
