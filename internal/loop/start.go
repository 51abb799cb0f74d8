package loop

import (
	"context"
	"errors"

	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
)

// dispatch makes an Intend into what is sent; false when no agent acts for the
// host.
func (l *Loop) dispatch(d incident.Decision) (fettle.Dispatch, bool) {
	incarnation, ok := l.o.Hands.Incarnation(d.Step.Host)
	if !ok {
		return fettle.Dispatch{}, false
	}
	return fettle.Dispatch{
		Schema: 1, Key: d.Key, Incarnation: incarnation, Token: l.token,
		Deadline: l.o.Clock.Now().Add(d.Step.Timeout + answerMargin),
		Incident: d.Incident, Plan: d.Plan, Step: *d.Step, Undo: d.Undo, Outputs: d.Outputs, Approval: d.Approval,
	}, true
}

// reason is under what a look's context has the key of the decision to look.
type reason struct{}

// Reason returns the key of the decision that Hands.Look was called for: two of them
// may ask for the same looks at the same time, and who keeps an order, as the
// simulator does, must tell them apart.
func Reason(ctx context.Context) string {
	key, _ := ctx.Value(reason{}).(string)
	return key
}

// start begins what a decision asks for and feeds back what comes of it.
func (l *Loop) start(ctx context.Context, d incident.Decision, sends map[string]fettle.Dispatch) {
	switch d.Kind { //exhaustive:enforce
	case incident.Gather, incident.Look:
		l.hands.Go(func() {
			ctx, cancel := context.WithTimeout(context.WithValue(ctx, reason{}, d.Key), d.Within)
			defer cancel()
			l.Feed(incident.Input{Observations: l.o.Hands.Look(ctx, d.Looks), Gathered: d.Key})
		})
	case incident.Intend:
		if dispatch, ok := sends[d.Key]; ok {
			l.hands.Go(func() { l.do(ctx, dispatch) })
		}
	case incident.Recover:
		dispatch, ok := l.sent[d.Key]
		if !ok {
			// The store never had this intent, so it was never sent.
			l.never(d.Key, errors.New("there is no intent for it"))
			return
		}
		dispatch.Token = l.token
		l.hands.Go(func() { l.recover(ctx, dispatch) })
	case incident.Save, incident.Call:
	}
}

func (l *Loop) do(ctx context.Context, d fettle.Dispatch) {
	ctx, cancel := context.WithTimeout(ctx, d.Step.Timeout+2*answerMargin)
	defer cancel()
	out, err := l.o.Hands.Do(ctx, d)
	l.Feed(incident.Input{Outcome: answered(d.Key, out, err)})
}

func (l *Loop) recover(ctx context.Context, d fettle.Dispatch) {
	ctx, cancel := context.WithTimeout(ctx, 2*answerMargin)
	defer cancel()
	out, err := l.o.Hands.Recover(ctx, d)
	if errors.Is(err, ErrNoContact) {
		err = errors.New("no contact")
	}
	l.Feed(incident.Input{Outcome: answered(d.Key, out, err)})
}

// answered turns a missing answer into an outcome that says so.
func answered(key string, out fettle.Outcome, err error) *fettle.Outcome {
	switch {
	case errors.Is(err, ErrNoContact):
		return &fettle.Outcome{Schema: 1, Key: key, Fate: fettle.NeverWillBe, Error: err.Error()}
	case err != nil:
		return &fettle.Outcome{Schema: 1, Key: key, Fate: fettle.UnknownFate, Error: err.Error()}
	}
	out.Key = key
	return &out
}
