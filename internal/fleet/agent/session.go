package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fleet/executor"
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
	// freezeEvery is how often the executor is asked whether the machine is frozen. It
	// looks by itself before each step.
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
		if errors.Is(err, errHome) {
			a.o.Log.Info("this agent goes to the server that it prefers", "from", address)
			a.servers.goHome()
			continue
		}
		if errors.Is(err, errRenewed) && last != err.Error() {
			last = err.Error()
			a.o.Log.Info("this agent calls anew, with a certificate of the fleet's new authority", "server", address)
			a.servers.stay()
			continue
		}
		if text := err.Error(); ctx.Err() == nil && text != last { // said once, not with every try
			last = text
			a.o.Log.Warn("no session with the server; it is tried again", "server", address, "error", err)
		}
		if a.o.Machine.Clock.Now().Sub(began) >= steady {
			pause, round = firstPause, false
			a.servers.stay()
		}
		// Half of it at least, so that many agents do not come at once.
		due, stop := a.o.Machine.Clock.After(pause/2 + a.o.Jitter(pause/2+1))
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

	since    time.Duration // since boot, when this connection began; 0: that is not known, so it confirms nothing
	interval time.Duration
	wake     chan struct{} // has a value when there is an answer to send

	mu       sync.Mutex
	answers  []func(now time.Time) *wire.SessionRequest // made when they are sent, so that ages are right
	looked   []func(now time.Time) *wire.SessionRequest // likewise; sent behind what follows from what was seen
	commands commands
	nonce    string // the executor's latest

	probes  []string // that the server was told of; write's own, as settled is
	settled bool

	stories bool                  // the server takes what was done alone; greet's, before anybody else has the session
	taken   chan *wire.StoryTaken // answers to that

	greeting         executor.Greeting // set by greet
	executorBelieves int64             // serial of the authority's word that the executor beside this process keeps; guarded by mu
	heads            uint64            // that came; of greet and then of serve
	refuses          refusal           // why this server is not obeyed, as it was told last
}

// session connects, tells what is, and serves the server until one of them ends.
// It always returns an error.
func (a *Agent) session(ctx context.Context, address string) error {
	wall := a.o.Machine.Clock.Wall
	if err := a.identity.Load().InTime(wall()); err != nil {
		return err
	}
	arming, err := a.armed(ctx)
	if err != nil && !errors.Is(err, executor.ErrAway) { // then this session confirms nothing
		a.o.Log.Error("the time since boot, and which changes wait for a confirmation, cannot be told", "error", err)
	}
	conn, err := a.o.Dial.Client(address, pki.ClientTLS(a.identity.Load, wall))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	x := &session{a: a, server: address, since: arming.Uptime, ctx: ctx, cancel: cancel, wake: make(chan struct{}, 1), taken: make(chan *wire.StoryTaken, 1)}
	defer x.wg.Wait()
	defer cancel(nil)
	x.stream, err = a.o.Dial.Direct(ctx, address, pki.ClientTLS(a.identity.Load, wall))
	if errors.Is(err, wire.ErrNoDirect) { // a server of an older version
		x.stream, err = wire.NewAgentServiceClient(conn).Session(ctx)
	}
	if err != nil {
		return explained(err)
	}
	in := make(chan *wire.SessionResponse)
	x.wg.Go(func() { x.read(in) })
	if err := x.greet(in); err != nil {
		return explained(err)
	}
	renew := func() error { return a.renew(ctx, conn) }
	if err := x.renewed(renew()); err != nil {
		return err
	}
	defer a.contact.begin(x, a.o.Machine.Clock.Now)()
	a.picture.link()
	defer a.picture.unlink()
	x.tellArmed()
	a.gossip.link(x)
	defer a.gossip.unlink(x)
	x.wg.Go(x.write)
	return explained(x.serve(in, renew))
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
	if err := x.greeted(); err != nil {
		return err
	}
	g := x.greeting
	h := &wire.Hello{
		Schema: wire.Schema, Host: string(a.host), Incarnation: a.process, BootId: a.o.Machine.Identity.BootID,
		Label: a.o.Machine.Identity.Hostname, Kinds: a.kinds(), Version: a.o.Version, Log: wireHead(g.Head), Commands: true, Permits: true, Gossips: a.o.GossipListen != "",
		Nonce: g.Pulse.Nonce, Executor: g.Incarnation, Authorities: true, AuthoritiesSerial: x.believes(),
		SignedCommands: true,
	}
	for _, c := range a.cats {
		for _, spec := range c.Actions {
			if v, ok := g.Able[spec.Name]; ok {
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
		x.believe(w.GetAuthorities())
		x.interval = time.Duration(max(w.GetIntervalNs(), int64(100*time.Millisecond)))
		if err := x.meet(g.Head, w); err != nil {
			return err
		}
		x.frozen(w.GetFreeze())
		x.maintenance(w.GetMaintenance())
		x.permitted(w.GetPermit())
		x.stories = w.GetStories()
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
	nextHome := x.homeDue(heard)
	due, stop := clock.After(min(freezeEvery, x.interval))
	defer func() { stop() }()
	for {
		select {
		case m := <-in: // however often they come, what is due is done
			heard = clock.Now()
			x.take(m)
		case now := <-due:
			due, stop = clock.After(min(freezeEvery, x.interval))
			if now.Sub(heard) > silence*x.interval {
				return fmt.Errorf("the server was silent for %s", now.Sub(heard).Round(time.Millisecond))
			}
			x.wg.Go(x.pulse)
			if now.After(nextHome) {
				nextHome = x.homeDue(now)
				x.wg.Go(x.seekHome)
			}
			if x.a.identity.Load().Outdated() && nextRenewal.Sub(now) > 2*x.interval {
				nextRenewal = now.Add(x.a.o.Jitter(2 * x.interval)) // not all agents at once
			}
			if now.After(nextRenewal) {
				nextRenewal = now.Add(renewEvery)
				x.wg.Go(func() {
					if err := x.renewed(renew()); err != nil {
						x.cancel(err)
					}
				})
			}
		case <-x.ctx.Done():
			return context.Cause(x.ctx)
		}
	}
}

// frozen takes in what the server says of the fleet's freeze, and confirms it.
func (x *session) frozen(f *wire.Freeze) {
	fleet := len(f.GetJson()) > 0
	x.a.freeze.told(fleet)
	x.keep(executor.Word{FleetFrozen: &fleet})
	x.tellFreeze()
}

// maintenance takes in what the server says of the windows that this host is in.
func (x *session) maintenance(m *wire.Maintenance) {
	if m != nil { // a server of an older version says nothing
		x.keep(executor.Word{Windows: append([][]byte{}, m.GetJson()...)})
	}
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
