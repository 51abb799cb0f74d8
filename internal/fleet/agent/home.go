package agent

import (
	"context"
	"errors"
	"time"

	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
)

const (
	// homeAfter is after what time, at the earliest, an agent that is with another
	// server than the one that it prefers goes there, if that one is there. Twice that
	// at the latest: all the agents of a server that was away come back within minutes,
	// and never all at once.
	homeAfter = 5 * time.Minute
	// homeWait is how long the preferred server may take to take a connection.
	homeWait = 3 * time.Second
)

// errHome ends a session for one with the server that this agent prefers.
var errHome = errors.New("this agent goes to the server that it prefers")

// homeDue is when to look whether the preferred server is there.
func (x *session) homeDue(now time.Time) time.Time {
	return now.Add(x.a.homeAfter + x.a.o.Jitter(x.a.homeAfter))
}

// seekHome ends the session if the agent prefers another server and that one answers
// with a certificate of the fleet.
func (x *session) seekHome() {
	address := x.a.servers.home(x.server)
	if address == "" || !x.a.answers(x.ctx, address) {
		return
	}
	x.cancel(errHome)
}

// answers reports whether a server takes this agent's connection.
func (a *Agent) answers(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, homeWait)
	defer cancel()
	conn, err := a.o.Dial.Client(address, pki.ClientTLS(a.identity.Load, a.o.Machine.Clock.Wall))
	if err != nil {
		return false
	}
	defer conn.Close()
	return wire.Ready(ctx, conn)
}
