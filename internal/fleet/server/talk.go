package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"fettle/internal/fleet/member"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
)

// helloWait is how long a new session may take to say who it is.
const helloWait = 10 * time.Second

// beginMost is how many sessions may begin at once. Each asks the mind, behind what it
// has still to take in: ten thousand that return at once come no faster than that is done.
const beginMost = 16

type agents struct {
	wire.UnimplementedAgentServiceServer
	s *Server
}

// direct takes sessions that come on a connection of their own, until ctx ends. What
// stands before the handler is what gRPC would call.
func (s *Server) direct(ctx context.Context, a *agents) wire.TakeDirect {
	before := s.stream(ctx)
	info := &grpc.StreamServerInfo{FullMethod: wire.AgentService_Session_FullMethodName, IsClientStream: true, IsServerStream: true}
	return func(conn net.Conn, known credentials.TLSInfo) {
		s.sessions.Go(func() {
			d := wire.NewDirect(context.Background(), conn, known) // ctx ends it by way of what stands before
			d.Finish(before(a, d, info, func(_ any, ss grpc.ServerStream) error {
				return a.alone(&grpc.GenericServerStream[wire.SessionRequest, wire.SessionResponse]{ServerStream: ss}, d)
			}))
		})
	}
}

// alone is Session on a connection of its own: one goroutine, which reads. It waits with a
// small stack, since there are as many as agents, so what was read is taken in by another.
func (a *agents) alone(stream wire.AgentService_SessionServer, d *wire.Direct) error {
	t, stop := a.s.talk(stream)
	defer stop()
	defer context.AfterFunc(t.ctx, d.Interrupt)()
	late := time.AfterFunc(helloWait, func() { t.cancel(context.DeadlineExceeded) })
	defer late.Stop()
	taken := make(chan struct{}, 1)
	var m *wire.Message
	take := func() {
		t.read(m)
		taken <- struct{}{}
	}
	for t.ctx.Err() == nil {
		var err error
		if m, err = d.Next(); err != nil {
			t.broke(err)
			break
		}
		late.Stop()
		a.s.sessions.Go(take)
		<-taken
	}
	return t.end(context.Cause(t.ctx))
}

// read takes in a message that has come.
func (t *talk) read(m *wire.Message) {
	at := t.s.o.Clock.Now()
	said := &wire.SessionRequest{}
	err := m.Read(said)
	if err == nil {
		err = t.take(answer{said, at})
	}
	if err != nil {
		t.cancel(err)
	}
}

// broke ends the talk, since nothing more can be read.
func (t *talk) broke(err error) {
	if errors.Is(err, io.EOF) {
		err = errors.New("the agent ended it")
	}
	t.cancel(&brokenError{err})
}

// talk is a call of an agent, from its first message on. Behind one that gRPC serves stand
// two goroutines, and both wait with a small stack: the handler, which does nothing but
// wait for the end, and one that reads, and does all the work.
type talk struct {
	s      *Server
	who    caller
	stream wire.AgentService_SessionServer
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu       sync.Mutex // held while a message is taken in; guards what follows
	over     bool
	x        *session // nil: it has not said hello, or was not let in
	let      bool     // the session is under way
	first    bool     // the welcome was not answered yet
	welcomed time.Time
}

// Session implements wire.AgentServiceServer.
func (a *agents) Session(stream wire.AgentService_SessionServer) error {
	t, stop := a.s.talk(stream)
	defer stop()
	// Reading a stream ends only when the handler has returned, so it runs beside it,
	// and Serve waits for it.
	a.s.sessions.Go(t.listen)
	<-t.ctx.Done()
	return t.end(context.Cause(t.ctx))
}

func (s *Server) talk(stream wire.AgentService_SessionServer) (*talk, func()) {
	who := callerOf(stream.Context())
	ctx, cancel := context.WithCancelCause(stream.Context())
	left := who.cert.NotAfter.Sub(s.o.Clock.Wall())
	ctx, stop := context.WithTimeoutCause(ctx, left, fmt.Errorf("the certificate of %s expired (join again with a new token)", who.name.ID))
	return &talk{s: s, who: who, stream: stream, ctx: ctx, cancel: cancel}, func() { stop(); cancel(nil) }
}

// listen takes in what the agent sends until the call ends, which it ends when that
// cannot be.
func (t *talk) listen() {
	late := time.AfterFunc(helloWait, func() { t.cancel(context.DeadlineExceeded) })
	defer late.Stop()
	for {
		m, err := t.stream.Recv()
		if err != nil {
			t.broke(err)
			return
		}
		late.Stop()
		if err := t.take(answer{m, t.s.o.Clock.Now()}); err != nil {
			t.cancel(err)
			return
		}
	}
}

// take takes one message in; nothing after the end.
func (t *talk) take(a answer) (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.s.caught(wire.AgentService_Session_FullMethodName, &err)
	switch {
	case t.over:
		return context.Cause(t.ctx)
	case t.x == nil:
		return t.begin(a)
	case t.first: // it waited for the welcome
		t.first = false
		t.x.roundTrip(a.at, a.at.Sub(t.welcomed), "")
	}
	return t.x.take(a)
}

// begin lets an agent in. mu is held.
func (t *talk) begin(first answer) error {
	s, ctx, who := t.s, t.ctx, t.who
	h, err := hello(first)
	if err != nil {
		return err
	}
	select {
	case s.begins <- struct{}{}:
		defer func() { <-s.begins }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if want := who.name.Host(); h.GetHost() != string(want) {
		return status.Errorf(codes.PermissionDenied, "the agent says that it is on %.80q, and its certificate is %s's", h.GetHost(), want)
	}
	freeze, maintenance, err := s.held(ctx, who.name.Host())
	if err != nil {
		return err
	}
	s.mu.Lock()
	host := s.host(who.name.Host())
	s.mu.Unlock()
	x := newSession(ctx, t.cancel, host, h)
	x.about.address = who.address
	x.issuer = s.identity.Load().Trust().IssuerOf(who.cert)
	x.heard, x.interval = first.at, s.pace()
	x.clocks.Heard(first.at, first.message.GetNowNs())
	x.nonce = nonce{h.GetNonce(), first.at}
	head, err := s.met(ctx, x, h.GetLog())
	if err != nil {
		return err
	}
	epoch, err := s.epoch(ctx)
	if err != nil {
		return err
	}
	permit, renew := s.permit(ctx, x)
	x.renew = s.o.Clock.Now().Add(renew)
	x.push(&wire.SessionResponse{What: &wire.SessionResponse_Welcome{Welcome: &wire.Welcome{
		Schema: wire.Schema, Fleet: who.name.Fleet, IntervalNs: int64(x.interval), Freeze: freeze, Log: head, Servers: s.addresses(ctx), Epoch: epoch, Maintenance: maintenance,
		Permit: permit, Stories: true, Authorities: s.wordsFor(x, h.GetAuthoritiesSerial())}}})
	t.welcomed, t.first = s.o.Clock.Now(), true
	host.attach(x)
	t.x = x
	host.mu.Lock()
	host.authority = authorityState{serial: h.GetAuthoritiesSerial()}
	host.mu.Unlock()
	if !s.Crowded() { // else it is soon looked anyway whether a change of the authority waits for it
		poke(s.authority.wake)
	}
	s.here(x)
	// What changed between the questions above and now.
	switch in, err := s.o.Register.Admitted(ctx, who.name); {
	case err != nil:
		return err
	case !in:
		return errForgotten
	}
	if freeze, maintenance, err = s.held(ctx, host.subject); err != nil {
		return err
	}
	x.push(&wire.SessionResponse{What: &wire.SessionResponse_Freeze{Freeze: freeze}})
	x.push(&wire.SessionResponse{What: &wire.SessionResponse_Maintenance{Maintenance: maintenance}})
	s.o.Log.Info("an agent connected", "host", host.subject, "label", x.label, "address", x.about.address, "incarnation", x.about.incarnation)
	t.let = true
	x.speak(t.stream)
	return nil
}

func hello(first answer) (*wire.Hello, error) {
	h := first.message.GetHello()
	if h == nil {
		return nil, status.Error(codes.InvalidArgument, "the first message of a session is Hello")
	}
	if err := wire.CheckSchema(h.GetSchema()); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	if h.GetIncarnation() == "" {
		return nil, status.Error(codes.InvalidArgument, "the agent does not say which incarnation it is")
	}
	return h, nil
}

// end ends the session, if there is one, and returns why.
func (t *talk) end(why error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	x := t.x
	if !t.let {
		t.s.o.Log.Info("an agent was not let in", "host", t.who.name.Host(), "address", t.who.address, "why", why)
	}
	if x == nil {
		return why
	}
	x.close()
	how := member.StreamNever // nothing follows from how it ends
	if t.let {
		how = x.endOf(why, t.who.by != (pki.Name{}))
		t.s.o.Log.Info("an agent's session ended", "host", x.host.subject, "label", x.label, "why", why)
	}
	x.host.detach(x)
	t.s.gone(x, how)
	return why
}
