package loop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// note is an entry for the log that comes from no decision of the mind.
type note struct {
	entry Entry
	kept  chan error // has room for the answer
}

// facts says whether an item is an input.
func (it item) facts() bool { return it.query == nil && it.note == nil && it.story == nil }

// Record puts into the log what a person did past the mind, and returns when it is
// durable: who does it afterwards did not do it unseen (S13). After an error the
// entry may be in the log all the same.
func (l *Loop) Record(ctx context.Context, kind, text string, data any) error {
	raw, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("record %s: %w", kind, err)
	}
	n := &note{entry: Entry{Kind: kind, Text: text, Data: raw}, kept: make(chan error, 1)}
	if !l.put(item{note: n}) {
		return ErrStopped
	}
	select {
	case err := <-n.kept:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// keep makes a note durable. It returns an error that ends the loop.
func (l *Loop) keep(ctx context.Context, n *note) error {
	n.entry.At = l.o.Clock.Now()
	l.entries = append(l.entries, n.entry)
	err := l.commit(ctx, Txn{})
	if err != nil {
		l.entries = l.entries[:len(l.entries)-1] // what it was to precede does not happen
		n.kept <- fmt.Errorf("record %s: %w", n.entry.Kind, err)
	} else {
		n.kept <- nil
	}
	if errors.Is(err, ErrNotLeader) || ctx.Err() != nil {
		return err
	}
	return nil
}
