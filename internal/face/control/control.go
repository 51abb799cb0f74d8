// Package control runs a server of a fleet: its part of the store, the door for
// agents and people, and, while it is the one that leads, the loop that decides. It
// is `fettle server`, and the server's half of `fettle up`.
//
// It only puts parts together. Its invariants: a mind and a loop live for one term
// of leadership and begin from the store alone; whoever is not elected, or is not
// any more, decides nothing; a server whose part of the store is lost does not begin
// a second store under the same name.
//
// # Folder
//
//	ca/            the fleet's authority, the same on every server
//	server/        this server's identity
//	store/         the embedded etcd, where the store is not an existing one, and in
//	               segments/ the files of what the store let go
//	members.json   how this server's part of the store began, or which etcd it is in
//	admin/         the identity with which this machine's command line speaks to the
//	               server, and the server's address
//	lock           held while a process runs there
package control

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
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/server"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/topology"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
	"fettle/internal/loop"
	"fettle/internal/machine"
)

// Options is what a server is made of.
type Options struct {
	Dir      string       // everything that is kept; made, for its owner only
	Listen   string       // host:port for agents and people; port 0 chooses one
	Label    string       // the machine's host name
	Peers    *Peers       // nil: this server is alone, and stays so
	Store    *store.Where // an etcd cluster that is there, for the store; nil: an embedded one. Only with Peers
	Adapters []machine.Adapter
	Books    func(*expr.Env, []fettle.Catalogue) (*runbook.Set, error)
	Policy   fettle.Policy
	Topology topology.Topology // where hosts stand; zero: not known
	Limits   store.Limits      // of what the store keeps; zero: the defaults
	Clock    machine.Clock
	Version  string
	Log      *slog.Logger // nil: nothing is logged
	// OnChange and OnCall are the loop's, besides what the server does with them.
	OnChange func(incident.Record, []fettle.Event)
	OnCall   func(incidentID, text string)
	Recorder *loop.Recorder // nil: nothing is recorded
	// OnReady is told the address once the server listens.
	OnReady func(address string)
	// OnCrowd is told when many agents wait to be let in, and when that is over; nil: nobody is.
	OnCrowd func(crowded bool)
}

// Peers is how a server is one of several.
type Peers struct {
	Listen    string     // host:port for the other servers' stores
	Advertise string     // host:port at which they reach it; "": Listen
	Address   string     // host:port at which agents and people reach this server; "": Options.Listen
	Join      *pki.Token // made for a server; nil: the fleet's first, or not the first start
}

// Server is one server, ready to run.
type Server struct {
	o        Options
	ca       *pki.CA
	register *pki.Register
	st       *store.Etcd
	servers  *store.Servers // nil: alone
	srv      *server.Server
	lock     *os.File

	storeBelieves []byte        // the certificates with which this server's part of the store started
	again         chan struct{} // has a value when Run is to return ErrAgain

	mu   sync.Mutex
	loop *loop.Loop // of the present term, or the next one
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

// Open prepares everything: authority, store and server. One of several blocks until
// a majority of the store is there. Close it when Run was not called, or has
// returned. ErrRunning: another process runs in Dir.
func Open(ctx context.Context, o Options) (c *Server, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	held, err := lock(o.Dir)
	if err != nil {
		return nil, err
	}
	c = &Server{o: o, lock: held, again: make(chan struct{}, 1)}
	defer func(opened *Server) {
		if err != nil {
			err = errors.Join(err, opened.Close())
		}
	}(c)
	if err := c.openStore(ctx); err != nil {
		return nil, err
	}
	c.register = pki.NewRegister(c.ca, c.st.Shelf())
	so := server.Options{
		CA: c.ca, Register: c.register, Dir: c.identityDir(), Shelf: c.st.Shelf(), History: c.st, Catalogues: Catalogues(o.Adapters),
		Topology: o.Topology, Clock: o.Clock, Log: o.Log, Version: o.Version,
		Believed: c.believed, Again: c.runAgain,
	}
	if o.Peers != nil {
		c.servers = store.NewServers(c.st)
		so.Cluster = c.servers
	}
	if c.srv, err = server.New(so); err != nil {
		return nil, err
	}
	return c, c.renew()
}

// AuthorityDir holds the fleet's authority.
func AuthorityDir(dir string) string { return filepath.Join(dir, "ca") }

// StoreDir holds the embedded etcd.
func StoreDir(dir string) string { return filepath.Join(dir, "store") }

func (c *Server) identityDir() string { return filepath.Join(c.o.Dir, "server") }

// renew makes the loop of the next term. It begins with an empty mind.
func (c *Server) renew() error {
	mind, err := incident.New(incident.Options{
		Catalogues: Catalogues(c.o.Adapters), Books: c.o.Books, Policy: c.o.Policy, Evaluates: []fettle.Scope{fettle.ClusterScope}})
	if err != nil {
		return err
	}
	lo := loop.Options{Mind: mind, Store: c.st, Hands: c.srv, Clock: c.o.Clock, OnCall: c.o.OnCall, OnChange: func(r incident.Record, e []fettle.Event) {
		c.srv.Changed(r, e)
		if c.o.OnChange != nil {
			c.o.OnChange(r, e)
		}
	}}
	if c.o.Recorder != nil {
		lo.OnInput = c.o.Recorder.Input
		c.o.Recorder.Policy, c.o.Recorder.Evaluates = c.o.Policy, []fettle.Scope{fettle.ClusterScope}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loop = loop.New(lo)
	return nil
}

// Close closes the store, and lets another process into the folder.
func (c *Server) Close() error {
	var err error
	if c.st != nil {
		err = c.st.Close()
	}
	return errors.Join(err, c.lock.Close())
}

// Loop is the loop of the present term, or of the next one, for asking and
// answering.
func (c *Server) Loop() *loop.Loop {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.loop
}

// Invite makes a token with which a machine may join.
func (c *Server) Invite(ctx context.Context, address string) (pki.Token, error) {
	return c.register.Invite(ctx, pki.RoleAgent, address, c.o.Clock.Wall(), 0)
}

func authority(dir string, now time.Time) (*pki.CA, error) {
	ca, err := pki.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return pki.Init(dir, now)
	}
	return ca, err
}

// Run serves, and leads whenever it is this server's turn, until ctx ends or
// something breaks that no waiting mends. It returns when all has ended. With ErrAgain
// it is to be closed, and opened and run anew without Peers.Join.
func (c *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.o.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w (choose another address with --listen)", c.o.Listen, err)
	}
	address := l.Addr().String()
	if err := c.admin(address); err != nil {
		return errors.Join(err, l.Close())
	}
	var group sync.WaitGroup
	errs := make(chan error, 3) // one for each that can fail
	run := func(name string, do func(context.Context) error) {
		group.Go(func() {
			if err := do(ctx); err != nil && ctx.Err() == nil {
				errs <- fmt.Errorf("%s: %w", name, err)
			}
			cancel()
		})
	}
	// The door closes when leadership was handed over: one that is closed tells the others
	// that this process is gone.
	serving, closeDoor := context.WithCancel(context.WithoutCancel(ctx))
	defer closeDoor()
	run("server", func(context.Context) error { return c.srv.Serve(serving, l) })
	group.Go(func() { c.keeper().Run(ctx) })
	if c.o.OnCrowd != nil {
		group.Go(func() { watchCrowd(ctx, c.o.Clock, c.srv.Crowded, c.o.OnCrowd) })
	}
	decide := c.alone
	if c.servers != nil {
		decide = c.elected
	}
	run("server", func(ctx context.Context) error { defer closeDoor(); return decide(ctx) })
	if c.servers != nil {
		v := &vigil{c: c}
		group.Go(func() {
			c.servers.Run(ctx, func(l store.Leader) { c.told(l); v.over(ctx, l) })
			v.close()
			v.group.Wait()
		})
		group.Go(func() { c.announce(ctx) })
	}
	var again error
	group.Go(func() {
		select {
		case <-c.again:
			again = ErrAgain
			cancel()
		case <-ctx.Done():
		}
	})
	if c.o.OnReady != nil {
		c.o.OnReady(address)
	}
	group.Wait()
	close(errs)
	failed := again
	for e := range errs {
		failed = errors.Join(failed, e)
	}
	return failed
}

// adminIdentity makes or renews the identity for the command line of this machine.
func (c *Server) adminIdentity() error {
	_, err := c.ca.Issue(AdminDir(c.o.Dir), pki.RoleAdmin, Owner(), c.o.Clock.Wall(), pki.ServerLife)
	return err
}

// admin keeps an identity for the command line of this machine.
func (c *Server) admin(address string) error {
	if err := c.adminIdentity(); err != nil {
		return err
	}
	if err := os.WriteFile(AddressFile(c.o.Dir), []byte(address+"\n"), 0o600); err != nil {
		return fmt.Errorf("keep the server's address: %w", err)
	}
	return nil
}

// Owner is the account that this runs as, and whose word the identity is.
func Owner() string {
	plain := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' }
	if u, err := user.Current(); err == nil && u.Username != "" && strings.TrimFunc(u.Username, plain) == "" {
		return u.Username
	}
	return fmt.Sprintf("uid-%d", os.Getuid())
}
