package wire

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// Timings of a connection. A peer that vanishes without a word is noticed by the
// session's pings within seconds; these are for connections without a session,
// and keep stateful firewalls from forgetting one.
const (
	keepaliveEvery = 30 * time.Second
	keepaliveWait  = 10 * time.Second
	connectWait    = 5 * time.Second
	handshakeWait  = 10 * time.Second
	// An agent's calls are few, so its connection for them is not kept.
	idleAfter = time.Minute
)

// CallTimeout bounds every call that is no stream, where the caller names no
// deadline of its own.
const CallTimeout = 10 * time.Second

// maxStreams is how many calls one connection may have open: a session, and a
// person's commands and watches.
const maxStreams = 64

// serverWrites is how much a server collects before it writes, in bytes: most that it
// says to an agent is shorter.
const serverWrites = 4 << 10

// ServerOptions are how a server serves: mutual TLS, limits, keepalive. Its listeners
// go through the same turnstile. Connections on which a session is spoken directly are
// direct's; where it is nil there are none.
func ServerOptions(conf *tls.Config, turnstile *Turnstile, direct TakeDirect) []grpc.ServerOption {
	if direct != nil {
		conf = conf.Clone()
		conf.NextProtos = append(conf.NextProtos, DirectProtocol)
	}
	return []grpc.ServerOption{
		grpc.Creds(&paced{credentials.NewTLS(conf), turnstile, direct}),
		grpc.MaxRecvMsgSize(MaxMessage),
		grpc.MaxSendMsgSize(MaxMessage),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeWait),
		grpc.WaitForHandlers(true), // Stop returns when all that it serves has returned
		// No buffer of its own for an agent that says nothing. Those to write to are
		// shared, but a ping to all takes as many at once as there are agents.
		grpc.ReadBufferSize(0), grpc.WriteBufferSize(serverWrites),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveEvery, Timeout: keepaliveWait}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveEvery / 2, PermitWithoutStream: true}),
	}
}

// Dialer connects to host:port, and gives up when ctx ends. nil is TCP.
type Dialer func(ctx context.Context, address string) (net.Conn, error)

// options are none for TCP, which gRPC dials itself.
func (d Dialer) options() []grpc.DialOption {
	if d == nil {
		return nil
	}
	return []grpc.DialOption{grpc.WithContextDialer(d)}
}

// Dial prepares a connection to a server over TCP; it is made when it is first used.
// No proxy is asked: a server is reached directly or not at all.
func Dial(address string, conf *tls.Config) (*grpc.ClientConn, error) {
	return Dialer(nil).Client(address, conf)
}

// Client is Dial over what d connects.
func (d Dialer) Client(address string, conf *tls.Config) (*grpc.ClientConn, error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, fmt.Errorf("server address %q: want host:port: %w", address, err)
	}
	conn, err := grpc.NewClient("passthrough:///"+address, append(d.options(), grpc.WithTransportCredentials(credentials.NewTLS(conf)),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(idleAfter),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
		grpc.WithReadBufferSize(0),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second}, MinConnectTimeout: connectWait}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveEvery, Timeout: keepaliveWait}))...,
	)
	if err != nil {
		return nil, fmt.Errorf("server %s: %w", address, err)
	}
	return conn, nil
}

// Ready connects, and reports whether the other end took the connection, with a
// certificate that conf of Dial accepts, before ctx ended.
func Ready(ctx context.Context, conn *grpc.ClientConn) bool {
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if state == connectivity.TransientFailure || state == connectivity.Shutdown || !conn.WaitForStateChange(ctx, state) {
			return false
		}
	}
	return true
}
