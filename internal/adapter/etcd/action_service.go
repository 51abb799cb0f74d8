package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// start is etcd.start.
type start struct{ *cluster }

const opStart = "etcd.start"

// mayStart is the last word before a server process is started: what it would
// start from must be its own. The judge asked the same of older facts.
func (in *instance) mayStart(ctx context.Context, op string) (localState, error) {
	s, err := in.look(ctx)
	if err != nil {
		return s, fettle.Refuse(op, in.member, "the service manager must answer", "%w", err)
	}
	refuse := func(hint, format string, args ...any) (localState, error) {
		return s, fettle.Refuse(op, in.member, hint, format, args...)
	}
	switch {
	case s.unit.LoadState == "masked":
		return refuse("somebody decided that it must not run; unmask it by hand", "%s is masked", in.config.Unit)
	case s.unit.LoadState == "not-found":
		return refuse("is the unit's name right in the adapter's configuration?", "there is no unit %s", in.config.Unit)
	case serves(s.unit), s.logState == logWhole:
		return s, nil
	case s.logState == logMissing && s.standing == standsUnstarted && s.logLost == fettle.No:
		settings, err := in.settings(ctx)
		if err != nil || settings.state() != "existing" {
			return refuse("run etcd.configure first", "it was added and has never joined, and its settings do not say INITIAL_CLUSTER_STATE=existing")
		}
		return s, nil
	case s.logState == logMissing && s.standing == "":
		return refuse("it is tried again when a member answers", "its log is missing, and no member can say whether it ever voted")
	case s.logState == logMissing:
		return refuse("replace it: remove it, add it anew, then start it", "its log is missing and the cluster lists it as a %s: started now it could vote again on what it has forgotten", s.standing)
	}
	return refuse("replace it: remove it, set its data aside, add it anew", "its data is %s: %s", s.logState, s.data.Damage)
}

// Preview implements fettle.Action.
func (a start) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	in, err := a.here(opStart, step.Target)
	if err != nil {
		return fettle.Preview{}, err
	}
	s, err := in.mayStart(ctx, opStart)
	if err != nil {
		return fettle.Preview{}, err
	}
	if serves(s.unit) {
		return would("nothing: %s runs already", in.config.Unit), nil
	}
	return would("start %s; its log in %s is %s, the cluster calls it %s", in.config.Unit, in.config.DataDir, s.logState, orUnknown(s.standing)), nil
}

func orUnknown(s string) string {
	if s == "" {
		return "nothing (no member answers)"
	}
	return s
}

const (
	// startWait is how long a start job is waited for. A member without a quorum
	// is ready only when the others are: the job goes on, and what is expected of
	// it is observed.
	startWait = 30 * time.Second
	// nudgeEvery: a learner that joins an idle cluster becomes ready only when a
	// new entry comes (seen with 3.7.3 and more than 5000 entries).
	nudgeEvery = 500 * time.Millisecond
)

// Apply implements fettle.Action.
func (a start) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	in, err := a.here(opStart, d.Step.Target)
	if err != nil {
		return fettle.Result{}, err
	}
	s, err := in.mayStart(ctx, opStart)
	if err != nil {
		return fettle.Result{}, err
	}
	if serves(s.unit) {
		return started(s.unit, "it runs already"), nil
	}
	note, err := in.bringUp(ctx, opStart)
	if err != nil {
		return fettle.Result{}, err
	}
	if s.standing == standsUnstarted || s.standing == standsLearner {
		in.awaitLearner(ctx)
	}
	u, err := in.m.Services.Unit(ctx, in.config.Unit)
	if err != nil {
		return fettle.Result{}, classOr(opStart, in.member, err)
	}
	return started(u, note), nil
}

func started(u machine.Unit, note string) fettle.Result {
	return fettle.Result{Outputs: fettle.Facts{"invocation_id": u.InvocationID}, Notes: []string{note}}
}

// bringUp issues the start job and waits for its end, or for startWait.
func (in *instance) bringUp(ctx context.Context, op string) (note string, err error) {
	wait, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	type ended struct {
		r   machine.JobResult
		err error
	}
	job := make(chan ended, 1)
	go func() {
		r, err := in.m.Services.Start(wait, in.config.Unit)
		job <- ended{r, err}
	}()
	for {
		over, stop := in.m.Clock.After(nudgeEvery)
		select {
		case e := <-job:
			stop()
			switch {
			case errors.Is(e.err, context.DeadlineExceeded) && ctx.Err() == nil:
				return fmt.Sprintf("%s was started and is not ready after %v", in.config.Unit, startWait), nil
			case e.err != nil:
				return "", classOr(op, in.member, e.err)
			case e.r.Result != "done":
				return "", broken(op, in.member, fmt.Errorf("the start of %s ended as %q", in.config.Unit, e.r.Result), "its log says why: journalctl -u "+in.config.Unit)
			}
			return in.config.Unit + " was started", nil
		case <-over:
			// Best effort: where there is no leader there is nothing to nudge.
			_ = in.cluster.propose(wait)
		}
	}
}

// awaitLearner gives a learner the entries that it may need to become ready, until
// it answers, for at most startWait. That it answers is observed elsewhere.
func (in *instance) awaitLearner(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for {
		if v, ok := in.cluster.look(ctx).of(in.member); ok && v.status != nil {
			return
		}
		// Best effort: where there is no leader there is nothing to nudge.
		_ = in.cluster.propose(ctx)
		if !in.cluster.pause(ctx, nudgeEvery/5) {
			return
		}
	}
}

// Recover implements fettle.Action. A start that the manager was asked for is a
// job, runs, or has ended; one that it does not know of was never asked for.
func (a start) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	in, err := a.here(opStart, d.Step.Target)
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, err
	}
	u, err := in.m.Services.Unit(ctx, in.config.Unit)
	if err != nil {
		return fettle.UnknownFate, fettle.Result{}, classOr(opStart, in.member, err)
	}
	up := serves(u)
	if d.Undo {
		up = !up && u.MainPID == 0
	}
	switch {
	case u.Job != "" || u.ActiveState == "activating" || u.ActiveState == "deactivating":
		return fettle.Running, fettle.Result{}, nil
	case up:
		return fettle.Done, started(u, "the service manager says that it is done"), nil
	}
	return fettle.NeverWillBe, fettle.Result{}, nil
}

// Undo implements fettle.Action.
func (a start) Undo(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	return stop{a.cluster}.Apply(ctx, d)
}

// stop is etcd.stop.
type stop struct{ *cluster }

const opStop = "etcd.stop"

// Preview implements fettle.Action.
func (a stop) Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error) {
	in, err := a.here(opStop, step.Target)
	if err != nil {
		return fettle.Preview{}, err
	}
	u, err := in.m.Services.Unit(ctx, in.config.Unit)
	if err != nil {
		return fettle.Preview{}, classOr(opStop, in.member, err)
	}
	if u.ActiveState == "inactive" || u.ActiveState == "failed" {
		return would("nothing: %s does not run (%s)", in.config.Unit, u.ActiveState), nil
	}
	return would("stop %s (main process %d); the member's vote is missing until it runs again", in.config.Unit, u.MainPID), nil
}

// Apply implements fettle.Action.
func (a stop) Apply(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	in, err := a.here(opStop, d.Step.Target)
	if err != nil {
		return fettle.Result{}, err
	}
	r, err := in.m.Services.Stop(ctx, in.config.Unit)
	if err != nil {
		return fettle.Result{}, classOr(opStop, in.member, err)
	}
	if r.Result != "done" {
		return fettle.Result{}, broken(opStop, in.member, fmt.Errorf("the stop of %s ended as %q", in.config.Unit, r.Result), "its log says why: journalctl -u "+in.config.Unit)
	}
	return noted("%s was stopped", in.config.Unit), nil
}

// Recover implements fettle.Action.
func (a stop) Recover(ctx context.Context, d fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	d.Undo = !d.Undo
	return start(a).Recover(ctx, d)
}

// Undo implements fettle.Action.
func (a stop) Undo(ctx context.Context, d fettle.Dispatch) (fettle.Result, error) {
	return start(a).Apply(ctx, d)
}
