package loop

import (
	"context"

	"fettle/internal/act/execute"
	"fettle/internal/act/probe"
	"fettle/internal/fettle"
)

// Local is Hands on the machine that the loop itself runs on, without a network
// between them: doctor and repair. A zero Executor refuses to act.
type Local struct {
	Runner   *probe.Runner
	Executor *execute.Executor // nil: nothing is ever done
	Host     fettle.Subject
}

// Look implements Hands.
func (l Local) Look(ctx context.Context, looks []fettle.Look) []fettle.Observation {
	return l.Runner.Look(ctx, looks)
}

// Do implements Hands.
func (l Local) Do(ctx context.Context, d fettle.Dispatch) (fettle.Outcome, error) {
	if l.Executor == nil {
		return fettle.Outcome{}, ErrNoContact
	}
	return l.Executor.Do(ctx, d), nil
}

// Recover implements Hands.
func (l Local) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Outcome, error) {
	if l.Executor == nil {
		return fettle.Outcome{}, ErrNoContact
	}
	return l.Executor.Recover(ctx, d), nil
}

// Preview implements Hands.
func (l Local) Preview(ctx context.Context, s fettle.Step) (fettle.Preview, error) {
	if l.Executor == nil {
		return fettle.Preview{}, ErrNoContact
	}
	return l.Executor.Preview(ctx, s)
}

// Incarnation implements Hands.
func (l Local) Incarnation(host fettle.Subject) (string, bool) {
	if l.Executor == nil || host != l.Host {
		return "", false
	}
	return l.Executor.Incarnation(), true
}
