package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fleet/wire"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

const (
	// helloWait is how long a new session may take to say who it is.
	helloWait = 10 * time.Second
	// silence is after how many intervals without a word an agent is taken for
	// lost: it answers a ping in each.
	silence = 4
	// maxQueue is how many messages may wait for an agent that does not read.
	maxQueue = 4096
	// maxWhy is how much of an agent's reason is kept, in bytes.
	maxWhy = 1000
	// maxComplaints is how many defects of one session are told to the log.
	maxComplaints = 10
)

var (
	errReplaced  = errors.New("the same agent connected again")
	errSilent    = errors.New("the agent was silent for too long")
	errSlow      = errors.New("the agent does not read what it is sent")
	errForgotten = errors.New("the host was sent away from the fleet")
)

// session is one agent's connection.
type session struct {
	host   *host
	about  about
	label  string
	probes map[string]bool // guarded by the host's mu
	// commands says that the agent runs them.
	commands bool
	clocks   wire.Clocks // guarded by the host's mu

	began   time.Time // guarded by the host's mu, as settled is
	settled bool      // the agent has told everything

	shown loop.Tip // the head that the agent was shown last; write's own, once that runs

	done   <-chan struct{} // closed when it ends
	cancel context.CancelCauseFunc
	ctx    context.Context

	mu         sync.Mutex // guards what follows
	out        []*wire.SessionResponse
	wake       chan struct{}
	next       uint64
	waiting    map[uint64]chan<- answer
	pings      map[uint64]time.Time
	heard      time.Time
	complaints int
}

// answer is what an agent sent to a request, and when and by which clock.
type answer struct {
	message *wire.SessionRequest
	at      time.Time
}

type agents struct {
	wire.UnimplementedAgentServiceServer
	s *Server
}

// Session implements wire.AgentServiceServer.
func (a *agents) Session(stream wire.AgentService_SessionServer) error {
	s := a.s
	who := callerOf(stream.Context())
	// Reading and writing a stream end only when the handler has returned, so
	// they run beside it, and Run waits for them.
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	left := who.cert.NotAfter.Sub(s.o.Clock.Wall())
	ctx, stop := context.WithTimeoutCause(ctx, left, fmt.Errorf("the certificate of %s expired (join again with a new token)", who.name.ID))
	defer stop()
	in := make(chan answer)
	s.sessions.Go(func() { s.read(ctx, cancel, stream, in) })

	first, err := hello(ctx, in)
	if err != nil {
		return err
	}
	h := first.message.GetHello()
	if want := who.name.Host(); h.GetHost() != string(want) {
		return status.Errorf(codes.PermissionDenied, "the agent says that it is on %.80q, and its certificate is %s's", h.GetHost(), want)
	}
	freeze, err := s.frozen(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	host := s.host(who.name.Host())
	s.mu.Unlock()
	x := newSession(ctx, cancel, host, h)
	x.about.address = who.address
	x.heard = first.at
	x.clocks.Heard(first.at, first.message.GetNowNs())
	head, err := s.met(ctx, x, h.GetLog())
	if err != nil {
		return err
	}
	epoch, err := s.epoch(ctx)
	if err != nil {
		return err
	}
	x.push(&wire.SessionResponse{What: &wire.SessionResponse_Welcome{Welcome: &wire.Welcome{
		Schema: wire.Schema, Fleet: who.name.Fleet, IntervalNs: int64(s.o.Interval), Freeze: freeze, Log: head, Servers: s.addresses(ctx), Epoch: epoch}}})
	welcomed := s.o.Clock.Now()
	host.attach(x)
	defer host.detach(x)
	// What changed between the questions above and now.
	switch in, err := s.o.Register.Admitted(ctx, who.name); {
	case err != nil:
		return err
	case !in:
		return errForgotten
	}
	if freeze, err = s.frozen(ctx); err != nil {
		return err
	}
	x.push(&wire.SessionResponse{What: &wire.SessionResponse_Freeze{Freeze: freeze}})
	s.o.Log.Info("an agent connected", "host", host.subject, "label", x.label, "address", x.about.address, "incarnation", x.about.incarnation)
	s.sessions.Go(func() { x.write(stream) })
	s.sessions.Go(func() { s.ping(x) })
	err = x.serve(in, welcomed)
	s.o.Log.Info("an agent's session ended", "host", host.subject, "label", x.label, "why", err)
	return err
}

func newSession(ctx context.Context, cancel context.CancelCauseFunc, h *host, hello *wire.Hello) *session {
	x := &session{
		host: h, ctx: ctx, cancel: cancel, done: ctx.Done(), label: hello.GetLabel(), commands: hello.GetCommands(),
		about:  about{incarnation: hello.GetIncarnation(), bootID: hello.GetBootId(), version: hello.GetVersion()},
		probes: map[string]bool{}, wake: make(chan struct{}, 1),
		waiting: map[uint64]chan<- answer{}, pings: map[uint64]time.Time{},
	}
	return x
}

// read passes on what comes from the agent, with the time at which it came.
func (s *Server) read(ctx context.Context, cancel context.CancelCauseFunc, stream wire.AgentService_SessionServer, in chan<- answer) {
	for {
		m, err := stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the agent ended it")
			}
			cancel(err)
			return
		}
		select {
		case in <- answer{m, s.o.Clock.Now()}:
		case <-ctx.Done():
			return
		}
	}
}

func hello(ctx context.Context, in <-chan answer) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, helloWait)
	defer cancel()
	select {
	case first := <-in:
		h := first.message.GetHello()
		if h == nil {
			return answer{}, status.Error(codes.InvalidArgument, "the first message of a session is Hello")
		}
		if err := wire.CheckSchema(h.GetSchema()); err != nil {
			return answer{}, status.Error(codes.FailedPrecondition, err.Error())
		}
		if h.GetIncarnation() == "" {
			return answer{}, status.Error(codes.InvalidArgument, "the agent does not say which incarnation it is")
		}
		return first, nil
	case <-ctx.Done():
		return answer{}, context.Cause(ctx)
	}
}

// serve takes in what the agent sends until the session ends.
func (x *session) serve(in <-chan answer, welcomed time.Time) error {
	for first := true; ; first = false {
		select {
		case a := <-in:
			if first { // it waited for the welcome
				x.roundTrip(a.at, a.at.Sub(welcomed))
			}
			if err := x.take(a); err != nil {
				return err
			}
		case <-x.done:
			return context.Cause(x.ctx)
		}
	}
}

// take takes one message in.
func (x *session) take(a answer) error {
	now := a.message.GetNowNs()
	x.host.mu.Lock()
	x.clocks.Heard(a.at, now)
	x.host.heard = a.at
	x.host.mu.Unlock()
	x.mu.Lock()
	x.heard = a.at
	x.mu.Unlock()
	switch w := a.message.GetWhat().(type) {
	case *wire.SessionRequest_Report:
		x.host.report(x, a.at, now, w.Report)
	case *wire.SessionRequest_Digest:
		return x.host.digest(x, a.at, now, w.Digest.GetSeen())
	case *wire.SessionRequest_Settled:
		x.host.settled(x)
		x.host.s.o.Log.Info("an agent has told all that it sees", "host", x.host.subject, "label", x.label)
	case *wire.SessionRequest_Outcome:
		x.deliver(w.Outcome.GetId(), a)
	case *wire.SessionRequest_LookAnswer:
		x.deliver(w.LookAnswer.GetId(), a)
	case *wire.SessionRequest_PreviewAnswer:
		x.deliver(w.PreviewAnswer.GetId(), a)
	case *wire.SessionRequest_CommandOutput:
		x.heardOf(w.CommandOutput.GetId(), a)
	case *wire.SessionRequest_CommandEnd:
		x.heardOf(w.CommandEnd.GetId(), a)
	case *wire.SessionRequest_Pong:
		x.mu.Lock()
		sent, ok := x.pings[w.Pong.GetId()]
		delete(x.pings, w.Pong.GetId())
		x.mu.Unlock()
		if ok {
			x.roundTrip(a.at, a.at.Sub(sent))
		}
	case *wire.SessionRequest_FreezeState:
		x.host.mu.Lock()
		x.host.frozen = freezeState{fleet: w.FreezeState.GetFleet(), local: w.FreezeState.GetLocal(), why: w.FreezeState.GetWhy()}
		x.host.mu.Unlock()
	case *wire.SessionRequest_LogState:
		why := w.LogState.GetRefused()
		x.host.mu.Lock()
		x.host.refuses = strings.ToValidUTF8(why[:min(len(why), maxWhy)], "")
		x.host.mu.Unlock()
		if why != "" {
			x.host.s.o.Log.Error("an agent takes no steps of this server", "host", x.host.subject, "label", x.label, "why", why)
		}
	case *wire.SessionRequest_Probes:
		x.host.mu.Lock()
		for _, name := range w.Probes.GetNames() {
			x.probes[name] = true
		}
		x.host.mu.Unlock()
	case *wire.SessionRequest_Hello:
		return status.Error(codes.InvalidArgument, "a second Hello in one session")
	}
	return nil // what a newer agent says besides is passed over
}

func (x *session) roundTrip(at time.Time, took time.Duration) {
	x.host.mu.Lock()
	defer x.host.mu.Unlock()
	x.clocks.Answered(at, took)
}

// push queues a message for the agent. After the session has ended it does
// nothing.
func (x *session) push(m *wire.SessionResponse) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.out) >= maxQueue {
		x.cancel(errSlow)
		return
	}
	x.out = append(x.out, m)
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// write sends what is queued, at once.
func (x *session) write(stream wire.AgentService_SessionServer) {
	for {
		select {
		case <-x.wake:
		case <-x.done:
			return
		}
		x.mu.Lock()
		out := x.out
		x.out = nil
		x.mu.Unlock()
		for _, m := range out {
			x.withHead(m)
			if err := stream.Send(m); err != nil {
				x.cancel(fmt.Errorf("send: %w", err))
				return
			}
		}
	}
}

// ping asks the agent for a sign of life in every interval.
func (s *Server) ping(x *session) {
	for {
		now := s.o.Clock.Now()
		x.mu.Lock()
		quiet := now.Sub(x.heard)
		x.next++
		id := x.next
		x.pings[id] = now
		x.mu.Unlock()
		if quiet > silence*s.o.Interval {
			x.cancel(errSilent)
			return
		}
		x.push(&wire.SessionResponse{What: &wire.SessionResponse_Ping{Ping: &wire.Ping{Id: id}}})
		timer, stop := s.o.Clock.After(s.o.Interval)
		select {
		case <-timer:
		case <-x.done:
			stop()
			return
		}
	}
}

// end ends the session.
func (x *session) end(why error) { x.cancel(why) }

// complain tells the log of a defect, the first few times. The host's mu is held.
func (x *session) complain(text string, err error) {
	if x.complaints++; x.complaints <= maxComplaints {
		x.host.s.o.Log.Warn(text, "host", x.host.subject, "error", err)
	}
}

// frozen returns the fleet's freeze for an agent.
func (s *Server) frozen(ctx context.Context) (*wire.Freeze, error) {
	var f *guard.Freeze
	if err := s.ask(ctx, func(m *incident.Mind) { f = m.Frozen() }); err != nil {
		return nil, err
	}
	if f == nil {
		return &wire.Freeze{}, nil
	}
	data, err := wire.Pack(f)
	return &wire.Freeze{Json: data}, err
}
