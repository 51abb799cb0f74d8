package agent

import (
	"context"
	"errors"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/wire"
)

// recoverWait bounds a question to the external system of what became of a step.
const recoverWait = 30 * time.Second

// take takes one message of the server in. What takes time runs beside it.
func (x *session) take(m *wire.SessionResponse) {
	switch w := m.GetWhat().(type) {
	case *wire.SessionResponse_Dispatch:
		x.follow(w.Dispatch.GetLog())
		x.wg.Go(func() { x.outcome(w.Dispatch.GetId(), x.order(w.Dispatch, w.Dispatch.GetLog()), x.do) })
	case *wire.SessionResponse_Recover:
		x.wg.Go(func() { x.outcome(w.Recover.GetId(), x.order(w.Recover, nil), x.recover) })
	case *wire.SessionResponse_Look:
		x.wg.Go(func() { x.look(w.Look) })
	case *wire.SessionResponse_Preview:
		x.wg.Go(func() { x.preview(w.Preview) })
	case *wire.SessionResponse_Freeze:
		x.frozen(w.Freeze)
	case *wire.SessionResponse_Maintenance:
		x.maintenance(w.Maintenance)
	case *wire.SessionResponse_Command:
		x.command(w.Command)
	case *wire.SessionResponse_Ring:
		x.a.gossip.told(x, w.Ring)
	case *wire.SessionResponse_CommandMore:
		x.commandMore(w.CommandMore.GetId())
	case *wire.SessionResponse_CommandCancel:
		x.commandCancel(w.CommandCancel.GetId())
	case *wire.SessionResponse_Confirm:
		x.wg.Go(func() { x.confirm(w.Confirm.GetId()) })
	case *wire.SessionResponse_Permit:
		x.permitted(w.Permit)
	case *wire.SessionResponse_Authorities:
		x.wg.Go(func() { x.believe(w.Authorities.GetWords()) })
	case *wire.SessionResponse_StoryTaken:
		x.takenStory(w.StoryTaken)
	case *wire.SessionResponse_Ping:
		x.follow(w.Ping.GetLog())
		x.wg.Go(x.pulse)
		x.mu.Lock()
		nonce := x.nonce
		x.mu.Unlock()
		x.push(func(time.Time) *wire.SessionRequest {
			return &wire.SessionRequest{What: &wire.SessionRequest_Pong{Pong: &wire.Pong{Id: w.Ping.GetId(), Nonce: nonce}}}
		})
	} // what a newer server says besides is passed over
}

// do does a dispatch, once what this host began alone has come to its end.
func (x *session) do(ctx context.Context, o executor.Order) (fettle.Outcome, error) {
	x.a.solo.idle(ctx)
	return x.a.hands.Do(ctx, o)
}

// order is a message for the executor, as it came.
func (x *session) order(m interface {
	GetJson() []byte
	GetOrder() *wire.SignedOrder
}, head *wire.SignedHead) executor.Order {
	o := executor.Order{Body: m.GetJson(), Signed: signed(m.GetOrder())}
	if !x.a.unbound {
		o.Log = signed(head)
	}
	return o
}

func (x *session) recover(ctx context.Context, o executor.Order) (fettle.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, recoverWait)
	defer cancel()
	return x.a.hands.Recover(ctx, o)
}

// outcome answers a dispatch with what came of it. When the session ends the step goes
// on, and its outcome is in the executor's journal.
func (x *session) outcome(id uint64, o executor.Order, act func(context.Context, executor.Order) (fettle.Outcome, error)) {
	d, err := wire.Unpack[fettle.Dispatch](o.Body)
	out := fettle.Outcome{Schema: 1, Key: d.Key, Fate: fettle.UnknownFate, Class: fettle.Refused}
	switch {
	case err != nil:
		out.Error = "the dispatch cannot be read: " + err.Error()
	case d.Permit != "": // that is this host's own way, where there is no server
		out.Error = fettle.Refuse(d.Step.Action, d.Step.Target, "this is a defect of the server", "a server orders by its token, not by a standing permit").Error()
	case d.Incarnation == away: // no executor ever does it: it is for none
		out.Fate = fettle.NeverWillBe
		out.Error = fettle.Refuse(d.Step.Action, d.Step.Target, "start fettle-executor.service on the host", "the executor of this host did not answer").Error()
	default:
		out, err = act(x.ctx, o)
		out = handed(d, out, err)
	}
	if x.ctx.Err() != nil {
		return
	}
	answer, err := wire.Pack(out)
	if err != nil { // what it produced is too large to be told; that it was done is not
		out.Result = fettle.Result{Notes: []string{"its result cannot be told: " + err.Error()}}
		answer, _ = wire.Pack(out)
	}
	x.push(func(time.Time) *wire.SessionRequest {
		return &wire.SessionRequest{What: &wire.SessionRequest_Outcome{Outcome: &wire.Outcome{Id: id, Json: answer}}}
	})
	x.callAnew()
}

// look answers a look with what was observed.
func (x *session) look(w *wire.Look) {
	ctx, cancel := context.WithTimeout(x.ctx, within(w.GetWithinNs()))
	defer cancel()
	var looks []fettle.Look
	for _, data := range w.GetJson() {
		if l, err := wire.Unpack[fettle.Look](data); err == nil { // one that cannot be read is one that nobody can make
			looks = append(looks, l)
		}
	}
	seen := x.a.crew.look(ctx, looks)
	for {
		part, size := seen[:0:0], 0
		for len(seen) > 0 && size < wire.Chunk {
			size += len(packed(seen[0], seen[0].Asked).GetJson())
			part, seen = append(part, seen[0]), seen[1:]
		}
		done := len(seen) == 0
		x.pushLooked(func(now time.Time) *wire.SessionRequest {
			answer := &wire.LookAnswer{Id: w.GetId(), Done: done}
			for _, o := range part {
				answer.Observations = append(answer.Observations, packed(o, now))
			}
			return &wire.SessionRequest{What: &wire.SessionRequest_LookAnswer{LookAnswer: answer}}
		})
		if done {
			return
		}
	}
}

// preview answers with what a step would do.
func (x *session) preview(w *wire.Preview) {
	ctx, cancel := context.WithTimeout(x.ctx, within(w.GetWithinNs()))
	defer cancel()
	answer := &wire.PreviewAnswer{Id: w.GetId()}
	p, err := x.a.hands.Preview(ctx, x.order(w, nil))
	if err == nil {
		answer.Json, err = wire.Pack(p)
	}
	if err != nil {
		answer.Error, answer.Class = err.Error(), string(fettle.ClassOf(err))
		var e *fettle.Error
		if errors.As(err, &e) && e.Err != nil {
			answer.Error, answer.Hint = e.Err.Error(), e.Hint
		}
	}
	x.push(func(time.Time) *wire.SessionRequest {
		return &wire.SessionRequest{What: &wire.SessionRequest_PreviewAnswer{PreviewAnswer: answer}}
	})
}

// within is how long a request may take; a server that names nothing gets what
// every call gets.
func within(ns int64) time.Duration {
	if ns <= 0 {
		return wire.CallTimeout
	}
	return time.Duration(ns)
}
