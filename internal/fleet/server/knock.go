package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"fettle/internal/fleet/member"
	"fettle/internal/fleet/wire"
)

// knocksMost is how many hosts are knocked at at once. When more are in doubt the likeliest
// cause is here, and a storm of connections mends nothing.
const knocksMost = 64

// knocks asks kernels whether they are there, by connecting to the port on which the
// host's agent gossips: refused, the kernel lives and the agent is gone; taken, the
// kernel lives. Nothing is said over the connection.
type knocks struct {
	slots chan struct{}
	group *sync.WaitGroup
	dial  func(ctx context.Context, at netip.AddrPort) error
}

func newKnocks(dial wire.Dialer) knocks {
	if dial == nil {
		dial = func(ctx context.Context, at string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", at)
		}
	}
	return knocks{slots: make(chan struct{}, knocksMost), group: &sync.WaitGroup{}, dial: func(ctx context.Context, at netip.AddrPort) error {
		conn, err := dial(ctx, at.String())
		if err != nil {
			return err
		}
		return conn.Close()
	}}
}

// knocking is how far a host has been asked.
type knocking struct {
	busy  bool
	due   time.Time // the next time; zero: at the next alarm
	count int       // one after the other
}

// knockPlan is how often to ask, how long after each other, and how long to wait for an
// answer.
type knockPlan struct {
	asks       int
	pace, wait time.Duration
}

// long is how long all of it takes where nobody answers.
func (p knockPlan) long() time.Duration { return p.wait + time.Duration(p.asks-1)*p.pace }

// start knocks and calls done with what was seen. It does not block; false: there are too
// many at once, and done is not called. It ends when ctx does.
func (k knocks) start(ctx context.Context, at netip.AddrPort, plan knockPlan, done func(member.Saw)) bool {
	select {
	case k.slots <- struct{}{}:
	default:
		return false
	}
	k.group.Go(func() {
		defer func() { <-k.slots }()
		done(k.look(ctx, at, plan))
	})
	return true
}

// wait waits for all that were started.
func (k knocks) wait() { k.group.Wait() }

// look connects again and again until a kernel answers or all was in vain. Each try is a
// connection of its own: one whose first packet is lost tries again only after a second.
func (k knocks) look(ctx context.Context, at netip.AddrPort, plan knockPlan) member.Saw {
	ctx, cancel := context.WithTimeout(ctx, plan.long())
	defer cancel()
	answers := make(chan member.Saw, plan.asks)
	var tries sync.WaitGroup
	defer tries.Wait()
	defer cancel()
	pace := time.NewTicker(max(plan.pace, time.Millisecond))
	defer pace.Stop()
	sent, silent := 0, 0
	try := func() {
		sent++
		tries.Go(func() { answers <- sawOf(k.dial(ctx, at)) })
	}
	try()
	for {
		select {
		case <-pace.C:
			if sent < plan.asks {
				try()
			}
		case saw := <-answers:
			if saw != member.SawSilence {
				return saw
			}
			if silent++; silent >= plan.asks {
				return member.SawSilence
			}
		case <-ctx.Done():
			if !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
				return member.SawNothing // whoever asked has no more interest
			}
			return member.SawSilence
		}
	}
}

// sawOf is what a connection's end says of the host.
func sawOf(err error) member.Saw {
	var timeout net.Error
	switch {
	case err == nil:
		return member.SawAccept
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return member.SawRefusal
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout(),
		errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ETIMEDOUT): // nobody has this address on the last way (arp(7))
		return member.SawSilence
	}
	return member.SawNothing // no route, no descriptor, no more interest: that says something of this machine
}
