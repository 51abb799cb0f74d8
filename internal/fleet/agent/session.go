package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
)

const (
	// The first and the longest pause before the server is called again, doubled
	// in between: a server that restarts finds its agents back within a second,
	// and one that is away is not run over when it is back.
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
	// steady is how long a session must have lasted for its end to be a new one.
	steady = 10 * time.Second
	// welcomeWait is how long a server may take to answer a hello.
	welcomeWait = 10 * time.Second
	// silence is after how many intervals without a word the server is taken for
	// lost: it pings in each.
	silence = 4
	// freezeEvery is how often the freeze file is looked for, besides before each
	// step.
	freezeEvery = time.Second
	// renewEvery is how often it is asked whether the certificate is due.
	renewEvery = time.Hour
)

// connect keeps a session with a server until ctx ends.
func (a *Agent) connect(ctx context.Context) error {
	pause := firstPause
	last := ""
	for ctx.Err() == nil {
		began := a.o.Machine.Clock.Now()
		address, round := a.servers.next()
		err := a.session(ctx, address)
		if text := err.Error(); ctx.Err() == nil && text != last { // said once, not with every try
			last = text
			a.o.Log.Warn("no session with the server; it is tried again", "server", address, "error", err)
		}
		if a.o.Machine.Clock.Now().Sub(began) >= steady {
			pause, round = firstPause, false
			a.servers.stay()
		}
		// Half of it at least, so that many agents do not come at once.
		due, stop := a.o.Machine.Clock.After(pause/2 + rand.N(pause/2+1))
		select {
		case <-due:
		case <-ctx.Done():
		}
		stop()
		if round {
			pause = min(2*pause, lastPause)
		}
	}
	return nil
}

// session is one connection to the server.
type session struct {
	a      *Agent
	server string // its address
	ctx    context.Context
	cancel context.CancelCauseFunc
	stream wire.AgentService_SessionClient
	wg     sync.WaitGroup // everything that it started

	interval time.Duration
	wake     chan struct{} // has a value when there is an answer to send

	mu       sync.Mutex
	answers  []func(now time.Time) *wire.SessionRequest // made when they are sent, so that ages are right
	looked   []func(now time.Time) *wire.SessionRequest // likewise; sent behind what follows from what was seen
	commands commands

	probes  []string // that the server was told of; write's own, as settled is
	settled bool

	verifying        // of greet and then of serve, as refuses is
	refuses   string // why this server is not obeyed, as it was told last
}

// session connects, tells what is, and serves the server until one of them ends.
// It always returns an error.
func (a *Agent) session(ctx context.Context, address string) error {
	wall := a.o.Machine.Clock.Wall
	if err := a.identity.Load().InTime(wall()); err != nil {
		return err
	}
	conn, err := wire.Dial(address, pki.ClientTLS(a.identity.Load, wall))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	x := &session{a: a, server: address, ctx: ctx, cancel: cancel, wake: make(chan struct{}, 1)}
	defer x.wg.Wait()
	defer cancel(nil)
	if x.stream, err = wire.NewAgentServiceClient(conn).Session(ctx); err != nil {
		return explained(err)
	}
	in := make(chan *wire.SessionResponse)
	x.wg.Go(func() { x.read(in) })
	if err := x.greet(in); err != nil {
		return explained(err)
	}
	if err := a.renew(ctx, conn); err != nil {
		a.o.Log.Error("the certificate is not renewed; it is tried again", "error", err, "expires", a.identity.Load().Expires())
	}
	a.picture.link()
	defer a.picture.unlink()
	x.wg.Go(x.write)
	return explained(x.serve(in, func() error { return a.renew(ctx, conn) }))
}

// read passes on what the server sends.
func (x *session) read(in chan<- *wire.SessionResponse) {
	for {
		m, err := x.stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the server ended the session")
			}
			x.cancel(err)
			return
		}
		select {
		case in <- m:
		case <-x.ctx.Done():
			return
		}
	}
}

// greet says who this is and waits for the welcome.
func (x *session) greet(in <-chan *wire.SessionResponse) error {
	a := x.a
	able := a.executor.Able()
	h := &wire.Hello{
		Schema: wire.Schema, Host: string(a.host), Incarnation: a.executor.Incarnation(), BootId: a.o.Machine.Identity.BootID,
		Label: a.o.Machine.Identity.Hostname, Kinds: a.kinds(), Version: a.o.Version, Log: a.keptHead(), Commands: true,
	}
	for _, c := range a.cats {
		for _, spec := range c.Actions {
			if v, ok := able[spec.Name]; ok {
				h.Actions = append(h.Actions, &wire.ActionVersion{Name: spec.Name, Version: int32(v)})
			}
		}
	}
	if err := x.send(&wire.SessionRequest{What: &wire.SessionRequest_Hello{Hello: h}}); err != nil {
		return x.cause(err)
	}
	late, stop := a.o.Machine.Clock.After(welcomeWait)
	defer stop()
	select {
	case m := <-in:
		w := m.GetWelcome()
		switch {
		case w == nil:
			return errors.New("the server's first word is no welcome (a defect of the server)")
		case w.GetFleet() != a.fleet:
			return fmt.Errorf("the server is of fleet %s, this machine is of %s", w.GetFleet(), a.fleet)
		}
		if err := wire.CheckSchema(w.GetSchema()); err != nil {
			return err
		}
		x.interval = time.Duration(max(w.GetIntervalNs(), int64(100*time.Millisecond)))
		a.shown(w.GetEpoch())
		x.meet(h.GetLog(), w.GetLog())
		x.frozen(w.GetFreeze())
		if err := a.servers.told(w.GetServers()); err != nil {
			a.o.Log.Error("where the servers are is not kept; the next start knows fewer of them", "error", err)
		}
		a.o.Log.Info("a session with the server has begun", "server", x.server)
		return nil
	case <-late:
		return errors.New("the server did not welcome this agent in time")
	case <-x.ctx.Done():
		return context.Cause(x.ctx)
	}
}

// cause is why the session ended, rather than that a stream did.
func (x *session) cause(err error) error {
	if errors.Is(err, io.EOF) { // Send says no more; Recv knows
		<-x.ctx.Done()
	}
	if x.ctx.Err() != nil {
		return context.Cause(x.ctx)
	}
	return err
}

// serve takes in what the server sends until the session ends.
func (x *session) serve(in <-chan *wire.SessionResponse, renew func() error) error {
	clock := x.a.o.Machine.Clock
	heard := clock.Now()
	nextRenewal := heard.Add(renewEvery)
	for {
		due, stop := clock.After(min(freezeEvery, x.interval))
		select {
		case m := <-in:
			stop()
			heard = clock.Now()
			x.take(m)
		case now := <-due:
			if now.Sub(heard) > silence*x.interval {
				return fmt.Errorf("the server was silent for %s", now.Sub(heard).Round(time.Millisecond))
			}
			x.lookForFreeze()
			if now.After(nextRenewal) {
				nextRenewal = now.Add(renewEvery)
				x.wg.Go(func() {
					if err := renew(); err != nil {
						x.a.o.Log.Error("the certificate is not renewed; it is tried again", "error", err, "expires", x.a.identity.Load().Expires())
					}
				})
			}
		case <-x.ctx.Done():
			stop()
			return context.Cause(x.ctx)
		}
	}
}

// lookForFreeze looks whether this machine is frozen, and tells the server when
// that changed.
func (x *session) lookForFreeze() {
	before := x.a.freeze.state()
	x.a.freeze.look()
	if x.a.freeze.state() != before {
		x.tellFreeze()
	}
}

// frozen takes in what the server says of the fleet's freeze, and confirms it.
func (x *session) frozen(f *wire.Freeze) {
	x.a.freeze.told(len(f.GetJson()) > 0)
	x.tellFreeze()
}

func (x *session) tellFreeze() {
	x.push(func(time.Time) *wire.SessionRequest {
		f := x.a.freeze.state()
		return &wire.SessionRequest{What: &wire.SessionRequest_FreezeState{FreezeState: &wire.FreezeState{Fleet: f.fleet, Local: f.local, Why: f.why}}}
	})
}

// explained says what an error of the transport means for this machine.
func explained(err error) error {
	s, ok := status.FromError(err)
	if !ok || err == nil {
		return err
	}
	switch s.Code() {
	case codes.Unavailable:
		return fmt.Errorf("%s (is the server running, reachable from here, and of the fleet that this machine joined?)", s.Message())
	default:
		return errors.New(s.Message())
	}
}
