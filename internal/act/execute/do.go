package execute

import (
	"context"
	"fmt"

	"fettle/internal/act/journal"
	"fettle/internal/fettle"
)

// Do does a dispatch, once, and returns its outcome. It blocks until the step
// ends or ctx does; then it answers Running and the step goes on.
//
// Checks, each a refusal that touches nothing: schema; the server's log (Meet);
// fleet and token, or the standing permit that stands for both; incarnation; host; then, of a key that was begun here before, its content, and
// the answer comes from the journal (Replay), from the step that is running, or
// from Recover, never from a second Apply; of a new key: action, version,
// parameters, allow-list; freeze; deadline; fence; a target on which another step
// works. What was begun is answered in spite of freeze and deadline: a refusal
// says that nothing was touched, and of such a key that would be wrong.
func (e *Executor) Do(ctx context.Context, d fettle.Dispatch) fettle.Outcome {
	if r := wellFormed(d); r != nil {
		return e.refused(d, fettle.UnknownFate, r)
	}
	sum, err := digest(d)
	if err != nil {
		return e.refused(d, fettle.UnknownFate, refuse("this is a defect of the server", "%s", err))
	}
	e.mu.Lock()
	if d.Permit == "" && e.doubt != nil { // before its token is taken for that of a leader
		return e.unlockRefused(d, e.keyOf(d.Key), e.doubt)
	}
	if r := e.leads(d); r != nil {
		e.mu.Unlock()
		return e.refused(d, fettle.UnknownFate, r)
	}
	k := e.keyOf(d.Key)
	switch {
	case d.Incarnation != e.o.Incarnation:
		return e.unlockRefused(d, k, refuse("ask what became of the key; what never will be is tried again under a new key, for this incarnation",
			"it is for incarnation %q of the agent, which started anew since: it is %q", d.Incarnation, e.o.Incarnation))
	case d.Step.Host != e.o.Host:
		return e.unlockRefused(d, k, refuse("this is a defect of the server", "the step is for %s, this is %s", d.Step.Host, e.o.Host))
	case k.known() && k.digest != sum:
		return e.unlockRefused(d, k, refuse("this is a defect of the server: a key is for one step", "the key is already that of another step"))
	case k.run != nil:
		r := k.run
		e.mu.Unlock()
		if _, err := e.write(); err != nil {
			return e.broken(d, err, noJournal)
		}
		return e.await(ctx, d, r)
	case k.ended:
		e.mu.Unlock()
		return e.replayed(d, k)
	case k.begun:
		e.mu.Unlock()
		return e.Recover(ctx, d)
	}
	r := e.permitted(d)
	if r == nil && (k.fenced || k.refused) {
		r = refuse("plan again under a new key", "the key is fenced")
	}
	if busy := e.targets[d.Step.Target]; r == nil && busy != "" {
		r = refuse("wait for its end, then plan again", "step %s works on the same target", busy)
	}
	if r == nil && d.Permit != "" {
		r = e.spent(d)
	}
	if r != nil {
		return e.unlockRefused(d, k, r)
	}
	run := e.begin(ctx, d, k, sum)
	e.mu.Unlock()
	return e.await(ctx, d, run)
}

// known reports whether the key's content is known: it was begun, or is about to.
func (k *key) known() bool { return k.begun || k.run != nil }

// unlockRefused ends a Do that holds mu. The key of a dispatch for this
// incarnation that was never begun is refused from now on, so that a copy which
// arrives late, after a thaw for example, is not done behind the back of a leader
// who was told "refused". After a restart the incarnation refuses it.
func (e *Executor) unlockRefused(d fettle.Dispatch, k *key, r *refusal) fettle.Outcome {
	fate := fettle.UnknownFate
	if d.Incarnation == e.o.Incarnation && d.Step.Host == e.o.Host && !k.known() && !k.ended {
		k.refused = true
		fate = fettle.NeverWillBe
	}
	e.mu.Unlock()
	if _, err := e.write(); err != nil { // a token higher than any before
		fate = fettle.UnknownFate
	}
	return e.refused(d, fate, r)
}

// write appends records, together with the highest token and the last head where
// those are not durable yet: one sync for all of them.
func (e *Executor) write(entries ...journal.Entry) (journal.Seq, error) {
	e.mu.Lock()
	token, durable := e.highest, e.durable
	e.mu.Unlock()
	raise := durable.Less(token)
	if raise {
		entries = append([]journal.Entry{{Kind: KindToken, Schema: Schema, Value: tokenRecord{token}}}, entries...)
	}
	if len(entries) == 0 {
		return 0, nil
	}
	head, unkept := e.unkept()
	entries = append(unkept, entries...)
	e.point("before journal")
	first, err := e.o.Journal.AppendAll(entries...)
	if err != nil {
		return 0, err
	}
	e.point("after journal")
	e.kept(head)
	if raise {
		e.mu.Lock()
		if e.durable.Less(token) {
			e.durable = token
		}
		e.mu.Unlock()
	}
	return first + journal.Seq(len(entries)-1), nil
}

// begin starts a step in its own goroutine, which ends with it. mu is held.
func (e *Executor) begin(ctx context.Context, d fettle.Dispatch, k *key, sum string) *run {
	timeout := e.specs[d.Step.Action].Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	if d.Step.Timeout > 0 {
		timeout = min(timeout, d.Step.Timeout)
	}
	r := &run{key: d.Key, done: make(chan struct{})}
	// Whoever asked may go away; the step keeps only its values (traces).
	base := context.WithoutCancel(ctx)
	overdue, release := context.WithTimeout(base, timeout+grace)
	act, cancel := context.WithTimeout(base, timeout)
	r.overdue, r.cancel = overdue.Done(), cancel
	k.run, k.digest, k.alone = r, sum, d.Permit != ""
	e.begins(e.o.Clock.Now(), d)
	e.targets[d.Step.Target] = d.Key
	e.running.Go(func() {
		defer release()
		defer cancel()
		o := e.carryOut(act, d, k, sum)
		e.mu.Lock()
		r.outcome = o
		k.run = nil
		delete(e.targets, d.Step.Target)
		e.mu.Unlock()
		close(r.done)
	})
	return r
}

// carryOut makes the intent durable, acts, and makes the outcome durable.
func (e *Executor) carryOut(ctx context.Context, d fettle.Dispatch, k *key, sum string) fettle.Outcome {
	started := e.o.Clock.Now()
	intent := intentRecord{Dispatch: kept(d), Digest: sum}
	if d.Permit != "" {
		intent.Wall = e.o.Clock.Wall()
	}
	seq, err := e.write(journal.Entry{Kind: KindIntent, Schema: Schema, Value: intent})
	e.mu.Lock()
	if err != nil {
		k.refused = true
		e.mu.Unlock()
		return e.refused(d, fettle.NeverWillBe, refuse("mend the disk under the agent's journal first", "the intent could not be made durable: %s", err))
	}
	k.begun, k.intent, k.incarnation = true, seq, d.Incarnation
	if d.Permit != "" {
		e.lastAlone, e.lastPermit = intent.Wall, d.Permit
	}
	e.noteBegun(k, d)
	r := e.timely(d) // the disk may have been slow
	if k.fenced || k.refused {
		r = refuse("plan again under a new key", "the key was fenced meanwhile")
	}
	if r == nil {
		k.run.touching = true
	}
	e.mu.Unlock()

	var o fettle.Outcome
	if r != nil {
		o = e.refused(d, fettle.NeverWillBe, r)
	} else {
		e.point("before act")
		if cutsOff(e.specs[d.Step.Action], d.Step) {
			o = e.actArmed(ctx, d)
		} else {
			o = e.act(ctx, d)
		}
		e.point("after act")
	}
	o.Started, o.Took = started, e.o.Clock.Now().Sub(started)
	e.finish(k, &o, false)
	return o
}

// finish records an outcome under its key. What the journal cannot take is kept
// in memory and said: after a restart the external system is asked.
func (e *Executor) finish(k *key, o *fettle.Outcome, recovered bool) {
	e.mu.Lock()
	repeat := recovered && !final(*o) && k.answered == o.Fate
	e.mu.Unlock()
	if repeat {
		return // probing again and again must not fill the journal
	}
	seq, err := e.write(journal.Entry{Kind: KindOutcome, Schema: Schema, Value: outcomeRecord{*o, recovered}})
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case err != nil:
		o.Result.Notes = append(o.Result.Notes, "the outcome could not be written to the agent's journal: "+err.Error())
		if final(*o) && !k.ended {
			kept := *o
			k.ended, k.unwritten = true, &kept
			e.noteDone(k, *o)
		}
	case final(*o) && !k.ended:
		k.ended, k.outcome = true, seq
		e.noteDone(k, *o)
	case !final(*o):
		k.answered = o.Fate
	}
}

// await waits for a step under way.
func (e *Executor) await(ctx context.Context, d fettle.Dispatch, r *run) fettle.Outcome {
	select {
	case <-r.done:
		return r.outcome
	default:
	}
	select {
	case <-r.done:
		return r.outcome
	case <-ctx.Done():
		return fettle.Outcome{Schema: Schema, Key: d.Key, Fate: fettle.Running}
	}
}

// replayed answers an ended key from the journal.
func (e *Executor) replayed(d fettle.Dispatch, k *key) fettle.Outcome {
	if _, err := e.write(); err != nil { // the token that asked
		return e.broken(d, err, noJournal)
	}
	e.mu.Lock()
	kept, seq := k.unwritten, k.outcome
	e.mu.Unlock()
	if kept != nil {
		o := *kept
		o.Replay = true
		return o
	}
	o, err := e.recorded(seq)
	if err != nil {
		return e.broken(d, fmt.Errorf("the recorded outcome: %w", err), "the journal's disk cannot be read: mend it, then ask again")
	}
	o.Replay = true
	return o
}

const noJournal = "mend the disk under the agent's journal, then ask again"

// broken is an answer that says nothing about the key.
func (e *Executor) broken(d fettle.Dispatch, err error, hint string) fettle.Outcome {
	wrapped := &fettle.Error{Op: d.Step.Action, Subject: d.Step.Target, Class: fettle.Broken, Err: err, Hint: hint}
	return fettle.Outcome{Schema: Schema, Key: d.Key, Fate: fettle.UnknownFate, Class: fettle.Broken, Error: wrapped.Error(), Started: e.o.Clock.Now()}
}
