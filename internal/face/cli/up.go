package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"

	"fettle/internal/face/control"
	"fettle/internal/face/show"
	"fettle/internal/face/single"
	"fettle/internal/fettle"
	"fettle/internal/machine"
	"fettle/internal/machine/linuxmachine"
)

// openMachine opens this machine under an identity.
func openMachine(stateDir string) func(context.Context, string) (machine.Machine, func() error, error) {
	return func(ctx context.Context, host string) (machine.Machine, func() error, error) {
		h, err := linuxmachine.Open(ctx, linuxmachine.Config{Host: host, StateDir: stateDir})
		if err != nil {
			return machine.Machine{}, nil, err
		}
		return h.Ports(), h.Close, nil
	}
}

// logger writes what happens to a stream, warnings and worse unless verbose.
func logger(w io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// stayLean has the collector run at half of its usual growth: what always runs
// beside others' services takes little memory, and collecting fifteen megabytes
// once in half a minute costs nothing. GOGC decides where it is set.
func stayLean() { collectAt(50) }

// serverGrowth is by how much of what lives a server's memory may grow before it is
// collected, in percent. With ten thousand agents nearly all of it lives for long, so
// that more would be paid for by each of them.
const serverGrowth = 20

// crowdGrowth is the same while many agents come at once. What they leave behind is mostly
// garbage then, and to look through all that lives again and again would take half of the
// time in which they are let in.
const crowdGrowth = 100

// makeRoom has the collector do what suits while many come, and give back afterwards what
// they needed.
func makeRoom(crowded bool) {
	if crowded {
		collectAt(crowdGrowth)
		return
	}
	collectAt(serverGrowth)
	debug.FreeOSMemory()
}

func collectAt(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

func (a *app) upCommand() *cobra.Command {
	var o serverFlags
	var configs adapterFolder
	var runFile, gossip string
	c := &cobra.Command{
		Use: "up", Short: "Run server and agent here, and look after this machine",
		Long: `Runs the server, with its embedded store, and an agent for this machine in one
process. Incidents survive restarts. Other machines join with a token from
"fettle token". Ends cleanly when it is interrupted.`,
		Example: "  sudo fettle up\n  sudo fettle up --listen 10.0.0.5:7401    # so that other machines can join", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.serve(cmd.Context(), o, func(ctx context.Context, so control.Options) (runner, error) {
				agentDir := filepath.Join(o.dir, "agent")
				return single.Open(ctx, single.Options{Options: so,
					Agents: []single.Agent{{Label: so.Label, Dir: agentDir, ConfigDir: string(configs), RunFile: runFile, GossipListen: gossip, Machine: openMachine(agentDir), Arms: arms}}})
			})
		},
	}
	o.flags(c)
	configs.flag(c)
	runFileFlag(c, &runFile)
	gossipFlag(c, &gossip)
	return c
}

// told is an event as a program reads it, one a line.
type told struct {
	Incident string               `json:"incident"`
	Cause    fettle.ConditionKey  `json:"cause"`
	State    fettle.IncidentState `json:"state"`
	Event    fettle.Event         `json:"event"`
}

// event writes one thing that happened: a line of JSON, or text.
func (a *app) event(_ *show.Printer, v any, text func()) {
	a.events.Lock()
	defer a.events.Unlock()
	if !a.json {
		text()
		return
	}
	if err := a.line(v); err != nil {
		fmt.Fprintln(a.errOut, "fettle: "+err.Error())
	}
}
