package execute

import (
	"context"
	"fmt"

	"fettle/internal/act/journal"
	"fettle/internal/fettle"
)

// replay reads the journal into memory: of each key where its records stand, not
// what they say.
func (e *Executor) replay() error {
	err := e.o.Journal.Read(context.Background(), 0, func(r journal.Record) error {
		switch r.Kind {
		case KindIncarnation, KindToken, KindIntent, KindOutcome, KindFence, KindHead:
		default:
			return nil
		}
		if r.Schema > Schema {
			return fmt.Errorf("record %d (%s) has schema %d, this version knows up to %d (run the newer version of the agent that wrote it)", r.Seq, r.Kind, r.Schema, Schema)
		}
		return e.take(r)
	})
	if err != nil {
		return fmt.Errorf("executor: replay: %w", err)
	}
	return nil
}

func (e *Executor) take(r journal.Record) error {
	switch r.Kind {
	case KindIncarnation:
		var in incarnationRecord
		if err := r.Decode(&in); err != nil {
			return err
		}
		if in.Host != e.o.Host || in.Fleet != e.o.Fleet {
			return fmt.Errorf("the journal is of %s in fleet %s, this is %s in fleet %s (a cloned or newly enrolled machine: move the journal aside and begin a new one)", in.Host, in.Fleet, e.o.Host, e.o.Fleet)
		}
		e.incarnations[in.Incarnation] = true
	case KindToken:
		var t tokenRecord
		if err := r.Decode(&t); err != nil {
			return err
		}
		if e.durable.Less(t.Token) {
			e.highest, e.durable = t.Token, t.Token
		}
	case KindIntent:
		var in intentRecord
		if err := r.Decode(&in); err != nil {
			return err
		}
		k := e.keyOf(in.Dispatch.Key)
		k.begun, k.intent, k.digest, k.incarnation, k.alone = true, r.Seq, in.Digest, in.Dispatch.Incarnation, in.Dispatch.Permit != ""
		e.begins(r.At, in.Dispatch)
		if in.Dispatch.Permit != "" {
			e.lastAlone, e.lastPermit = in.Wall, in.Dispatch.Permit
		}
		e.noteBegun(k, in.Dispatch)
	case KindOutcome:
		var o outcomeRecord
		if err := r.Decode(&o); err != nil {
			return err
		}
		k := e.keyOf(o.Outcome.Key)
		switch {
		case k.ended: // the first one holds: it is what was answered
		case final(o.Outcome):
			k.ended, k.outcome = true, r.Seq
			e.noteDone(k, o.Outcome)
		default:
			k.answered = o.Outcome.Fate
		}
	case KindFence:
		var f fenceRecord
		if err := r.Decode(&f); err != nil {
			return err
		}
		e.keyOf(f.Key).fenced = true
	case KindHead:
		var h headRecord
		if err := r.Decode(&h); err != nil {
			return err
		}
		if h.Head.Certificate == nil {
			h.Head.Certificate = e.headDurable.Certificate
		}
		// The order of records is not that of heads: two writes may have met.
		if h.Head.Epoch > e.head.Epoch || h.Head.Epoch == e.head.Epoch && h.Head.Entries >= e.head.Entries {
			e.head, e.headDurable = h.Head, h.Head
		}
	}
	return nil
}

// recorded reads a final outcome back.
func (e *Executor) recorded(seq journal.Seq) (fettle.Outcome, error) {
	var o outcomeRecord
	if err := e.read(seq, KindOutcome, &o); err != nil {
		return fettle.Outcome{}, err
	}
	return o.Outcome, nil
}

// intended reads back what was begun under a key.
func (e *Executor) intended(seq journal.Seq) (fettle.Dispatch, error) {
	var in intentRecord
	if err := e.read(seq, KindIntent, &in); err != nil {
		return fettle.Dispatch{}, err
	}
	return in.Dispatch, nil
}

func (e *Executor) read(seq journal.Seq, kind string, v any) error {
	r, err := e.o.Journal.At(context.Background(), seq)
	if err != nil {
		return err
	}
	if r.Kind != kind {
		return fmt.Errorf("journal record %d is a %s, not a %s", seq, r.Kind, kind)
	}
	return r.Decode(v)
}
