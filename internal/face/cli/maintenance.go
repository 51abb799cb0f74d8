package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"fettle/internal/face/show"
	"fettle/internal/fleet/fanout"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/guard"
)

func (a *app) maintenanceCommand() *cobra.Command {
	var r remote
	c := &cobra.Command{
		Use: "maintenance", Short: "Say where people work, so that Fettle starts nothing there",
		Long: `While a window of maintenance is open, Fettle goes on looking and telling,
starts nothing on its hosts, calls nobody about that, and spares the other
members of the groups that run there: what people work on may go away at any
moment. What is under way comes to its nearest safe point. When the window ends,
what is still ill is mended. Agents keep their own copy, which holds without a
server.`,
		Example: "  fettle maintenance begin --hosts web3 --for 2h --why 'new disks'\n  fettle maintenance list\n  fettle maintenance end m-4kq2zd",
	}
	r.flags(c)
	c.AddCommand(a.maintenanceBegin(&r), a.maintenanceList(&r), a.maintenanceEnd(&r))
	return c
}

func (a *app) maintenanceBegin(r *remote) *cobra.Command {
	var hosts, from, every, why string
	var long time.Duration
	var open bool
	c := &cobra.Command{
		Use: "begin --hosts SEL (--for DURATION | --until-ended)", Short: "Open a window, now or later, once or again and again", Args: cobra.NoArgs,
		Long: "Opens a window of maintenance on some hosts.\n\n" + fanout.SelectorHelp + `
Hosts are those that it names now; "*" is every host, also one that joins later.`,
		Example: `  fettle maintenance begin --hosts web3 --for 2h --why 'new disks'
  fettle maintenance begin --hosts 'db*' --from 02:00 --for 90m --every week
  fettle maintenance begin --hosts '*' --until-ended --why 'moving house'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req := &wire.BeginMaintenanceRequest{Hosts: hosts, ForNs: int64(long), Why: why, By: person()}
			repeat, known := map[string]time.Duration{"": 0, "day": 24 * time.Hour, "week": 7 * 24 * time.Hour}[every]
			switch {
			case hosts == "":
				return exit(ExitUsage, "on which hosts? name them with --hosts ('*' for all)")
			case long < 0, open == (long > 0):
				return exit(ExitUsage, "how long? --for 2h, or --until-ended")
			case !known:
				return exit(ExitUsage, "--every %q: want day or week", every)
			case repeat > 0 && open:
				return exit(ExitUsage, "what comes every %s has an end: say how long with --for", every)
			}
			req.EveryNs = int64(repeat)
			if from != "" {
				at, err := moment(from, time.Now())
				if err != nil {
					return &Exit{Code: ExitUsage, Err: err}
				}
				req.FromUnix = at.Unix()
			}
			return r.call(cmd.Context(), func(ctx context.Context, api wire.AdminServiceClient) error {
				ctx, cancel := short(ctx)
				defer cancel()
				m, err := api.BeginMaintenance(ctx, req)
				if err != nil {
					return err
				}
				w, err := wire.Unpack[guard.Window](m.GetJson())
				if err != nil {
					return err
				}
				return a.print(w, func(p *show.Printer) {
					p.Text("", w.Text())
					p.Line("`fettle maintenance end %s` ends it", w.ID)
				})
			})
		},
	}
	c.Flags().StringVar(&hosts, "hosts", "", "which hosts; see above")
	c.Flags().DurationVar(&long, "for", 0, "how long")
	c.Flags().BoolVar(&open, "until-ended", false, "until somebody ends it")
	c.Flags().StringVar(&from, "from", "", "when it opens: 'YYYY-MM-DD HH:MM' or HH:MM in this machine's time, or RFC 3339 (default: now)")
	c.Flags().StringVar(&every, "every", "", "open it anew every day, or every week")
	c.Flags().StringVar(&why, "why", "", "the reason, shown to everybody who asks why nothing is done")
	return c
}

// moment reads a time as people write it. A time of day is the next one.
func moment(text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02T15:04"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	clock, err := time.Parse("15:04", text)
	if err != nil {
		return time.Time{}, fmt.Errorf("time %q: want 'YYYY-MM-DD HH:MM', HH:MM or RFC 3339", text)
	}
	t := time.Date(now.Year(), now.Month(), now.Day(), clock.Hour(), clock.Minute(), 0, 0, now.Location())
	if t.Before(now) {
		t = t.AddDate(0, 0, 1)
	}
	return t, nil
}

func (a *app) maintenanceList(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the windows that are open or to come", Args: cobra.NoArgs, Example: "  fettle maintenance list -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd.Context(), func(ctx context.Context, api wire.AdminServiceClient) error {
				ctx, cancel := short(ctx)
				defer cancel()
				list, err := windows(ctx, api)
				if err != nil {
					return err
				}
				now := time.Now()
				return a.print(list, func(p *show.Printer) {
					for _, w := range list {
						word := p.Dim("to come") + " "
						if _, open := w.Open(now); open {
							word = p.Yellow("open") + " "
						}
						p.Text(word, w.Text()+" ("+w.By+")")
					}
					if len(list) == 0 {
						p.Line("no window of maintenance is open or to come")
					}
				})
			})
		},
	}
}

// windows are those that the server knows.
func windows(ctx context.Context, api wire.AdminServiceClient) ([]guard.Window, error) {
	m, err := api.ListMaintenance(ctx, &wire.ListMaintenanceRequest{})
	if err != nil {
		return nil, err
	}
	list := []guard.Window{}
	for _, data := range m.GetJson() {
		w, err := wire.Unpack[guard.Window](data)
		if err != nil {
			return nil, err
		}
		list = append(list, w)
	}
	return list, nil
}

func (a *app) maintenanceEnd(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "end ID", Short: "End a window: what is ill there is mended again", Args: cobra.ExactArgs(1), Example: "  fettle maintenance end m-4kq2zd",
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.call(cmd.Context(), func(ctx context.Context, api wire.AdminServiceClient) error {
				ctx, cancel := short(ctx)
				defer cancel()
				if _, err := api.EndMaintenance(ctx, &wire.EndMaintenanceRequest{Id: args[0], By: person()}); err != nil {
					return err
				}
				return a.print(map[string]string{"ended": args[0]}, func(p *show.Printer) { p.Line("%s has ended", args[0]) })
			})
		},
	}
}
