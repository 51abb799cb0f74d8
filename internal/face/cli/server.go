package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"fettle/internal/face/control"
	"fettle/internal/face/show"
	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/incident"
	"fettle/internal/machine/linuxmachine"
)

const (
	// defaultListen is where a server listens when nothing is said: loopback, so
	// that nobody else reaches it until an administrator wants them to.
	defaultListen = "127.0.0.1:7401"
	// peerPort is where a server's store listens for the other servers' stores.
	peerPort = "7402"
)

// serverFlags are what `up` and `server` have in common.
type serverFlags struct {
	dir, listen, policyFile string
	topologyFile            string
	verbose                 bool
	limitFlags
}

func (f *serverFlags) flags(c *cobra.Command) {
	f.limitFlags.flags(c)
	c.Flags().StringVar(&f.dir, "dir", stateDir(), "folder for everything that is kept")
	c.Flags().StringVar(&f.listen, "listen", defaultListen, "address of the server")
	c.Flags().StringVar(&f.policyFile, "policy", "", "policy file (default "+configDir+"/policy.yaml, where it is there)")
	c.Flags().StringVar(&f.topologyFile, "topology", "", "file that says where hosts stand (default "+configDir+"/topology.yaml, where it is there)")
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "log what the parts do")
}

// runner is what serve runs.
type runner interface {
	Run(ctx context.Context) error
	Close() error
}

// serve opens and runs a server until it is interrupted.
func (a *app) serve(ctx context.Context, f serverFlags, open func(context.Context, control.Options) (runner, error)) error {
	collectAt(serverGrowth)
	policy, _, err := readPolicy(f.policyFile)
	if err != nil {
		return err
	}
	places, err := readTopology(f.topologyFile)
	if err != nil {
		return err
	}
	limits, err := f.limits()
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
	p := a.printer()
	r, err := open(ctx, control.Options{
		Dir: f.dir, Listen: f.listen, Label: name, Adapters: a.Adapters, Books: a.books, Policy: policy, Topology: places, Limits: limits, Clock: h.Ports().Clock, Version: a.Version,
		Log:     logger(a.errOut, f.verbose),
		OnCrowd: makeRoom,
		OnReady: func(address string) {
			a.event(p, map[string]string{"ready": address}, func() { p.Line("ready: listening on %s", address) })
		},
		OnChange: func(r incident.Record, events []fettle.Event) {
			for _, e := range events {
				a.event(p, told{r.ID, r.Cause, r.State, e}, func() { p.Line("%s", p.Dim(r.ID+" "+string(r.Cause.Subject))); p.Event(r.Opened, e) })
			}
		},
	})
	switch {
	case errors.Is(err, control.ErrRunning):
		return &Exit{Code: ExitIll, Err: err}
	case err != nil && ctx.Err() != nil: // asked to end before it had begun
		return nil
	case err != nil:
		return err
	}
	err = r.Run(ctx)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	return err
}

// again calls serve until it returns for another reason than that it is to be called
// again.
func again(serve func() error) error {
	for {
		if err := serve(); !errors.Is(err, control.ErrAgain) {
			return err
		}
	}
}

func (a *app) serverCommand() *cobra.Command {
	var o serverFlags
	var peer, join string
	var outside storeFlags
	c := &cobra.Command{
		Use: "server", Short: "Run one of the fleet's servers",
		Long: `Runs a server with its part of the fleet's store, which is an embedded etcd. One
server leads and decides; when it ends, another takes over within seconds and
goes on from the store. Run one, three or five: of three, one may fail, of five
two.

The first one founds the fleet, or goes on from the folder of "fettle up". A
further one joins, once, with a token from "fettle token --server-token" on a
server that runs; afterwards it is started without --join. Machines, those of
the servers among them, are looked after by "fettle agent".

--store names an etcd cluster that is there already, of version 3.5 or later. It
takes the place of the embedded one: all keys are below --store-prefix, beside
whatever else is in it. Every server of the fleet names the same store, and any
one of them is enough. Fettle never mends that etcd: a repair that needs it must
not be able to break it.

--topology names a file that says in which rack and zone hosts stand, and on
which switches and power feeds: what they share is asked before any of them is
touched, and budgets count by rack. Keep it the same on all servers: the one
that leads goes by its own, as it was when it started.`,
		Example: `  sudo fettle server --listen 10.0.0.5:7401
  sudo fettle server --listen 10.0.0.5:7401 --topology racks.yaml
  sudo fettle server --listen 10.0.0.6:7401 --join fettle-join:10.0.0.5:7401:…
  sudo fettle server --listen 10.0.0.5:7401 --store-prefix /fettle/blue \
      --store https://db1:2379,https://db2:2379,https://db3:2379 \
      --store-ca ca.pem --store-cert fettle.pem --store-key fettle.key`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			host, _, err := net.SplitHostPort(o.listen)
			if err != nil {
				return exit(ExitUsage, "--listen %q: want host:port: %w", o.listen, err)
			}
			if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
				return exit(ExitUsage, "--listen %s: the other servers and the agents are told this address, so it must be one that they can reach (name it)", o.listen)
			}
			peers := &control.Peers{Listen: peer}
			if peer == "" {
				peers.Listen = net.JoinHostPort(host, peerPort)
			}
			if join != "" {
				token, err := pki.ParseToken(join)
				if err != nil {
					return &Exit{Code: ExitUsage, Err: err}
				}
				peers.Join = &token
			}
			where, err := outside.where()
			if err != nil {
				return err
			}
			if where != nil && peer != "" {
				return exit(ExitUsage, "--peer %s: with --store the servers have no stores of their own that would listen (leave it out)", peer)
			}
			return again(func() error {
				return a.serve(cmd.Context(), o, func(ctx context.Context, so control.Options) (runner, error) {
					so.Peers, so.Store = peers, where
					c, err := control.Open(ctx, so)
					if err == nil {
						peers = &control.Peers{Listen: peers.Listen} // it has joined
					}
					return c, err
				})
			})
		},
	}
	o.flags(c)
	outside.flags(c)
	c.Flags().StringVar(&peer, "peer", "", "address for the other servers' stores (default: the host of --listen, port "+peerPort+")")
	c.Flags().StringVar(&join, "join", "", "token with which this server joins the others")
	return c
}

// serverLine is a server as a program reads it.
type serverLine struct {
	ID      string `json:"id"` // empty: let in, and never started
	Label   string `json:"label"`
	Address string `json:"address"`
	Peer    string `json:"peer"`
	Leader  bool   `json:"leader"`
	Learner bool   `json:"learner"`
}

func (a *app) serversCommand() *cobra.Command {
	var r remote
	c := &cobra.Command{
		Use: "servers", Short: "List the fleet's servers, and which of them leads", Args: cobra.NoArgs,
		Example: "  fettle servers\n  fettle servers -o json | jq -r '.[] | select(.leader).address'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd.Context(), func(ctx context.Context, api wire.AdminServiceClient) error {
				ctx, cancel := short(ctx)
				defer cancel()
				got, err := api.Servers(ctx, &wire.ServersRequest{})
				if err != nil {
					return err
				}
				list := []serverLine{}
				for _, s := range got.GetServers() {
					list = append(list, serverLine{s.GetId(), s.GetLabel(), s.GetAddress(), s.GetPeer(), s.GetLeader(), s.GetLearner()})
				}
				return a.print(list, func(p *show.Printer) {
					// Where the store is not the servers' own, none has a part in it.
					parts := slices.ContainsFunc(list, func(s serverLine) bool { return s.Peer != "" })
					for _, s := range list {
						word := "votes"
						switch {
						case s.Leader:
							word = p.Green("leads")
						case s.ID == "":
							word = p.Yellow("was let in and never started")
						case s.Learner:
							word = p.Yellow("catches up")
						case !parts && len(list) > 1:
							word = "stands by"
						case s.Peer == "":
							word = p.Dim("has no part in the store")
						}
						p.Line("  %-20s %-22s %s  %s", s.Label, s.Address, word, p.Dim(s.ID+s.idle()))
					}
				})
			})
		},
	}
	r.flags(c)
	return c
}

func (a *app) removeServerCommand() *cobra.Command {
	var r remote
	c := &cobra.Command{
		Use: "remove-server ID", Short: "Take a server out of the fleet, for good",
		Long: `Takes a server's part of the store out and makes its certificate useless. The
store refuses where those that stay would have no majority. The server that
leads cannot be removed: stop it first. Where the store is an existing etcd
(--store), that loses no member: its members come and go by its own tools.`,
		Example: "  fettle remove-server 2xk4…", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.call(cmd.Context(), func(ctx context.Context, api wire.AdminServiceClient) error {
				ctx, cancel := context.WithTimeout(ctx, 2*wire.CallTimeout)
				defer cancel()
				if _, err := api.RemoveServer(ctx, &wire.RemoveServerRequest{Id: args[0]}); err != nil {
					return err
				}
				return a.print(map[string]string{"removed": args[0]}, func(p *show.Printer) { p.Line("removed %s", args[0]) })
			})
		},
	}
	r.flags(c)
	return c
}

// idle names a server that never started by its peer's address.
func (s serverLine) idle() string {
	if s.ID == "" {
		return s.Peer
	}
	return ""
}
