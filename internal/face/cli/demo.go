package cli

import (
	"os"

	"github.com/spf13/cobra"

	"fettle/internal/face/demo"
	"fettle/internal/face/show"
)

// etcdCommand is the hidden command that makes this program an etcd server.
const etcdCommand = "demo-etcd"

func (a *app) demoCommand() *cobra.Command {
	var record string
	var keep bool
	c := &cobra.Command{
		Use: "demo", Short: "Break and mend a real cluster on this machine; no root needed",
		Long: `Starts a real three-member etcd cluster as child processes on loopback, with
clients writing and reading all the time, and breaks it: a member killed, a data
directory lost, the space quota reached, two of three members lost. Shows
evidence, plan, guard arithmetic and timings as they happen, and looks up every
acknowledged write on every member afterwards. Takes under two minutes, and
leaves nothing behind.`,
		Example: "  fettle demo\n  fettle demo --record ./recorded && fettle replay ./recorded/demo.json", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			o := demo.Options{
				Adapters: a.Adapters, Books: a.books, Self: self, EtcdArgs: []string{etcdCommand}, Record: record, Keep: keep, Version: a.Version,
			}
			if !a.json {
				o.Printer = a.printer()
			}
			report, err := demo.Run(cmd.Context(), o)
			if err != nil {
				return &Exit{Code: ExitUnknown, Err: err}
			}
			if err := a.print(report, func(p *show.Printer) { demo.Table(p, report) }); err != nil {
				return err
			}
			if report.Failed() {
				return &Exit{Code: ExitIll}
			}
			return nil
		},
	}
	c.Flags().StringVar(&record, "record", "", "write what `fettle replay` takes into this folder")
	c.Flags().BoolVar(&keep, "keep", false, "leave the members' folders and logs in place")
	return c
}

// etcd runs etcd's own main function. It is no command for people: the demo
// starts its members with it. etcd takes its settings from its environment.
func (a *app) etcdMainCommand() *cobra.Command {
	return &cobra.Command{
		Use: etcdCommand, Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			a.EtcdMain(append([]string{"etcd"}, args...))
			return nil
		},
	}
}
