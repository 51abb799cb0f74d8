package server

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fleet/fanout"
	"fettle/internal/fleet/warrant"
	"fettle/internal/fleet/wire"
)

// signWait is how long a caller may take to sign for one host: no person is asked, a
// program signs, and a nonce does not keep.
const signWait = 10 * time.Second

// RunSigned implements wire.AdminServiceServer. That the caller's word holds the hosts'
// executors say; here it is handed on.
func (a *admin) RunSigned(s wire.AdminService_RunSignedServer) error {
	first, err := s.Recv()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	begin := first.GetBegin()
	if begin.GetRun() == nil || len(begin.GetRun().GetArgv()) > 0 || begin.GetId() == "" || len(begin.GetId()) > warrant.MaxRunID {
		return status.Error(codes.InvalidArgument, "the first message of a run does not begin it (a defect of the caller)")
	}
	program, err := warrant.ParseProgram(begin.GetProgram())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	r := begin.GetRun()
	r.Argv = program.Argv // what is recorded is what is signed
	k := &signatures{stream: s, id: begin.GetId(), program: begin.GetProgram(), asked: map[string]chan *wire.SignedCommand{}, closed: make(chan struct{})}
	a.s.sessions.Go(k.read) // it ends with the stream
	return a.run(r, k, k)
}

// teller is who is told how a run goes.
type teller interface {
	Context() context.Context
	Send(*wire.RunResponse) error
}

// signatures has a caller sign for each host that its command runs there. Its methods
// may be called concurrently.
type signatures struct {
	stream  wire.AdminService_RunSignedServer
	id      string
	program []byte

	send sync.Mutex // of what is sent

	mu     sync.Mutex
	asked  map[string]chan *wire.SignedCommand // by host
	closed chan struct{}                       // the caller signs no more
}

// Context and Send implement teller.
func (k *signatures) Context() context.Context { return k.stream.Context() }

// Send sends; many may.
func (k *signatures) Send(m *wire.RunResponse) error {
	k.send.Lock()
	defer k.send.Unlock()
	return k.stream.Send(m)
}

// read hands signatures to who waits for them until the stream ends.
func (k *signatures) read() {
	defer close(k.closed)
	for {
		m, err := k.stream.Recv()
		if err != nil {
			return
		}
		w := m.GetSignature()
		k.mu.Lock()
		waits := k.asked[w.GetHost()]
		delete(k.asked, w.GetHost()) // each is asked for once
		k.mu.Unlock()
		if waits != nil {
			waits <- w.GetSigned() // it has room for one
		}
	}
}

// sign asks the caller to sign for a host, and waits for that.
func (k *signatures) sign(outer context.Context, host, nonce string) (*wire.SignedCommand, error) {
	ctx, cancel := context.WithTimeout(outer, signWait)
	defer cancel()
	waits := make(chan *wire.SignedCommand, 1)
	k.mu.Lock()
	k.asked[host] = waits
	k.mu.Unlock()
	if err := k.Send(&wire.RunResponse{What: &wire.RunResponse_Sign{Sign: &wire.RunSign{Host: host, Nonce: nonce}}}); err != nil {
		return nil, err
	}
	select {
	case w := <-waits:
		if len(w.GetNote()) == 0 {
			return nil, fanout.Refuse("it says why itself", "the fettle that was called did not sign the command")
		}
		return w, nil
	case <-k.closed:
		return nil, fanout.Refuse("", "the fettle that was called has hung up and signs no more")
	case <-ctx.Done():
		if outer.Err() != nil {
			return nil, context.Cause(outer)
		}
		return nil, fanout.Refuse("does it hang, or the way to it?", "the fettle that was called did not sign within %v", signWait)
	}
}

// words is what is put to a host's agent: a person's word where that wants one.
func (r *agentRunner) words(ctx context.Context, h fanout.Host, x *session, c fanout.Command) (*wire.Command, error) {
	if !x.signed { // of a version that looks at the server's word only
		return &wire.Command{Argv: c.Argv, By: r.by, Role: string(r.role)}, nil
	}
	if r.signs == nil {
		return nil, fanout.Refuse("upgrade `fettle` where you call it", "it runs only what the person has signed, and the fettle that was called signs nothing")
	}
	x.host.mu.Lock()
	n := x.nonce
	x.host.mu.Unlock()
	if n.text == "" {
		return nil, fanout.Refuse("is fettle-executor.service there?", "the executor of this host is away")
	}
	signed, err := r.signs.sign(ctx, h.ID, n.text)
	if err != nil {
		return nil, err
	}
	return &wire.Command{Program: r.signs.program, Signed: signed}, nil
}
