// Package single runs a whole fleet in one process: the server with its store
// and loop, and one agent or several, over the same sockets and certificates as
// on many machines. It is `fettle up`, and what the demo runs on.
//
// It only puts parts together. Its invariant: an agent here has no way to the
// server, nor the server to it, that an agent elsewhere has not.
package single

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"

	"fettle/internal/act/armed"
	"fettle/internal/face/control"
	"fettle/internal/fettle"
	"fettle/internal/fleet/agent"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/server"
	"fettle/internal/machine"
)

// Options is what it is made of: a server that is alone, and agents.
type Options struct {
	control.Options
	Agents []Agent
}

// Agent is one machine.
type Agent struct {
	Label     string // its host name
	Dir       string // identity, journal and what was found; made if it is not there
	ConfigDir string // "": only what the adapters find
	RunFile   string // agent.Options.RunFile
	// GossipListen is agent.Options.GossipListen.
	GossipListen string
	// Machine opens the machine under the identity that it joined with.
	Machine func(ctx context.Context, host string) (machine.Machine, func() error, error)
	// Arms takes back what cut the machine off; nil: what could do that is refused.
	Arms func(machine.Machine) *armed.Arms
}

// Fleet is the whole, ready to run.
type Fleet struct {
	*control.Server
	o     Options
	ready chan string // gets the server's address once it listens
}

// Open prepares everything. Close it when Run was not called, or has returned.
// control.ErrRunning: another process runs in Dir.
func Open(ctx context.Context, o Options) (*Fleet, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	f := &Fleet{ready: make(chan string, 1)}
	tell := o.OnReady
	o.OnReady = func(address string) {
		f.ready <- address
		if tell != nil {
			tell(address)
		}
	}
	f.o = o
	var err error
	f.Server, err = control.Open(ctx, o.Options)
	return f, err
}

// Run runs server and agents until ctx ends or one of them breaks, and returns
// when all have returned.
func (f *Fleet) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	errs := make(chan error, 1+len(f.o.Agents)) // one for each
	run := func(do func() error) {
		group.Go(func() {
			if err := do(); err != nil && ctx.Err() == nil {
				errs <- err
			}
			cancel()
		})
	}
	run(func() error { return f.Server.Run(ctx) })
	select {
	case address := <-f.ready:
		for _, a := range f.o.Agents {
			run(func() error {
				if err := f.agent(ctx, a, address); err != nil {
					return fmt.Errorf("agent %s: %w", a.Label, err)
				}
				return nil
			})
		}
	case <-ctx.Done(): // it did not come to listen
	}
	group.Wait()
	close(errs)
	var failed error
	for e := range errs {
		failed = errors.Join(failed, e)
	}
	return failed
}

// agent joins, as a machine elsewhere would, and runs.
func (f *Fleet) agent(ctx context.Context, a Agent, address string) error {
	id, err := pki.LoadIdentity(a.Dir, pki.RoleAgent)
	if errors.Is(err, fs.ErrNotExist) {
		var token pki.Token
		if token, err = f.Invite(ctx, address); err != nil {
			return err
		}
		id, err = agent.Join(ctx, agent.JoinOptions{Token: token, Dir: a.Dir, Label: a.Label, Wall: f.o.Clock.Wall})
	}
	if err != nil {
		return err
	}
	m, done, err := a.Machine(ctx, id.Name.ID)
	if err != nil {
		return err
	}
	var arms *armed.Arms
	if a.Arms != nil {
		arms = a.Arms(m)
	}
	ag, err := agent.New(agent.Options{
		Arms:   arms,
		Server: address, Identity: id, IdentityDir: a.Dir, StateDir: a.Dir, ConfigDir: a.ConfigDir, RunFile: a.RunFile, GossipListen: a.GossipListen,
		Machine: m, Adapters: f.o.Adapters, Catalogues: []fettle.Catalogue{server.Catalogue()}, Version: f.o.Version, Log: f.o.Log.With("agent", a.Label), Books: f.o.Books,
	})
	if err != nil {
		return errors.Join(err, done())
	}
	return errors.Join(ag.Run(ctx), done())
}
