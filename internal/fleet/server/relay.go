package server

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
)

// What a server says of whose call it passes on. Only the word of a server of this
// fleet is taken for it.
const (
	forCert    = "fettle-for-bin"  // the caller's certificate, DER
	forAddress = "fettle-from-bin" // the caller's address; there is one in every call that was passed on
)

// relayStreams is how many calls share a connection to the leader: fewer than a
// server lets one have open.
const relayStreams = 48

var (
	errNoLeader = status.Error(codes.Unavailable, "no server leads at present (try again in a moment)")
	errMoved    = status.Error(codes.Unavailable, "another server leads now (try again)")
)

// relays are the connections to the server that leads.
type relays struct {
	mu      sync.Mutex
	address string
	conns   map[*grpc.ClientConn]int // calls under way
}

// take returns a connection with room for one call, and how to give it back.
func (r *relays) take(address string, dial func(string) (*grpc.ClientConn, error)) (*grpc.ClientConn, func(), error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn(address)
	for c, n := range r.conns {
		if n < relayStreams {
			r.conns[c]++
			return c, func() { r.give(c) }, nil
		}
	}
	c, err := dial(address)
	if err != nil {
		return nil, nil, err
	}
	r.conns[c] = 1
	return c, func() { r.give(c) }, nil
}

// turn makes this the address of the leader. Calls that were passed on to an earlier
// one end: it may be cut off, and would not say so.
func (r *relays) turn(address string) {
	if r.address == address && address != "" {
		return
	}
	for c := range r.conns {
		_ = c.Close() // whose calls are told that the leader changed
	}
	r.address, r.conns = address, map[*grpc.ClientConn]int{}
}

func (r *relays) give(c *grpc.ClientConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, ours := r.conns[c]
	if ours {
		r.conns[c] = n - 1
	}
	if n <= 1 && (!ours || len(r.conns) > 1) {
		delete(r.conns, c)
		_ = c.Close() // nothing is under way on it
	}
}

// Led says that another server leads now, as the store tells it: what was passed on to
// the one before ends at once, and those who called call again. "": nobody does, and
// the one before may still answer.
func (s *Server) Led(address string) {
	if address == "" {
		return
	}
	s.relays.mu.Lock()
	defer s.relays.mu.Unlock()
	s.relays.turn(address)
}

// anew has every call connect anew, under the identity that is held now: those that are
// under way end, and who called calls again.
func (r *relays) anew() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn("")
}

func (r *relays) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		_ = c.Close() // every call has ended
	}
	r.conns, r.address = nil, ""
}

// leaderWait is how long a call waits for somebody to lead: as long as an election
// takes at worst.
const leaderWait = 8 * time.Second

// leaderPoll is how often it is asked meanwhile.
const leaderPoll = 50 * time.Millisecond

// passage is the way of a call to the server that leads.
type passage struct {
	conn *grpc.ClientConn
	done func()
}

// route finds who answers a call: this server, in its present term, which the call
// is then part of, or the one that leads. It waits while nobody does.
func (s *Server) route(ctx context.Context, c caller) (*term, passage, error) {
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	for {
		if t := s.enter(); t != nil {
			return t, passage{}, nil
		}
		if c.by != (pki.Name{}) { // passed on once already, by one that thought that we lead
			return nil, passage{}, errNoLeader
		}
		if s.o.Cluster != nil {
			if p, ok := s.upstream(ctx); ok {
				return nil, p, nil
			}
		}
		select {
		case <-time.After(leaderPoll):
		case <-ctx.Done():
			if s.o.Cluster == nil {
				return nil, passage{}, errStarting
			}
			return nil, passage{}, errNoLeader
		}
	}
}

// upstream returns a connection to the leader that is ready.
func (s *Server) upstream(ctx context.Context) (passage, bool) {
	leader, ok := s.o.Cluster.Leader()
	if !ok || leader.Name == s.identity.Load().Name.ID { // nobody, or we, who have not begun yet
		return passage{}, false
	}
	conn, done, err := s.relays.take(leader.Address, func(address string) (*grpc.ClientConn, error) {
		return s.o.Dial.Client(address, pki.ClientTLS(s.identity.Load, s.o.Clock.Wall))
	})
	if err != nil {
		s.o.Log.Error("the server that leads cannot be called", "address", leader.Address, "error", err)
		return passage{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, 4*leaderPoll)
	defer cancel()
	if !wire.Ready(ctx, conn) {
		done()
		return passage{}, false
	}
	return passage{conn, done}, true
}

// outgoing says of a call that is passed on whose it is.
func outgoing(ctx context.Context, c caller) context.Context {
	pairs := []string{forAddress, c.address}
	if c.cert != nil {
		pairs = append(pairs, forCert, string(c.cert.Raw))
	}
	return metadata.NewOutgoingContext(ctx, metadata.Pairs(pairs...))
}

// unary passes a call on. Messages pass as they are: what an Empty does not know
// it keeps.
func (p passage) unary(ctx context.Context, method string, req any, c caller) (any, error) {
	defer p.done()
	resp := &emptypb.Empty{}
	if err := p.conn.Invoke(outgoing(ctx, c), method, req, resp); err != nil {
		if p.conn.GetState() == connectivity.Shutdown {
			return nil, errMoved
		}
		return nil, err
	}
	return resp, nil
}

// stream passes a stream on, both ways, until either side ends it. What it starts ends
// when the handler has returned.
func (p passage) stream(ss grpc.ServerStream, method string, c caller, starts *sync.WaitGroup) error {
	defer p.done()
	ctx, cancel := context.WithCancel(outgoing(ss.Context(), c))
	defer cancel()
	up, err := p.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	starts.Go(func() {
		defer cancel()
		for {
			m := &emptypb.Empty{}
			if err := ss.RecvMsg(m); err != nil {
				if errors.Is(err, io.EOF) && up.CloseSend() == nil {
					<-ctx.Done() // the other side may have more to say
				}
				return
			}
			if up.SendMsg(m) != nil {
				<-ctx.Done() // why is said to the one who receives
				return
			}
		}
	})
	for {
		m := &emptypb.Empty{}
		if err := up.RecvMsg(m); err != nil {
			switch {
			case errors.Is(err, io.EOF):
				return nil
			case p.conn.GetState() == connectivity.Shutdown:
				return errMoved
			}
			return err
		}
		if err := ss.SendMsg(m); err != nil {
			return err
		}
	}
}

// behind returns who stands behind a call that a server passed on: by the
// certificate that came with it, which is checked as if its bearer had called here.
func (s *Server) behind(ctx context.Context, by caller) (caller, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	from := md.Get(forAddress)
	if len(from) == 0 || by.name.Role != pki.RoleServer {
		return by, nil // whoever else says such a thing speaks for itself
	}
	c := caller{address: from[0], by: by.name}
	raw := md.Get(forCert)
	if len(raw) == 0 {
		return c, nil // somebody who has no certificate yet
	}
	cert, err := x509.ParseCertificate([]byte(raw[0]))
	if err != nil {
		return caller{}, status.Errorf(codes.Unauthenticated, "the certificate that server %s passed on: %v", by.name.ID, err)
	}
	if c.name, err = s.identity.Load().Bearer(cert, s.o.Clock.Wall()); err != nil {
		return caller{}, status.Error(codes.Unauthenticated, err.Error())
	}
	c.cert = cert
	return c, nil
}
