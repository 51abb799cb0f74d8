package wire

import (
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
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
)

// CallTimeout bounds every call that is no stream, where the caller names no
// deadline of its own.
const CallTimeout = 10 * time.Second

// maxStreams is how many calls one connection may have open: a session, and a
// person's commands and watches.
const maxStreams = 64

// ServerOptions are how a server serves: mutual TLS, limits, keepalive.
func ServerOptions(conf *tls.Config) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(credentials.NewTLS(conf)),
		grpc.MaxRecvMsgSize(MaxMessage),
		grpc.MaxSendMsgSize(MaxMessage),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeWait),
		grpc.WaitForHandlers(true), // Stop returns when all that it serves has returned
		grpc.ReadBufferSize(0),     // an idle agent costs 52 KB instead of 68
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveEvery, Timeout: keepaliveWait}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveEvery / 2, PermitWithoutStream: true}),
	}
}

// Dial prepares a connection to a server; it is made when it is first used. No
// proxy is asked: a server is reached directly or not at all.
func Dial(address string, conf *tls.Config) (*grpc.ClientConn, error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, fmt.Errorf("server address %q: want host:port: %w", address, err)
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(conf)),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
		grpc.WithReadBufferSize(0),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second}, MinConnectTimeout: connectWait}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveEvery, Timeout: keepaliveWait}),
	)
	if err != nil {
		return nil, fmt.Errorf("server %s: %w", address, err)
	}
	return conn, nil
}
