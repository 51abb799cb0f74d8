package agent

import (
	"context"
	"errors"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/wire"
)

// recoverWait bounds a question to the external system of what became of a step.
const recoverWait = 30 * time.Second

// take takes one message of the server in. What takes time runs beside it.
func (x *session) take(m *wire.SessionResponse) {
	switch w := m.GetWhat().(type) {
	case *wire.SessionResponse_Dispatch:
		x.follow(w.Dispatch.GetLog())
		x.lookForFreeze() // a step starts on what is now, not on what was a second ago
		x.wg.Go(func() { x.outcome(w.Dispatch.GetId(), w.Dispatch.GetJson(), x.do) })
	case *wire.SessionResponse_Recover:
		x.wg.Go(func() { x.outcome(w.Recover.GetId(), w.Recover.GetJson(), x.recover) })
	case *wire.SessionResponse_Look:
		x.wg.Go(func() { x.look(w.Look) })
	case *wire.SessionResponse_Preview:
		x.wg.Go(func() { x.preview(w.Preview) })
	case *wire.SessionResponse_Freeze:
		x.frozen(w.Freeze)
	case *wire.SessionResponse_Command:
		x.command(w.Command)
	case *wire.SessionResponse_CommandMore:
		x.commandMore(w.CommandMore.GetId())
	case *wire.SessionResponse_CommandCancel:
		x.commandCancel(w.CommandCancel.GetId())
	case *wire.SessionResponse_Ping:
		x.follow(w.Ping.GetLog())
		x.push(func(time.Time) *wire.SessionRequest {
			return &wire.SessionRequest{What: &wire.SessionRequest_Pong{Pong: &wire.Pong{Id: w.Ping.GetId()}}}
		})
	} // what a newer server says besides is passed over
}

// do does a dispatch. When the session ends the step goes on, and its outcome is
// in the journal.
func (x *session) do(d fettle.Dispatch) fettle.Outcome { return x.a.executor.Do(x.ctx, d) }

func (x *session) recover(d fettle.Dispatch) fettle.Outcome {
	ctx, cancel := context.WithTimeout(x.ctx, recoverWait)
	defer cancel()
	return x.a.executor.Recover(ctx, d)
}

// outcome answers a dispatch with what came of it.
func (x *session) outcome(id uint64, data []byte, act func(fettle.Dispatch) fettle.Outcome) {
	d, err := wire.Unpack[fettle.Dispatch](data)
	out := fettle.Outcome{Schema: 1, Key: d.Key, Fate: fettle.UnknownFate, Class: fettle.Refused}
	if err != nil {
		out.Error = "the dispatch cannot be read: " + err.Error()
	} else {
		out = act(d)
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
	step, err := wire.Unpack[fettle.Step](w.GetJson())
	if err == nil {
		var p fettle.Preview
		if p, err = x.a.executor.Preview(ctx, step); err == nil {
			answer.Json, err = wire.Pack(p)
		}
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
