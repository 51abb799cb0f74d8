package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// commands lists every command, in the order in which they are documented.
func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.demoCommand(), a.etcdMainCommand(),
		a.doctorCommand(), a.repairCommand(),
		a.upCommand(), a.serverCommand(), a.serversCommand(), a.removeServerCommand(), a.backupCommand(), a.restoreCommand(), a.auditCommand(), a.tokenCommand(), a.joinCommand(), a.agentCommand(), a.executorCommand(), a.installCommand(),
		a.statusCommand(), a.hostsCommand(), a.forgetCommand(), a.rotateCommand(), a.incidentsCommand(), a.incidentCommand(), a.freezeCommand(), a.thawCommand(), a.maintenanceCommand(), a.permitsCommand(),
		a.runCommand(), a.revertCommand(),
		a.runbookCommand(), a.adaptersCommand(), a.replayCommand(), a.completionCommand(), a.versionCommand(),
	}
}

// polish makes the library behave as this command line promises: help in 80
// columns, and a word that is no command is a usage error everywhere. The
// library itself prints help and is content (exit status 0) where the word
// stands after a command that has commands of its own.
func polish(root *cobra.Command) {
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", ".FlagUsagesWrapped 80"))
	root.CompletionOptions.DisableDefaultCmd = true // completionCommand is ours
	root.SetHelpCommand(helpCommand(root))
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		if c.HasSubCommands() {
			c.Args, c.DisableFlagsInUseLine = cobra.ArbitraryArgs, true
			c.RunE = func(c *cobra.Command, args []string) error {
				if len(args) > 0 {
					return unknownCommand(c, args[0])
				}
				return c.Help()
			}
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(root)
}

// unknownCommand refuses a word and names what may have been meant.
func unknownCommand(c *cobra.Command, word string) error {
	c.SuggestionsMinimumDistance = 2 // one letter left out or two exchanged
	hint := ""
	if near := c.SuggestionsFor(word); len(near) > 0 {
		hint = fmt.Sprintf("did you mean %s? ", strings.Join(near, " or "))
	}
	return exit(ExitUsage, "unknown command %q for %q (%ssee `%s --help`)", word, c.CommandPath(), hint, c.CommandPath())
}

func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND…]", Short: "Help about any command", Example: "  fettle help runbook test",
		RunE: func(_ *cobra.Command, args []string) error {
			c, left, err := root.Find(args)
			switch {
			case err != nil:
				return exit(ExitUsage, "%w", err)
			case len(left) > 0:
				return unknownCommand(c, left[0])
			}
			c.InitDefaultHelpFlag()
			return c.Help()
		},
	}
}

func (a *app) completionCommand() *cobra.Command {
	shells := map[string]func(*cobra.Command) error{
		"bash": func(root *cobra.Command) error { return root.GenBashCompletionV2(a.out, true) },
		"zsh":  func(root *cobra.Command) error { return root.GenZshCompletion(a.out) },
		"fish": func(root *cobra.Command) error { return root.GenFishCompletion(a.out, true) },
	}
	return &cobra.Command{
		Use: "completion bash|zsh|fish", Short: "Print what makes a shell complete this command line",
		Example: "  fettle completion bash > /etc/bash_completion.d/fettle\n  source <(fettle completion zsh)",
		Args:    cobra.ExactArgs(1), ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(c *cobra.Command, args []string) error {
			write, ok := shells[args[0]]
			if !ok {
				return exit(ExitUsage, "no completion for %q; known: bash, zsh, fish", args[0])
			}
			return write(c.Root())
		},
	}
}
