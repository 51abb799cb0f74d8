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
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/agent"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/server"
	"fettle/internal/fleet/store"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
	"fettle/internal/loop"
	"fettle/internal/machine"
)

// Options is what it is made of.
type Options struct {
	Dir      string // everything that is kept; made, for its owner only
	Listen   string // host:port of the server; port 0 chooses one
	Adapters []machine.Adapter
	Books    func(*expr.Env, []fettle.Catalogue) (*runbook.Set, error)
	Policy   fettle.Policy
	Clock    machine.Clock
	Version  string
	Log      *slog.Logger // nil: nothing is logged
	Agents   []Agent
	// OnChange and OnCall are the loop's, besides what the server does with them.
	OnChange func(incident.Record, []fettle.Event)
	OnCall   func(incidentID, text string)
	Recorder *loop.Recorder // nil: nothing is recorded
	// OnReady is told the address once the server listens.
	OnReady func(address string)
}

// Agent is one machine.
type Agent struct {
	Label     string // its host name
	Dir       string // identity, journal and what was found; made if it is not there
	ConfigDir string // "": only what the adapters find
	// Machine opens the machine under the identity that it joined with.
	Machine func(ctx context.Context, host string) (machine.Machine, func() error, error)
}

// Fleet is the whole, ready to run.
type Fleet struct {
	o    Options
	ca   *pki.CA
	loop *loop.Loop
	srv  *server.Server
	st   *store.Etcd
	lock *os.File
}

// Catalogues returns what a server with these adapters judges with.
func Catalogues(adapters []machine.Adapter) []fettle.Catalogue {
	list := make([]fettle.Catalogue, 0, len(adapters)+1)
	for _, a := range adapters {
		list = append(list, a.Catalogue())
	}
	return append(list, server.Catalogue())
}

// AdminDir is where the identity is kept with which the command line of this
// machine speaks to the server.
func AdminDir(dir string) string { return filepath.Join(dir, "admin") }

// AddressFile holds the server's address for it.
func AddressFile(dir string) string { return filepath.Join(AdminDir(dir), "server") }

// Open prepares everything: authority, store, mind and server. Close it when Run
// was not called, or has returned. ErrRunning: another process runs in Dir.
func Open(ctx context.Context, o Options) (f *Fleet, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	held, err := lock(o.Dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, held.Close())
		}
	}()
	f = &Fleet{o: o, lock: held}
	if f.ca, err = authority(filepath.Join(o.Dir, "ca"), o.Clock.Wall()); err != nil {
		return nil, err
	}
	cats := Catalogues(o.Adapters)
	mind, err := incident.New(incident.Options{Catalogues: cats, Books: o.Books, Policy: o.Policy, Evaluates: []fettle.Scope{fettle.ClusterScope}})
	if err != nil {
		return nil, err
	}
	if f.st, err = store.OpenEtcd(ctx, store.EtcdOptions{Dir: filepath.Join(o.Dir, "store"), Fleet: f.ca.Fleet()}); err != nil {
		return nil, err
	}
	f.srv, err = server.New(server.Options{
		CA: f.ca, Dir: filepath.Join(o.Dir, "server"), History: f.st, Catalogues: cats, Clock: o.Clock, Log: o.Log, Version: o.Version,
	})
	if err != nil {
		return nil, errors.Join(err, f.st.Close())
	}
	lo := loop.Options{Mind: mind, Store: f.st, Hands: f.srv, Clock: o.Clock, OnCall: o.OnCall, OnChange: func(r incident.Record, e []fettle.Event) {
		f.srv.Changed(r, e)
		if o.OnChange != nil {
			o.OnChange(r, e)
		}
	}}
	if o.Recorder != nil {
		lo.OnInput = o.Recorder.Input
		o.Recorder.Policy, o.Recorder.Evaluates = o.Policy, []fettle.Scope{fettle.ClusterScope}
	}
	f.loop = loop.New(lo)
	return f, nil
}

// Close closes the store, and lets another process into the folder.
func (f *Fleet) Close() error { return errors.Join(f.st.Close(), f.lock.Close()) }

// Loop is the loop, for asking and answering.
func (f *Fleet) Loop() *loop.Loop { return f.loop }

func authority(dir string, now time.Time) (*pki.CA, error) {
	ca, err := pki.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return pki.Init(dir, now)
	}
	return ca, err
}

// Run runs server and agents until ctx ends or one of them breaks, and returns
// when all have returned.
func (f *Fleet) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.o.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w (choose another address with --listen)", f.o.Listen, err)
	}
	address := l.Addr().String()
	if err := f.admin(address); err != nil {
		return errors.Join(err, l.Close())
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	var failed error
	run := func(name string, do func(context.Context) error) {
		group.Go(func() {
			if err := do(ctx); err != nil && ctx.Err() == nil {
				mu.Lock()
				failed = errors.Join(failed, fmt.Errorf("%s: %w", name, err))
				mu.Unlock()
			}
			cancel()
		})
	}
	run("loop", f.loop.Run)
	run("server", func(ctx context.Context) error { return f.srv.Run(ctx, f.loop, l) })
	for _, a := range f.o.Agents {
		run("agent "+a.Label, func(ctx context.Context) error { return f.agent(ctx, a, address) })
	}
	if f.o.OnReady != nil {
		f.o.OnReady(address)
	}
	group.Wait()
	return failed
}

// admin keeps an identity for the command line of this machine.
func (f *Fleet) admin(address string) error {
	dir := AdminDir(f.o.Dir)
	if _, err := f.ca.Issue(dir, pki.RoleAdmin, owner(), f.o.Clock.Wall(), pki.ServerLife); err != nil {
		return err
	}
	if err := os.WriteFile(AddressFile(f.o.Dir), []byte(address+"\n"), 0o600); err != nil {
		return fmt.Errorf("keep the server's address: %w", err)
	}
	return nil
}

// owner is the account that this runs as, and whose word the identity is.
func owner() string {
	plain := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' }
	if u, err := user.Current(); err == nil && u.Username != "" && strings.TrimFunc(u.Username, plain) == "" {
		return u.Username
	}
	return fmt.Sprintf("uid-%d", os.Getuid())
}

// agent joins, as a machine elsewhere would, and runs.
func (f *Fleet) agent(ctx context.Context, a Agent, address string) error {
	id, err := pki.LoadIdentity(a.Dir, pki.RoleAgent)
	if errors.Is(err, fs.ErrNotExist) {
		var token pki.Token
		if token, err = f.ca.Invite(address, f.o.Clock.Wall(), 0); err != nil {
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
	ag, err := agent.New(agent.Options{
		Server: address, Identity: id, IdentityDir: a.Dir, StateDir: a.Dir, ConfigDir: a.ConfigDir,
		Machine: m, Adapters: f.o.Adapters, Catalogues: []fettle.Catalogue{server.Catalogue()}, Version: f.o.Version, Log: f.o.Log.With("agent", a.Label),
	})
	if err != nil {
		return errors.Join(err, done())
	}
	return errors.Join(ag.Run(ctx), done())
}
