package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"fettle/internal/fettle"
	"fettle/internal/fleet/member"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/topology"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
	"fettle/internal/machine"
)

// interval is between two digests of an agent and between two pings.
const interval = 2 * time.Second

// renewEvery is how often the server looks whether its certificate is due.
const renewEvery = time.Hour

// Brain is the loop, as the server uses it.
type Brain interface {
	Feed(incident.Input)
	Ask(ctx context.Context, f func(*incident.Mind)) error
	Answer(ctx context.Context, a incident.Answer) error
}

var _ Brain = (*loop.Loop)(nil)

// History is the log of decisions. Agents are shown signed heads of one that is also
// chained, as those of package store are.
type History interface {
	Log(ctx context.Context, from int64, each func(loop.Entry) error) error
}

// Options is what a Server runs with.
type Options struct {
	CA         *pki.CA
	Register   *pki.Register   // who is in the fleet
	Shelf      pki.Shelf       // keeps the gossip's keys; nil: agents are told of no ring
	Gossip     member.Settings // of all rings; the zero value is for one data centre
	Dir        string          // the server's own identity is kept here
	Cluster    Cluster         // the other servers of the fleet; nil: there is none
	History    History
	Catalogues []fettle.Catalogue // to know which conditions agents may judge
	Topology   topology.Topology  // where hosts stand
	Clock      machine.Clock
	Dial       wire.Dialer  // how the other servers are reached, and hosts' kernels; nil: over TCP
	Log        *slog.Logger // nil: nothing is logged
	Version    string       // of the program
	// Interval between two digests, and between two pings: an agent that is silent
	// for four of them is taken for lost. 0: two seconds.
	Interval time.Duration
	// Believed has this server's part of the store believe these authorities (DER), and
	// reports whether it must start anew for that. nil: nothing in it asks.
	Believed func(authorities [][]byte) (again bool, err error)
	// Again ends this server's process, or what it runs, so that it starts anew. It is set
	// where Believed is.
	Again func()
	// LostAfter is when the conditions that a lost agent had judged become unknown.
	// 0: ten seconds.
	LostAfter time.Duration
}

// Server lets agents and people in. It is the loop's Hands. All methods may be
// called concurrently.
type Server struct {
	o        Options
	identity atomic.Pointer[pki.Identity]
	self     fettle.Subject
	shared   []fettle.Subject     // by hosts of which nothing else is known: self alone
	hostCode map[fettle.Code]bool // conditions that agents judge
	watchers watchers
	heads    heads

	term      atomic.Pointer[term] // nil while another server leads, or none; set under mu
	sessions  sync.WaitGroup       // what reads and writes them
	relays    relays
	words     words
	turnstile *wire.Turnstile
	begins    chan struct{} // one in it for each session that begins now

	authority authority

	mu        sync.Mutex // guards what follows; taken after a host's, never before
	hosts     map[fettle.Subject]*host
	observers map[look][]*host // few of each
}

// look is what is observed: a subject by a probe.
type look struct {
	subject fettle.Subject
	probe   string
}

// New makes a server, and its identity where there is none yet. It does nothing
// until Run, or Serve and Lead.
func New(o Options) (*Server, error) {
	if o.Interval == 0 {
		o.Interval = interval
	}
	if o.LostAfter == 0 {
		o.LostAfter = lostAfter
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		o: o, hostCode: map[fettle.Code]bool{}, hosts: map[fettle.Subject]*host{}, observers: map[look][]*host{},
		turnstile: wire.NewTurnstile(), begins: make(chan struct{}, beginMost),
	}
	for _, c := range o.Catalogues {
		for _, spec := range c.Conditions {
			s.hostCode[spec.Code] = spec.Scope == fettle.HostScope
		}
	}
	s.authority.wake = make(chan struct{}, 1)
	if err := s.renew(); err != nil {
		return nil, err
	}
	s.self = fettle.NewSubject(KindServer, s.identity.Load().Name.ID)
	s.shared = []fettle.Subject{s.self}
	return s, nil
}

// renew makes or renews the server's own identity.
func (s *Server) renew() error {
	id, err := s.o.CA.Issue(s.o.Dir, pki.RoleServer, pki.MintID(), s.o.Clock.Wall(), pki.ServerLife)
	if err != nil {
		return fmt.Errorf("the server's identity: %w", err)
	}
	s.identity.Store(id)
	return nil
}

// Crowded reports whether many agents wait to be let in.
func (s *Server) Crowded() bool { return s.turnstile.Crowded() }

// Subject is the server as an observer.
func (s *Server) Subject() fettle.Subject { return s.self }

// Run serves on the listeners and leads: the whole of a server that is alone. It
// returns as Serve does, or when it could not lead.
func (s *Server) Run(ctx context.Context, brain Brain, listeners ...net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, 2) // one for each
	for _, run := range []func() error{
		func() error { return s.Lead(ctx, brain) },
		func() error { return s.Serve(ctx, listeners...) },
	} {
		go func() { errs <- run(); cancel() }() // both are waited for
	}
	return errors.Join(<-errs, <-errs)
}

// Serve answers on the listeners, which it closes, until ctx ends or a listener
// breaks. What this server cannot answer, since another one leads, it passes on to
// that one. It returns when every session has ended.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	serving := &agents{s: s}
	g := grpc.NewServer(append(wire.ServerOptions(pki.ServerTLS(s.identity.Load), s.turnstile, s.direct(ctx, serving)),
		grpc.ChainUnaryInterceptor(s.unary), grpc.ChainStreamInterceptor(s.stream(ctx)))...)
	wire.RegisterEnrolServiceServer(g, &enrol{s: s})
	wire.RegisterAgentServiceServer(g, serving)
	wire.RegisterAdminServiceServer(g, &admin{s: s})
	wire.RegisterServerServiceServer(g, &servers{s: s})

	var wg sync.WaitGroup
	var failed error
	var once sync.Once
	for _, l := range listeners {
		wg.Go(func() {
			if err := g.Serve(s.turnstile.Listener(l)); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				once.Do(func() { failed = fmt.Errorf("serve on %s: %w", l.Addr(), err) })
			}
			cancel() // none is served any more, or one that should be is not
		})
	}
	wg.Go(func() { s.stayValid(ctx) })
	wg.Go(func() { s.stayBelieved(ctx) })
	<-ctx.Done()
	g.Stop() // closes listeners and connections, and waits for the handlers
	s.sessions.Wait()
	wg.Wait()
	s.relays.close()
	return failed
}

// stayValid keeps the server's certificate valid.
func (s *Server) stayValid(ctx context.Context) {
	for {
		timer, stop := s.o.Clock.After(renewEvery)
		select {
		case <-ctx.Done():
			stop()
			return
		case <-timer:
			if err := s.renew(); err != nil {
				s.o.Log.Error("the server's certificate could not be renewed", "error", err, "expires", s.identity.Load().Expires())
			}
		}
	}
}

// feed gives an input to the loop.
func (s *Server) feed(in incident.Input) {
	if t := s.term.Load(); t != nil {
		t.brain.Feed(in)
	}
}

// errStarting is returned to callers while the loop does not run.
var errStarting = errors.New("the server is starting or stopping (try again)")

// ask runs f on the mind and waits for it.
func (s *Server) ask(ctx context.Context, f func(*incident.Mind)) error {
	t := s.term.Load()
	if t == nil {
		return errStarting
	}
	err := t.brain.Ask(ctx, f)
	if errors.Is(err, loop.ErrStopped) {
		return errStarting
	}
	return err
}
