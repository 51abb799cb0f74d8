package execute

import (
	"context"
	"fmt"

	"fettle/internal/act/journal"
	"fettle/internal/fettle"
)

// recoverTimeout bounds one question to the external system where the caller
// gives it longer: a status query that takes longer has no answer.
const recoverTimeout = defaultTimeout

// Recover says what became of a dispatch, of this incarnation of the agent or an
// earlier one. It fences the key first, so that the answer stays true; see the
// package comment for what it then asks whom. It blocks until it knows or ctx
// ends, and never cancels a step that is under way: of that one it says Running.
//
// d is the dispatch as it was sent, above all its Incarnation, but for a newer
// token; deadline and outputs may be left out. A key that was begun here is asked
// about as its intent in the journal says.
//
// Only Done and NeverWillBe are final; they are recorded, and a later Recover or
// Do of the key replays them.
func (e *Executor) Recover(ctx context.Context, d fettle.Dispatch) fettle.Outcome {
	if r := wellFormed(d); r != nil {
		return e.refused(d, fettle.UnknownFate, r)
	}
	e.mu.Lock()
	var r *refusal
	if d.Permit == "" {
		r = e.doubt
	}
	if r == nil {
		r = e.leads(d)
	}
	if k := e.keys[d.Key]; r == nil && d.Permit != "" && k != nil && k.known() && !k.alone {
		r = refuse("ask the leader", "the key is one of a leader's")
	}
	if r == nil && d.Step.Host != e.o.Host {
		r = refuse("ask the agent of that host", "the step is for %s, this is %s", d.Step.Host, e.o.Host)
	}
	if r != nil {
		e.mu.Unlock()
		return e.refused(d, fettle.UnknownFate, r)
	}
	k := e.keyOf(d.Key)
	ended := k.ended
	e.mu.Unlock()
	if ended {
		return e.replayed(d, k)
	}
	if err := e.fence(d.Key, k); err != nil {
		return e.broken(d, fmt.Errorf("the key could not be fenced: %w", err), noJournal)
	}
	e.point("fenced")
	stuck := false
	if run := e.underWay(k); run != nil {
		select {
		case <-run.done:
			if final(run.outcome) {
				return run.outcome
			}
		case <-run.overdue:
			stuck = true
		case <-ctx.Done():
			return fettle.Outcome{Schema: Schema, Key: d.Key, Fate: fettle.Running}
		}
	}
	return e.ask(ctx, d, k, stuck)
}

// underWay returns the step of this key that is under way here, nil when none is.
func (e *Executor) underWay(k *key) *run {
	e.mu.Lock()
	defer e.mu.Unlock()
	return k.run
}

// ask asks the external system what became of a fenced key. stuck says that its
// Apply has still not returned in this process.
func (e *Executor) ask(ctx context.Context, d fettle.Dispatch, k *key, stuck bool) fettle.Outcome {
	started := e.o.Clock.Now()
	e.mu.Lock()
	begun, intent, ended := k.begun, k.intent, k.ended
	vouched := !k.begun && k.run == nil && e.incarnations[d.Incarnation]
	e.mu.Unlock()
	if ended {
		return e.replayed(d, k) // by another Recover meanwhile
	}
	if begun { // what was begun is what is asked about
		was, err := e.intended(intent)
		if err != nil {
			return e.broken(d, fmt.Errorf("the recorded intent: %w", err), "the journal's disk cannot be read: mend it, then ask again")
		}
		if was.Step.Action != d.Step.Action || was.Step.Target != d.Step.Target || was.Undo != d.Undo {
			return e.refused(d, fettle.UnknownFate, refuse("this is a defect of the server: a key is for one step", "the key is that of %s on %s", was.Step.Action, was.Step.Target))
		}
		was.Token = d.Token
		d = was
	}
	o := fettle.Outcome{Schema: Schema, Key: d.Key, Fate: fettle.UnknownFate, Started: started}
	if d.Permit != "" && !begun {
		// What is begun under a permit is begun here; nobody has vouched for the step, so
		// nobody is asked about it.
		o.Class, o.Error = fettle.Refused, "the key was never begun here"
	} else if action, ok := e.o.Actions[d.Step.Action]; ok {
		askCtx, cancel := context.WithTimeout(ctx, recoverTimeout)
		defer cancel()
		fate := fettle.UnknownFate
		result, err := guarded(func() (res fettle.Result, err error) {
			fate, res, err = action.Recover(askCtx, d)
			return res, err
		})
		o.Result = result
		if err != nil {
			o.Class, o.Error = fettle.ClassOf(err), err.Error()
		}
		switch fate {
		case fettle.Done, fettle.Running, fettle.NeverWillBe:
			o.Fate = fate
		}
		e.whatStands(askCtx, d, &o)
	} else {
		o.Class = fettle.Unsupported
		o.Error = (&fettle.Error{Op: d.Step.Action, Subject: d.Step.Target, Class: fettle.Unsupported, Err: fettle.ErrNotSupported,
			Hint: "this agent does not know the action any more: configure its adapter, or look by hand"}).Error()
	}
	e.point("asked")
	switch {
	case o.Fate == fettle.UnknownFate && vouched:
		o.Fate, o.Class, o.Error = fettle.NeverWillBe, "", ""
		cannot := "the external system cannot tell; "
		if d.Permit != "" {
			cannot = ""
		}
		o.Result.Notes = append(o.Result.Notes, cannot+"incarnation "+d.Incarnation+" of this agent kept this journal and wrote no intent for the key, which is fenced now")
	case o.Fate == fettle.NeverWillBe && stuck:
		o.Fate = fettle.Running
		o.Result.Notes = append(o.Result.Notes, "the external system says that it never will be, but the action has not returned on this host")
	}
	o.Took = e.o.Clock.Now().Sub(started)
	e.finish(k, &o, true)
	return o
}

// Fence makes sure, durably, that a key is never begun here from now on. A step
// of that key that has begun is waited for; when ctx ends first it is cancelled
// and the error is of class NoAnswer: the key is fenced, the step may still take
// effect, and Recover tells.
func (e *Executor) Fence(ctx context.Context, name string) error {
	if !validKey(name) {
		return fettle.Refuse("fence", e.o.Host, "this is a defect of the server", "key %q: want 1 to %d printable characters without blanks", name, maxKey)
	}
	e.mu.Lock()
	k := e.keyOf(name)
	e.mu.Unlock()
	if err := e.fence(name, k); err != nil {
		return &fettle.Error{Op: "fence", Subject: e.o.Host, Class: fettle.Broken, Err: err, Hint: "mend the disk under the agent's journal, then fence again"}
	}
	run := e.underWay(k)
	if run == nil {
		return nil
	}
	select {
	case <-run.done:
		return nil
	case <-ctx.Done():
		run.cancel()
		return &fettle.Error{Op: "fence", Subject: e.o.Host, Class: fettle.NoAnswer, Err: ctx.Err(), Hint: "the step was cancelled but has not returned; ask Recover what became of it"}
	}
}

// fence records a fence, once. From the moment it is called no new step of the
// key begins.
func (e *Executor) fence(name string, k *key) error {
	e.mu.Lock()
	if k.fenced {
		e.mu.Unlock()
		return nil
	}
	if k.run == nil || !k.run.touching {
		k.refused = true
	}
	e.mu.Unlock()
	if _, err := e.write(journal.Entry{Kind: KindFence, Schema: Schema, Value: fenceRecord{name}}); err != nil {
		return err
	}
	e.mu.Lock()
	k.fenced = true
	e.mu.Unlock()
	return nil
}

// Preview says what a step would do. It changes nothing, also under freeze and
// for an action that is not allowed here; ctx and the action's timeout bound it.
func (e *Executor) Preview(ctx context.Context, s fettle.Step) (fettle.Preview, error) {
	if s.Host != e.o.Host {
		return fettle.Preview{}, fettle.Refuse(s.Action, s.Target, "ask the agent of that host", "the step is for %s, this is %s", s.Host, e.o.Host)
	}
	if r := e.possible(s); r != nil {
		return fettle.Preview{}, fettle.Refuse(s.Action, s.Target, r.hint, "%s", r.why)
	}
	timeout := e.specs[s.Action].Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var p fettle.Preview
	_, err := guarded(func() (res fettle.Result, err error) {
		p, err = e.o.Actions[s.Action].Preview(ctx, s)
		return res, err
	})
	return p, err
}
