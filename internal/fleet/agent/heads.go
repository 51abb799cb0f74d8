package agent

import (
	"context"
	"sync"
	"time"

	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/warrant"
	"fettle/internal/fleet/wire"
)

// wireHead is the head of the server's log that the executor keeps, for the hello; nil
// where it keeps none.
func wireHead(h *executor.Head) *wire.LogHead {
	if h == nil {
		return nil
	}
	return &wire.LogHead{Epoch: h.Epoch, Entries: h.Entries, Hash: h.Hash}
}

// signed is a note of the wire, nil where there is none.
func signed(m interface {
	GetNote() []byte
	GetCertificate() []byte
}) *warrant.Signed {
	if len(m.GetNote()) == 0 {
		return nil
	}
	return &warrant.Signed{Note: m.GetNote(), Certificate: m.GetCertificate()}
}

// meet has the executor hold the server of a new session to the last head that it
// keeps. What is wrong with it ends no session: the machine is still observed, and what
// is observed is told; only nothing is done.
func (x *session) meet(asked *executor.Head, w *wire.Welcome) error {
	if x.a.unbound || x.greeting.Incarnation == away {
		return nil
	}
	ctx, cancel := x.soon()
	defer cancel()
	why, err := x.a.hands.Meet(ctx, executor.Introduction{Asked: asked, Log: signed(w.GetLog()), Charter: signed(w.GetEpoch())})
	if err == nil {
		x.follows(0, why)
	}
	return err
}

// shows is an executor in another process: what is shown to it arrives in order, and
// need not be waited for.
type shows interface {
	Show(ctx context.Context, head warrant.Signed) (wait func() (string, error))
}

// follow shows the executor a later head of the session, where a message has one. It
// is called in the order of the messages; what is handed to the executor from then on
// comes to it after the head.
func (x *session) follow(head *wire.SignedHead) {
	s := signed(head)
	if x.a.unbound || s == nil || x.greeting.Incarnation == away {
		return
	}
	x.heads++
	n := x.heads
	ctx, cancel := x.soon()
	followed := func(why string, err error) {
		cancel()
		if err != nil {
			x.cancel(err) // the next session begins with another executor, or without
			return
		}
		x.follows(n, why)
	}
	if far, ok := x.a.hands.(shows); ok {
		wait := far.Show(ctx, *s)
		x.wg.Go(func() { followed(wait()) })
		return
	}
	followed(x.a.hands.Follow(ctx, *s))
}

// refusal is why this server is not obeyed, as the last head that was answered for says.
type refusal struct {
	mu  sync.Mutex
	of  uint64 // the number of that head
	why string
}

func (r *refusal) now() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.why
}

// follows tells the server, and once the log, that this agent takes its steps ("") or
// why not, as its head of this number says.
func (x *session) follows(of uint64, why string) {
	x.refuses.mu.Lock()
	defer x.refuses.mu.Unlock()
	if of < x.refuses.of { // a later one was answered for already
		return
	}
	x.refuses.of = of
	if why != x.refuses.why {
		x.refuses.why = why
		x.push(func(time.Time) *wire.SessionRequest {
			return &wire.SessionRequest{What: &wire.SessionRequest_LogState{LogState: &wire.LogState{Refused: why}}}
		})
	}
	if why == x.a.refuses {
		return
	}
	x.a.refuses = why
	if why != "" {
		x.a.o.Log.Error("this server is not obeyed: the machine is observed, and nothing is done", "server", x.server, "why", why)
		return
	}
	x.a.o.Log.Info("the server shows the log of decisions that this agent has seen: it is obeyed again", "server", x.server)
}
