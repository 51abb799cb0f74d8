package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
	"fettle/internal/machine"
)

// away stands for the incarnation of an executor that does not answer.
const away = wire.ExecutorAway

// handsWait is how long the executor beside this process may take for what it answers
// from memory.
const handsWait = 5 * time.Second

// soon is a context for such a question.
func (x *session) soon() (context.Context, context.CancelFunc) {
	return context.WithTimeout(x.ctx, handsWait)
}

// actions are all that the adapters' catalogues name; each finds, when it is called,
// who does it.
func (a *Agent) actions() map[string]fettle.Action {
	return executor.Route(a.cats, a.crew.candidates)
}

// own opens the executor in this process.
func (a *Agent) own(ctx context.Context) (*executor.Executor, error) {
	return executor.Open(ctx, executor.Options{
		Host: a.host, StateDir: a.o.StateDir, Trust: func() *pki.Trust { return a.identity.Load().Trust() }, Clock: a.o.Machine.Clock,
		Actions: a.actions(), Catalogues: a.cats, Filesystems: a.o.Machine.Filesystems, ActionsFile: a.o.ActionsFile, Allow: a.o.Allow, Arms: a.o.Arms,
		Commands: a.o.Machine.Commands, RunFile: a.o.RunFile, Name: a.o.Machine.Identity.Hostname, Unsigned: true, OnDurable: a.o.OnDurable, Log: a.o.Log,
	})
}

// greeted asks the executor who it is. One that is away keeps nobody from observing.
func (x *session) greeted() error {
	ctx, cancel := x.soon()
	defer cancel()
	g, err := x.a.hands.Greet(ctx)
	switch {
	case err == nil:
	case x.a.o.Executor == nil: // it is in this process
		return err
	default:
		x.a.o.Log.Error("the executor is away: this machine is observed, and nothing is done", "error", err)
		g = executor.Greeting{Incarnation: away}
	}
	x.greeting, x.executorBelieves = g, g.Believes
	x.a.freeze.heard(g.Pulse)
	return nil
}

// pulse asks the executor for a new nonce, for the next pong, and whether the machine is frozen. It ends
// the session when the executor is not the one that the server was told of.
func (x *session) pulse() {
	ctx, cancel := x.soon()
	defer cancel()
	p, err := x.a.hands.Pulse(ctx)
	switch {
	case x.ctx.Err() != nil:
		return
	case err != nil && x.greeting.Incarnation == away:
		return
	case err != nil:
		x.cancel(fmt.Errorf("the executor of this machine is away: %w", err))
		return
	case x.greeting.Incarnation != p.Incarnation:
		x.cancel(errors.New("the executor of this machine is there anew"))
		return
	}
	before := x.a.freeze.state()
	x.a.freeze.heard(p)
	if x.a.freeze.state() != before {
		x.tellFreeze()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.nonce = p.Nonce
}

// keep hands on what the server said that holds while there is none. An executor that is
// away hears it when it is back: the session begins anew.
func (x *session) keep(w executor.Word) {
	if x.greeting.Incarnation == away {
		return
	}
	ctx, cancel := x.soon()
	defer cancel()
	if err := x.a.hands.Told(ctx, w); err != nil && x.ctx.Err() == nil {
		x.a.o.Log.Error("what the server said is not all kept", "error", err)
	}
}

// handed turns what is wrong with the way to the executor into an outcome. What became
// of the key its journal knows: it is asked when it is back.
func handed(d fettle.Dispatch, out fettle.Outcome, err error) fettle.Outcome {
	if err == nil {
		return out
	}
	o := fettle.Outcome{Schema: 1, Key: d.Key, Fate: fettle.UnknownFate, Class: fettle.NoAnswer, Error: err.Error()}
	if errors.Is(err, executor.ErrAway) {
		o.Class = fettle.Refused
	}
	return o
}

// askingExecutor is filesystems on which the executor tries whether one can write.
type askingExecutor struct {
	machine.Filesystems
	hands executor.Hands
}

// CheckWrite implements machine.Filesystems. An executor that cannot be asked is no
// fact about the filesystem: it is as if we were not allowed to try.
func (f askingExecutor) CheckWrite(ctx context.Context, mountpoint string) error {
	err := f.hands.CheckWrite(ctx, mountpoint)
	if errors.Is(err, executor.ErrAway) || fettle.ClassOf(err) == fettle.Refused {
		return fmt.Errorf("%w: %w", fs.ErrPermission, err)
	}
	return err
}
