package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/member"
	"fettle/internal/judge/world"
)

// TestKnock: what a kernel does with a connection, on real sockets.
func TestKnock(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(l.Addr().String())
	plan := knockPlan{asks: 3, pace: 10 * time.Millisecond, wait: 10 * time.Second}
	k := newKnocks(nil)
	if got := k.look(t.Context(), at, plan); got != member.SawAccept { // nobody accepts: the kernel does
		t.Errorf("a port that listens: %v", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := k.look(t.Context(), at, plan); got != member.SawRefusal {
		t.Errorf("a port that does not: %v", got)
	}
}

// TestKnockAgain: one connection that is lost decides nothing, and what is wrong on this
// side says nothing of the host.
func TestKnockAgain(t *testing.T) {
	plan := knockPlan{asks: 4, pace: time.Millisecond, wait: 20 * time.Millisecond}
	dials := func(f func(ctx context.Context, n int32) error) knocks {
		k := newKnocks(nil)
		var n atomic.Int32
		k.dial = func(ctx context.Context, _ netip.AddrPort) error { return f(ctx, n.Add(1)) }
		return k
	}
	silent := func(ctx context.Context, _ int32) error {
		<-ctx.Done()
		return os.NewSyscallError("connect", context.Cause(ctx))
	}
	if got := dials(silent).look(t.Context(), netip.AddrPort{}, plan); got != member.SawSilence {
		t.Errorf("nothing comes back: %v", got)
	}
	third := dials(func(ctx context.Context, n int32) error {
		if n == 3 {
			return syscall.ECONNREFUSED
		}
		return silent(ctx, n)
	})
	if got := third.look(t.Context(), netip.AddrPort{}, knockPlan{asks: 4, pace: time.Millisecond, wait: 10 * time.Second}); got != member.SawRefusal {
		t.Errorf("the third is refused: %v", got)
	}
	for _, own := range []error{syscall.EMFILE, syscall.ENETUNREACH, errors.New("something")} {
		if got := dials(func(context.Context, int32) error { return own }).look(t.Context(), netip.AddrPort{}, plan); got != member.SawNothing {
			t.Errorf("%v: %v", own, got)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := dials(silent).look(ctx, netip.AddrPort{}, plan); got != member.SawNothing {
		t.Errorf("nobody waits for it any more: %v", got)
	}
}

// TestServicesElsewhere: what others see of what runs on a host, whatever that is; its
// own word, and that of one that could not look, are none.
func TestServicesElsewhere(t *testing.T) {
	host, thing := fettle.HostSubject("a"), fettle.NewSubject("thing", "c", "m")
	w := world.New()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	edge := []fettle.Edge{{From: thing, Rel: fettle.RunsOn, To: host}}
	see := func(by string, reason fettle.Reason) {
		w.Observe(fettle.Observation{Subject: thing, Host: fettle.HostSubject(by), Probe: "x.thing", Asked: now, Reason: reason, Edges: edge})
	}
	see("a", "")
	see("b", "")
	see("c", fettle.Unreachable)
	see("d", fettle.PermissionDenied)
	got := elsewhere(w, host)
	if len(got) != 2 || got[serviceKey{string(thing), "b"}].Reason != "" || got[serviceKey{string(thing), "c"}].Reason != fettle.Unreachable {
		t.Errorf("seen: %v", got)
	}
}
