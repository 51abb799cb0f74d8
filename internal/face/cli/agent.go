package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/face/show"
	"fettle/internal/fettle"
	"fettle/internal/fleet/agent"
	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/server"
)

// serverFile keeps the address that this machine joined at.
const serverFile = "server"

func (a *app) joinCommand() *cobra.Command {
	var dir, account, forExecutor string
	c := &cobra.Command{
		Use: "join TOKEN", Short: "Make this machine part of a fleet",
		Long: `Trades a token, made on the server with "fettle token", for an identity of this
machine's own. The token pins the fleet's authority: a server that cannot prove
to be of that fleet is not spoken to. Then run "fettle agent".

With --user the agent is to run without root: the folder becomes that account's,
and "fettle executor", which does the steps, gets its own copy of whom to
believe.`,
		Example: "  sudo fettle join fettle-join:10.0.0.5:7401:…\n  sudo fettle join --user fettle fettle-join:10.0.0.5:7401:…", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			token, err := pki.ParseToken(args[0])
			if err != nil {
				return &Exit{Code: ExitUsage, Err: err}
			}
			if account != "" {
				if _, _, err := accountOf(account); err != nil { // before the token is used up
					return &Exit{Code: ExitUsage, Err: err}
				}
				if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil { // which that account must pass
					return fmt.Errorf("make the state folder: %w", err)
				}
			}
			name, err := os.Hostname()
			if err != nil {
				return fmt.Errorf("this machine's host name: %w", err)
			}
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return fmt.Errorf("make the state folder: %w", err)
			}
			id, err := agent.Join(cmd.Context(), agent.JoinOptions{Token: token, Dir: dir, Label: name, Wall: time.Now})
			switch code := status.Code(err); {
			case err == nil:
			case code == codes.Unavailable, code == codes.DeadlineExceeded:
				return &Exit{Code: ExitNoContact, Err: err}
			default: // the server said no, or this machine has joined already
				return &Exit{Code: ExitIll, Err: err}
			}
			if err := os.WriteFile(filepath.Join(dir, serverFile), []byte(token.Address+"\n"), 0o600); err != nil {
				return fmt.Errorf("keep the server's address: %w", err)
			}
			if account != "" {
				if err := errors.Join(executor.Save(forExecutor, id), giveTo(account, dir)); err != nil {
					return err
				}
			}
			return a.print(map[string]string{"host": string(id.Name.Host()), "fleet": id.Name.Fleet}, func(p *show.Printer) {
				p.Line("joined fleet %s as %s; now run `fettle agent`", id.Name.Fleet, id.Name.Host())
			})
		},
	}
	c.Flags().StringVar(&dir, "dir", filepath.Join(stateDir(), "agent"), "folder for identity and journal")
	c.Flags().StringVar(&account, "user", "", "account that the agent is to run as, without root")
	c.Flags().StringVar(&forExecutor, "executor-dir", executorDir(), "folder of \"fettle executor\"")
	return c
}

func (a *app) agentCommand() *cobra.Command {
	var dir, address, runFile, gossip, socket, actions string
	var configs adapterFolder
	var verbose bool
	c := &cobra.Command{
		Use: "agent", Short: "Look after this machine for the fleet that it joined",
		Long: `Observes this machine, tells the server, and does the steps that the server
hands out. Goes on observing while no server is reached, and then does by itself
what its standing permit lets it ("fettle permits"). Ends cleanly when it is
interrupted.

With --executor it runs without root and does no steps itself: "fettle
executor", which does, is reached at that socket.`,
		Example: "  sudo fettle agent\n  sudo fettle agent --gossip-listen 10.1.0.7:7403\n  sudo fettle agent --gossip-listen ''    # watches over nobody\n  fettle agent --executor " + executorSocket + "    # as the user that joined", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			stayLean()
			ctx := cmd.Context()
			id, err := pki.LoadIdentity(dir, pki.RoleAgent)
			if errors.Is(err, fs.ErrNotExist) {
				return exit(ExitUsage, "this machine has not joined a fleet (see `fettle join --help`)")
			}
			if err != nil {
				return err
			}
			if address == "" {
				data, err := os.ReadFile(filepath.Join(dir, serverFile))
				if err != nil {
					return exit(ExitUsage, "the server's address is not known: %w (name it with --server)", err)
				}
				address = strings.TrimSpace(string(data))
			}
			h, err := agentMachine(ctx, dir, socket, id.Name.ID)
			if err != nil {
				return err
			}
			m, done := h.Ports(), h.Close
			var hands executor.Hands
			if socket != "" {
				client := executor.Dial(socket)
				hands, done = client, func() error { return errors.Join(client.Close(), h.Close()) }
			}
			ag, err := agent.New(agent.Options{
				Executor: hands, ActionsFile: actions,
				Server: address, Identity: id, IdentityDir: dir, StateDir: dir, ConfigDir: string(configs), RunFile: runFile, GossipListen: gossip, Machine: m, Arms: arms(m), Adapters: a.Adapters,
				Catalogues: []fettle.Catalogue{server.Catalogue()}, Version: a.Version, Log: logger(a.errOut, verbose),
				Books: a.books,
			})
			if err != nil {
				return errors.Join(err, done())
			}
			err = errors.Join(ag.Run(ctx), done())
			if ctx.Err() != nil {
				return nil
			}
			return err
		},
	}
	c.Flags().StringVar(&dir, "dir", filepath.Join(stateDir(), "agent"), "folder for identity and journal")
	c.Flags().StringVar(&address, "server", "", "address of the server (default: where this machine joined)")
	c.Flags().StringVar(&socket, "executor", "", "socket of the executor that does the steps (default: this process does them)")
	actionsFileFlag(c, &actions)
	configs.flag(c)
	runFileFlag(c, &runFile)
	gossipFlag(c, &gossip)
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "log what it does")
	return c
}
