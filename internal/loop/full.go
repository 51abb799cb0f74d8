package loop

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// What waits in memory for a store that is full, at most: some minutes of a fleet in
// trouble. It is well below what a store keeps at once, so that it fits when there is room.
const (
	waitingEntries = 4096
	waitingBytes   = 8 << 20
)

// ofPeople are the kinds of entry without which no freeze, thaw or window is kept.
func ofPeople(e Entry) bool { return e.Kind == "freeze" || e.Kind == "thaw" || e.Kind == "maintenance" }

// commitUrgent keeps a freeze, a thaw or windows of maintenance by themselves, with what
// the log says of them, after a commit of everything failed: what else waits must not
// stand in their way.
func (l *Loop) commitUrgent(ctx context.Context) error {
	if l.freeze == nil && !l.thaw && l.windows == nil {
		return nil
	}
	t := Txn{Token: l.token, Freeze: l.freeze, Thaw: l.thaw, Windows: l.windows}
	for _, e := range l.entries {
		if ofPeople(e) {
			t.Log = append(t.Log, e)
		}
	}
	if err := l.o.Store.Commit(ctx, t); err != nil {
		return err
	}
	l.entries = slices.DeleteFunc(l.entries, ofPeople)
	l.freeze, l.thaw, l.windows = nil, false, nil
	return nil
}

// bound leaves out of what waits for a full store what is too much, the middle of it, and
// says so in its place: the log tells what it does not have.
func (l *Loop) bound() {
	size := 0
	for _, e := range l.entries {
		size += len(e.Text) + len(e.Data)
	}
	if len(l.entries) <= waitingEntries && size <= waitingBytes {
		return
	}
	keep := min(len(l.entries), waitingEntries) / 4
	first, last := l.entries[:keep], l.entries[len(l.entries)-keep:]
	gone := l.entries[keep : len(l.entries)-keep]
	said := Entry{At: l.o.Clock.Now(), Kind: leftOut, Text: fmt.Sprintf("%d entries are left out here: the store was full", left(gone))}
	l.entries = append(append(slices.Clone(first), said), slices.DeleteFunc(slices.Clone(last), func(e Entry) bool { return e.Kind == leftOut })...)
	for i := range l.entries { // one by itself may be too large as well
		if len(l.entries[i].Data) > waitingBytes/waitingEntries {
			l.entries[i].Data = nil
		}
	}
}

// leftOut is the kind of the entry that says how many are missing.
const leftOut = "left out"

// left counts entries, and those that earlier ones of them say are missing.
func left(gone []Entry) int {
	n := 0
	for _, e := range gone {
		var before int
		if e.Kind != leftOut {
			n++
		} else if _, err := fmt.Sscan(e.Text, &before); err == nil {
			n += before
		}
	}
	return n
}

// refused does what can be done when the store kept nothing.
func (l *Loop) refused(ctx context.Context, err error) error {
	if errors.Is(err, ErrNotLeader) || ctx.Err() != nil {
		return err
	}
	if !errors.Is(err, ErrFull) && !errors.Is(err, ErrTooLarge) {
		return err // it may have been kept
	}
	if uerr := l.commitUrgent(ctx); uerr != nil {
		err = errors.Join(err, uerr)
	}
	l.bound()
	return err
}
