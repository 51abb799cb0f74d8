package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"fettle/internal/face/show"
	"fettle/internal/fettle"
)

func (a *app) adaptersCommand() *cobra.Command {
	return &cobra.Command{
		Use: "adapters [NAME]", Short: "List the adapters, or show what one of them sees and does",
		Example: "  fettle adapters\n  fettle adapters etcd", Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, c := range a.catalogues() {
				names = append(names, c.Adapter)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			cats := a.catalogues()
			if len(args) == 0 {
				return a.print(cats, func(p *show.Printer) {
					for _, c := range cats {
						p.Text(fmt.Sprintf("%-12s ", c.Adapter), fmt.Sprintf("%s (%d conditions, %d actions)", c.Doc, len(c.Conditions), len(c.Actions)))
					}
				})
			}
			for _, c := range cats {
				if c.Adapter == args[0] {
					return a.print(c, func(p *show.Printer) { catalogue(p, c) })
				}
			}
			return exit(ExitUsage, "no adapter %q (see `fettle adapters`)", args[0])
		},
	}
}

func catalogue(p *show.Printer, c fettle.Catalogue) {
	p.Text(p.Bold(c.Adapter)+"  ", c.Doc)
	p.Line("tested with %s", c.Versions)
	p.Line("\n%s", p.Bold("Conditions"))
	for _, s := range c.Conditions {
		p.Text(p.Severity(s.Severity)+" ", string(s.Code)+": "+s.Doc)
		switch {
		case s.Explains:
			p.Text("           ", "reported as done on purpose; never repaired")
		case s.NotMended != "":
			p.Text("           ", "not mended: "+s.NotMended)
		}
	}
	p.Line("\n%s", p.Bold("Actions"))
	for _, s := range c.Actions {
		p.Text("  ", fmt.Sprintf("%s (risk %s): %s", s.Name, s.Risk, s.Doc))
	}
	p.Line("\n%s", p.Bold("Faults for drills"))
	for _, s := range c.Faults {
		p.Text("  ", s.Name+": "+s.Doc)
	}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Example: "  fettle version -o json", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := map[string]string{"version": a.Version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
			return a.print(v, func(p *show.Printer) { p.Line("fettle %s (%s, %s)", v["version"], v["go"], v["platform"]) })
		},
	}
}
