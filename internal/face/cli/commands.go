package cli

import "github.com/spf13/cobra"

// commands lists every command, in the order in which they are documented.
func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.demoCommand(), a.etcdMainCommand(),
		a.doctorCommand(), a.repairCommand(),
		a.upCommand(), a.tokenCommand(), a.joinCommand(), a.agentCommand(),
		a.statusCommand(), a.incidentsCommand(), a.incidentCommand(), a.freezeCommand(), a.thawCommand(),
		a.runbookCommand(), a.adaptersCommand(), a.replayCommand(), a.versionCommand(),
	}
}
