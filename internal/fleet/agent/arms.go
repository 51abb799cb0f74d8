package agent

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"fettle/internal/act/armed"
	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/wire"
)

// anew is how long a session goes on after a change that may have cut this machine
// off. The server ends it at once when it hears of the change; one that cannot be
// heard any more is not waited for longer than this.
const anew = 2 * time.Second

var errAnew = errors.New("a change may have cut this machine off; the server is called over a new connection")

// armed asks the executor for the changes that wait to be confirmed.
func (a *Agent) armed(ctx context.Context) (executor.Arming, error) {
	ctx, cancel := context.WithTimeout(ctx, handsWait)
	defer cancel()
	return a.hands.Armed(ctx)
}

// tellArmed tells the server of the changes that are not decided, and of those that
// were taken back.
func (x *session) tellArmed() {
	arming, err := x.a.armed(x.ctx)
	at := x.a.o.Machine.Clock.Now()
	switch {
	case errors.Is(err, executor.ErrAway): // greeted, or pulse, has said so
		return
	case err == nil && !arming.Able:
		return
	case err != nil:
		x.a.o.Log.Error("which changes wait for a confirmation cannot be told; those are taken back", "error", err)
		return
	}
	x.push(func(sent time.Time) *wire.SessionRequest {
		w := &wire.Armed{}
		now := arming.Uptime + sent.Sub(at)
		for _, s := range arming.Changes {
			c := &wire.ArmedChange{Id: s.ID, Key: s.Key, Says: s.Says, Ended: s.Ended, AgeNs: int64(max(0, now-s.At))}
			switch {
			case !s.ThisBoot, s.Trouble != "" && s.Key == "": // its unit takes care
			case s.Decision == armed.Open:
				w.Changes = append(w.Changes, c)
			case s.Decision == armed.Reverting:
				w.Reverted = append(w.Reverted, c)
			}
		}
		return &wire.SessionRequest{What: &wire.SessionRequest_Armed{Armed: w}}
	})
}

// callAnew ends this session if a change was made since it began that only a new
// connection can confirm.
func (x *session) callAnew() {
	arming, err := x.a.armed(x.ctx)
	if err != nil {
		return // tellArmed has said so
	}
	for _, s := range arming.Changes {
		if s.Decision != armed.Open || !s.Ended || s.At < x.since {
			continue
		}
		x.tellArmed()
		x.wg.Go(func() {
			due, stop := x.a.o.Machine.Clock.After(anew)
			defer stop()
			select {
			case <-due:
				x.cancel(errAnew)
			case <-x.ctx.Done():
			}
		})
		return
	}
}

// confirm lets a change stand, as the server says, if this connection began after
// the change.
func (x *session) confirm(id string) {
	ctx, stop := context.WithTimeout(x.ctx, wire.CallTimeout)
	defer stop()
	if x.a.o.Local(ctx, x.server) {
		x.a.o.Log.Error("a change is not confirmed by a server on the same machine: that tells nothing of its network. A person may let it stand, from a new session on this machine: fettle revert --armed "+id+" --keep",
			"change", id)
		return
	}
	if err := x.a.hands.Confirm(ctx, id, x.since); err != nil {
		x.a.o.Log.Error("a change is not confirmed", "change", id, "error", err)
	} else {
		x.a.o.Log.Info("a change stands: the server was reached over a new connection", "change", id)
	}
	x.tellArmed()
}

// onThisMachine reports whether an address, host:port, is one of this machine's. What
// cannot be told counts as if it were: then nothing is confirmed by it.
func onThisMachine(ctx context.Context, address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return true
	}
	ctx, stop := context.WithTimeout(ctx, anew)
	defer stop()
	ips, err := net.DefaultResolver.LookupIP(ctx, "ip", host)
	if err != nil {
		return true
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, ip := range ips {
		if ip.IsLoopback() || ip.IsUnspecified() || slices.ContainsFunc(own, func(a net.Addr) bool {
			n, ok := a.(*net.IPNet)
			return ok && n.IP.Equal(ip)
		}) {
			return true
		}
	}
	return false
}
