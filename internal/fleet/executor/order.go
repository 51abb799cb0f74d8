package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"fettle/internal/act/execute"
	"fettle/internal/fettle"
	"fettle/internal/fleet/warrant"
)

// maxBody bounds what an order is about, in bytes: the wire's MaxItem, which an
// approved plan is within.
const maxBody = 3 << 20

const orderHint = "find out who speaks as this host's agent; nothing was done"

// Do implements Hands.
func (e *Executor) Do(ctx context.Context, o Order) (fettle.Outcome, error) {
	d, err := e.dispatch(ctx, warrant.Do, o)
	if err == nil && d.Permit == "" {
		err = e.follows(o)
	}
	if err != nil {
		return e.refused(d, err), nil
	}
	e.freeze.look() // a step starts on what is now
	e.ruling.look()
	return e.ex.Do(ctx, d), nil
}

// Recover implements Hands.
func (e *Executor) Recover(ctx context.Context, o Order) (fettle.Outcome, error) {
	d, err := e.dispatch(ctx, warrant.Recover, o)
	if err != nil {
		return e.refused(d, err), nil
	}
	return e.ex.Recover(ctx, d), nil
}

// Preview implements Hands.
func (e *Executor) Preview(ctx context.Context, o Order) (fettle.Preview, error) {
	if _, err := e.opened(warrant.Preview, o); err != nil {
		return fettle.Preview{}, fettle.Refuse("preview", e.o.Host, orderHint, "%s", err)
	}
	var s fettle.Step
	if err := json.Unmarshal(o.Body, &s); err != nil {
		return fettle.Preview{}, fettle.Refuse("preview", e.o.Host, "this is a defect of the server", "the step cannot be read: %s", err)
	}
	return e.ex.Preview(ctx, s)
}

// dispatch verifies an order and reads what it is about. Its deadline is the signed
// one, on this process's clock. With an error it is whatever could be read.
func (e *Executor) dispatch(_ context.Context, say warrant.Say, o Order) (fettle.Dispatch, error) {
	var d fettle.Dispatch
	var jerr error
	if len(o.Body) <= maxBody {
		if jerr = json.Unmarshal(o.Body, &d); jerr == nil && o.Signed == nil && d.Permit != "" {
			return e.underPermit(d)
		}
	}
	order, err := e.opened(say, o)
	switch {
	case err != nil:
	case jerr != nil:
		err = fmt.Errorf("the dispatch cannot be read: %w", jerr)
	case d.Permit != "":
		err = errors.New("it names a standing permit, and a server signed it: one of the two")
	}
	if err == nil && order != nil {
		made, merr := e.nonces.made(order.Nonce, e.o.Clock.Now())
		if merr != nil {
			return d, merr
		}
		d.Deadline = made.Add(order.Within)
	}
	return d, err
}

// opened verifies an order; nil without an error where it may go without a signature.
func (e *Executor) opened(say warrant.Say, o Order) (*warrant.Order, error) {
	switch {
	case len(o.Body) > maxBody:
		return nil, fmt.Errorf("the order has %d bytes, at most %d are taken", len(o.Body), maxBody)
	case o.Signed == nil && e.o.Unsigned:
		return nil, nil
	case o.Signed == nil:
		return nil, errors.New("no server of the fleet has signed the order (is the server of an older version?)")
	}
	known, err := e.heads.verifier(o.Signed.Certificate)
	if err != nil {
		return nil, fmt.Errorf("who signed the order: %w", err)
	}
	order, err := warrant.OpenOrder(o.Signed.Note, known)
	switch {
	case err != nil:
		return nil, err
	case order.Fleet != e.o.Trust().Fleet:
		return nil, fmt.Errorf("the order is of fleet %s, this host is of %s", order.Fleet, e.o.Trust().Fleet)
	case order.Say != say:
		return nil, fmt.Errorf("the order says %s, and it was handed over to %s", order.Say, say)
	case order.Body != warrant.HashOf(o.Body):
		return nil, errors.New("what came is not what was signed")
	}
	if _, err := e.nonces.made(order.Nonce, e.o.Clock.Now()); err != nil {
		return nil, fmt.Errorf("the order is not from now: %w", err)
	}
	return &order, nil
}

// follows refuses an order that came without the head that a server shows with it, or
// before that server was met: who hands it over may have kept them back.
func (e *Executor) follows(o Order) error {
	if !e.met.Load() && !e.o.Unsigned {
		return errors.New("no server was met since this executor started")
	}
	if o.Log != nil {
		_ = e.heads.follow(*o.Log) // a server whose head is refused is in doubt, and the executor says so of the key
		return nil
	}
	if _, kept := e.ex.Head(); kept && !e.o.Unsigned {
		return errors.New("no head of the server's log came with the order")
	}
	return nil
}

// refused is the outcome of what is not believed. Nothing is said of its key.
func (e *Executor) refused(d fettle.Dispatch, why error) fettle.Outcome {
	e.o.Log.Warn("an order was refused", "key", d.Key, "action", d.Step.Action, "why", why)
	err := fettle.Refuse(d.Step.Action, d.Step.Target, orderHint, "%s", why)
	return fettle.Outcome{Schema: execute.Schema, Key: d.Key, Fate: fettle.UnknownFate, Class: fettle.Refused, Error: err.Error(), Started: e.o.Clock.Now()}
}
