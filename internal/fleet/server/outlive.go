package server

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"google.golang.org/grpc/connectivity"

	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
)

const (
	// outliveEvery is how often another server is called while it cannot be told whether
	// it is gone. A connection that ends is seen at once.
	outliveEvery = 50 * time.Millisecond
	// outliveWait bounds a call to it: a machine that is gone refuses nothing.
	outliveWait = time.Second
)

// Outlives blocks until the process of another server, which this one was connected to,
// has ended: its connection was closed, and its machine says that nobody listens there.
// Then it returns true. False: ctx ended before that could be told. A machine that is
// switched off or cut off says nothing.
func (s *Server) Outlives(ctx context.Context, address string) bool {
	conn, err := wire.Dial(address, pki.ClientTLS(s.identity.Load, s.o.Clock.Wall))
	if err != nil {
		s.o.Log.Error("the server that leads cannot be watched", "address", address, "error", err)
		return false
	}
	defer conn.Close()
	for was := false; ctx.Err() == nil; {
		if wire.Ready(ctx, conn) {
			if !was {
				was = true
				s.o.Log.Debug("the server that leads is watched", "address", address)
			}
			conn.WaitForStateChange(ctx, connectivity.Ready)
		}
		if was && ctx.Err() == nil && refused(ctx, address) {
			return true
		}
		pass(ctx, s.o.Clock, outliveEvery, nil)
	}
	return false
}

// refused reports whether a machine answers, and says that nobody listens there.
func refused(ctx context.Context, address string) bool {
	conn, err := (&net.Dialer{Timeout: outliveWait}).DialContext(ctx, "tcp", address)
	if err == nil {
		_ = conn.Close() // nothing was said
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
