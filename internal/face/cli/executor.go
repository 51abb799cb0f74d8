package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/spf13/cobra"

	"fettle/internal/act/roster"
	"fettle/internal/fleet/executor"
	"fettle/internal/machine/linuxmachine"
)

const (
	// executorSocket is where an executor listens and an agent without root calls it.
	executorSocket = "/run/fettle/executor.sock"
	// agentAccount is the account that the packaged units run the agent as.
	agentAccount = "fettle"
	actionsFile  = configDir + "/actions.yaml"
	// serverDir is the folder of a server that runs under the packaged unit.
	serverDir = "/var/lib/fettle-server"
)

func executorDir() string { return filepath.Join(stateDir(), "executor") }

func actionsFileFlag(c *cobra.Command, file *string) {
	c.Flags().StringVar(file, "actions-file", actionsFile, "list of what may be done on this host; not there: everything, and what takes\nsomething away or is not of low risk with a person's signed approval")
}

func (a *app) executorCommand() *cobra.Command {
	var dir, socket, account, actions, runFile string
	var configs adapterFolder
	var verbose bool
	c := &cobra.Command{
		Use: "executor", Short: "Do what the servers order, beside an agent without root",
		Long: `The part of an agent that needs root: it keeps the journal and does the steps.
It listens on a socket for the agent of this host, and on no network. It does
not trust that agent: every order must be signed by a server of the fleet, and
what the host's list of actions (--actions-file) says so of must be approved by
a person, who signs the plan with "fettle incident approve". While no
server is reached it does what the standing permit lets it, which a server has
signed ("fettle permits"). It runs the commands of people ("fettle run") that
the person has signed and that the host's own list (--run-file) lets them run.

A machine is set up for this with "fettle join --user fettle"; then run "fettle
executor" as root and "fettle agent --executor SOCKET" as that user. The units
that "fettle install agent" writes do both.`,
		Example: "  sudo fettle executor\n  sudo fettle executor --agent-user fettle --actions-file /srv/actions.yaml", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			stayLean()
			ctx := cmd.Context()
			pin, err := executor.OpenPin(dir)
			if errors.Is(err, fs.ErrNotExist) {
				return exit(ExitUsage, "this machine has not joined a fleet for an executor (see `fettle join --help`, --user)")
			}
			if err != nil {
				return err
			}
			uid, gid, err := accountOf(account)
			if err != nil {
				return &Exit{Code: ExitUsage, Err: err}
			}
			m, done, err := openMachine(dir)(ctx, pin.Host.Root())
			if err != nil {
				return err
			}
			log := logger(a.errOut, verbose)
			cats := a.catalogues()
			adapters := executor.NewInstances(roster.Finder{Adapters: a.Adapters, Machine: m, Dir: string(configs), Kept: filepath.Join(dir, "found"), Log: log})
			ex, err := executor.Open(ctx, executor.Options{
				Host: pin.Host, StateDir: dir, Trust: pin.Trust, Keep: pin.Keep, Clock: m.Clock, Actions: adapters.Actions(cats), Catalogues: cats,
				Filesystems: m.Filesystems, Looks: adapters, ActionsFile: actions, Arms: arms(m), Log: log,
				Commands: m.Commands, RunFile: runFile, Name: m.Identity.Hostname,
			})
			if err != nil {
				return errors.Join(err, done())
			}
			err = serveExecutor(ctx, adapters, socket, gid, func(l net.Listener) error {
				return executor.Serve(ctx, l, ex, []int{uid}, log)
			})
			err = errors.Join(err, ex.Close(ctx), adapters.Close(), done())
			if ctx.Err() != nil {
				return nil
			}
			return err
		},
	}
	c.Flags().StringVar(&dir, "dir", executorDir(), "folder for journal and freeze")
	c.Flags().StringVar(&socket, "socket", executorSocket, "where the agent reaches it")
	c.Flags().StringVar(&account, "agent-user", agentAccount, "account that the agent runs as")
	actionsFileFlag(c, &actions)
	runFileFlag(c, &runFile)
	configs.flag(c)
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "log what it does")
	return c
}

// serveExecutor listens, and serves until ctx ends.
func serveExecutor(ctx context.Context, adapters *executor.Instances, socket string, gid int, serve func(net.Listener) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, err := listenFor(ctx, socket, gid)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	var rerr error
	wg.Go(func() { rerr = adapters.Run(ctx) })
	err = serve(l)
	cancel()
	wg.Wait()
	return errors.Join(err, rerr)
}

// listenFor listens on a unix socket that only root and a group may use.
func listenFor(ctx context.Context, path string, gid int) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket != 0 {
		if err := os.Remove(path); err != nil { // of one that was killed; the journal's lock keeps out one that runs
			return nil, fmt.Errorf("listen on %s: %w", path, err)
		}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := errors.Join(os.Chmod(path, 0o660), os.Chown(path, 0, gid)); err != nil && os.Geteuid() == 0 {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), l.Close())
	}
	return l, nil
}

// accountOf are the numbers of an account and its group.
func accountOf(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, fmt.Errorf("the agent's account: %w (make it: useradd --system --no-create-home %s)", err, name)
	}
	uid, uerr := strconv.Atoi(u.Uid)
	gid, gerr := strconv.Atoi(u.Gid)
	return uid, gid, errors.Join(uerr, gerr)
}

// giveTo makes a folder and what is in it an account's.
func giveTo(name, dir string) error {
	uid, gid, err := accountOf(name)
	if err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	})
}

// agentMachine opens the machine for an agent: without a socket as ever; with one as
// the process that sees, and does not do.
func agentMachine(ctx context.Context, dir, socket, host string) (*linuxmachine.Host, error) {
	c := linuxmachine.Config{Host: host, StateDir: dir}
	if socket != "" {
		c.StopsOf, c.Mounts = executorDir(), "/proc/1/mountinfo" // a hardened unit has mounts of its own
	}
	return linuxmachine.Open(ctx, c)
}
