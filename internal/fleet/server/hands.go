package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/warrant"
	"fettle/internal/fleet/wire"
	"fettle/internal/loop"
)

var _ loop.Hands = (*Server)(nil)

// errGone is the error of those who wait for an answer of a session that ends.
var errGone = errors.New("the connection to the agent ended before it answered")

// request sends a message and returns where its answers come, and how to stop
// waiting. The message is given the request's number.
func (x *session) request(message func(id uint64) *wire.SessionResponse) (<-chan answer, func()) {
	ch := make(chan answer, maxParts)
	x.mu.Lock()
	x.next++
	id := x.next
	x.waiting[id] = ch
	x.mu.Unlock()
	x.push(message(id))
	return ch, func() {
		x.mu.Lock()
		delete(x.waiting, id)
		x.mu.Unlock()
	}
}

// deliver hands an answer to who waits for it, if anybody still does.
func (x *session) deliver(id uint64, a answer) {
	x.mu.Lock()
	defer x.mu.Unlock()
	ch, ok := x.waiting[id]
	if !ok {
		return
	}
	select {
	case ch <- a:
	default: // more parts than any answer has: a defect of the agent
		x.cancel(fmt.Errorf("too many answers to request %d", id))
	}
}

// maxParts is how many messages one answer may have.
const maxParts = 64

// await returns the one answer of a request.
func (x *session) await(ctx context.Context, ch <-chan answer) (answer, error) {
	select {
	case a := <-ch:
		return a, nil
	case <-ctx.Done():
		return answer{}, fmt.Errorf("the agent did not answer in time: %w", ctx.Err())
	case <-x.done:
		return answer{}, errGone
	}
}

// contact returns the session of a host.
func (s *Server) contact(host fettle.Subject) (*session, error) {
	h := s.find(host)
	if h == nil {
		return nil, fmt.Errorf("%s: %w (it has not joined the fleet)", host, loop.ErrNoContact)
	}
	x := h.current()
	if x == nil {
		return nil, fmt.Errorf("%s: %w (see `fettle hosts`)", host, loop.ErrNoContact)
	}
	return x, nil
}

const (
	// comebackMost is how long a host's agent is waited for at most, by who has just begun
	// to lead; half of what a question to it may take.
	comebackMost = 2 * time.Second
	// comebackEvery is how often it is looked meanwhile.
	comebackEvery = 20 * time.Millisecond
)

// comeback returns the session of a host, and waits for it while agents still come to
// who has just begun to lead: what became of a step is asked at once then, and its
// agent is a moment behind.
func (s *Server) comeback(ctx context.Context, host fettle.Subject) (*session, error) {
	for until := s.o.Clock.Now().Add(comebackMost); ; {
		x, err := s.contact(host)
		if err == nil || !s.gathering() || s.o.Clock.Now().After(until) || !pass(ctx, s.o.Clock, comebackEvery, nil) {
			return x, err
		}
	}
}

// Incarnation implements loop.Hands.
func (s *Server) Incarnation(host fettle.Subject) (string, bool) {
	x, err := s.contact(host)
	if err != nil {
		return "", false
	}
	return x.about.executor, true
}

// Do implements loop.Hands. The deadline of d is on the server's clock.
func (s *Server) Do(ctx context.Context, d fettle.Dispatch) (fettle.Outcome, error) {
	x, err := s.contact(d.Step.Host)
	if err != nil {
		return fettle.Outcome{}, err
	}
	if x.about.executor != d.Incarnation {
		return fettle.Outcome{}, fmt.Errorf("%s: %w of this incarnation (the agent started anew; plan again)", d.Step.Host, loop.ErrNoContact)
	}
	return s.exchange(ctx, x, d, warrant.Do, func(id uint64, data []byte, order *wire.SignedOrder) *wire.SessionResponse {
		return &wire.SessionResponse{What: &wire.SessionResponse_Dispatch{Dispatch: &wire.Dispatch{Id: id, Json: data, Order: order}}}
	})
}

// Recover implements loop.Hands.
func (s *Server) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Outcome, error) {
	x, err := s.comeback(ctx, d.Step.Host)
	if err != nil {
		return fettle.Outcome{}, err
	}
	d.Approval = nil // what was begun needs none to be asked about
	return s.exchange(ctx, x, d, warrant.Recover, func(id uint64, data []byte, order *wire.SignedOrder) *wire.SessionResponse {
		return &wire.SessionResponse{What: &wire.SessionResponse_Recover{Recover: &wire.Recover{Id: id, Json: data, Order: order}}}
	})
}

// exchange sends a dispatch and waits for its outcome.
func (s *Server) exchange(ctx context.Context, x *session, d fettle.Dispatch, say warrant.Say, message func(uint64, []byte, *wire.SignedOrder) *wire.SessionResponse) (fettle.Outcome, error) {
	until := d.Deadline
	if say == warrant.Recover { // the deadline is that of the step; a question has its own
		until = s.o.Clock.Now().Add(s.left(ctx))
	}
	x.host.mu.Lock()
	d.Deadline = x.clocks.Theirs(d.Deadline)
	x.host.mu.Unlock()
	data, err := wire.Pack(d)
	var order *wire.SignedOrder
	if err == nil {
		order, err = x.order(say, data, until)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fettle.Outcome{}, fmt.Errorf("%s: nothing was sent: %w: %w", d.Key, loop.ErrNoContact, err)
	}
	ch, stop := x.request(func(id uint64) *wire.SessionResponse { return message(id, data, order) })
	defer stop()
	a, err := x.await(ctx, ch)
	if err != nil {
		return fettle.Outcome{}, fmt.Errorf("%s: %w", d.Key, err)
	}
	out, err := wire.Unpack[fettle.Outcome](a.message.GetOutcome().GetJson())
	if err != nil {
		return fettle.Outcome{}, fmt.Errorf("%s: the agent's answer: %w", d.Key, err)
	}
	if out.Key != d.Key {
		return fettle.Outcome{}, fmt.Errorf("%s: the agent answered for %q (a defect of the agent)", d.Key, out.Key)
	}
	x.host.mu.Lock()
	out.Started = x.clocks.Shift(out.Started)
	x.host.mu.Unlock()
	return out, nil
}

// Preview implements loop.Hands.
func (s *Server) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	x, err := s.contact(step.Host)
	if err != nil {
		return fettle.Preview{}, err
	}
	data, err := wire.Pack(step)
	if err != nil {
		return fettle.Preview{}, err
	}
	order, err := x.order(warrant.Preview, data, s.o.Clock.Now().Add(s.left(ctx)))
	if err != nil {
		return fettle.Preview{}, err
	}
	ch, stop := x.request(func(id uint64) *wire.SessionResponse {
		return &wire.SessionResponse{What: &wire.SessionResponse_Preview{Preview: &wire.Preview{Id: id, Json: data, WithinNs: int64(s.left(ctx)), Order: order}}}
	})
	defer stop()
	a, err := x.await(ctx, ch)
	if err != nil {
		return fettle.Preview{}, fmt.Errorf("preview of %s on %s: %w", step.Action, step.Target, err)
	}
	p := a.message.GetPreviewAnswer()
	if p.GetError() != "" {
		return fettle.Preview{}, &fettle.Error{Op: step.Action, Subject: step.Target, Class: fettle.Class(p.GetClass()), Err: errors.New(p.GetError()), Hint: p.GetHint()}
	}
	return wire.Unpack[fettle.Preview](p.GetJson())
}

// left is how long the agent may take for what ctx bounds.
func (s *Server) left(ctx context.Context) time.Duration {
	if at, has := ctx.Deadline(); has {
		return max(0, time.Until(at))
	}
	return wire.CallTimeout
}
