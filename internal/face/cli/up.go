package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"

	"fettle/internal/face/show"
	"fettle/internal/face/single"
	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
	"fettle/internal/machine"
	"fettle/internal/machine/linuxmachine"
)

// defaultListen is where a server listens when nothing is said: loopback, so
// that nobody else reaches it until an administrator wants them to.
const defaultListen = "127.0.0.1:7401"

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
func stayLean() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

func (a *app) upCommand() *cobra.Command {
	var dir, listen, policyFile string
	var configs adapterFolder
	var verbose bool
	c := &cobra.Command{
		Use: "up", Short: "Run server and agent here, and look after this machine",
		Long: `Runs the server, with its embedded store, and an agent for this machine in one
process. Incidents survive restarts. Other machines join with a token from
"fettle token". Ends cleanly when it is interrupted.`,
		Example: "  sudo fettle up\n  sudo fettle up --listen 10.0.0.5:7401    # so that other machines can join", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			stayLean()
			ctx := cmd.Context()
			policy, _, err := readPolicy(policyFile)
			if err != nil {
				return err
			}
			h, err := linuxmachine.Open(ctx, linuxmachine.Config{Host: "server"})
			if err != nil {
				return err
			}
			defer h.Close()
			name, err := os.Hostname()
			if err != nil {
				return fmt.Errorf("this machine's host name: %w", err)
			}
			agentDir := filepath.Join(dir, "agent")
			p := a.printer()
			f, err := single.Open(ctx, single.Options{
				Dir: dir, Listen: listen, Adapters: a.Adapters, Books: a.books, Policy: policy, Clock: h.Ports().Clock, Version: a.Version,
				Log:    logger(a.errOut, verbose),
				Agents: []single.Agent{{Label: name, Dir: agentDir, ConfigDir: string(configs), Machine: openMachine(agentDir)}},
				OnReady: func(address string) {
					a.event(p, map[string]string{"ready": address}, func() { p.Line("ready: server and agent run, listening on %s", address) })
				},
				OnChange: func(r incident.Record, events []fettle.Event) {
					for _, e := range events {
						a.event(p, told{r.ID, r.Cause, r.State, e}, func() { p.Line("%s", p.Dim(r.ID+" "+string(r.Cause.Subject))); p.Event(r.Opened, e) })
					}
				},
			})
			switch {
			case errors.Is(err, single.ErrRunning):
				return &Exit{Code: ExitIll, Err: err}
			case err != nil && ctx.Err() != nil: // asked to end before it had begun
				return nil
			case err != nil:
				return err
			}
			err = f.Run(ctx)
			if cerr := f.Close(); err == nil {
				err = cerr
			}
			if ctx.Err() != nil && err == nil {
				return nil
			}
			return err
		},
	}
	c.Flags().StringVar(&dir, "dir", stateDir(), "folder for everything that is kept")
	c.Flags().StringVar(&listen, "listen", defaultListen, "address of the server")
	c.Flags().StringVar(&policyFile, "policy", "", "policy file (default "+configDir+"/policy.yaml, where it is there)")
	configs.flag(c)
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "log what the parts do")
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
