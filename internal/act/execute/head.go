package execute

import (
	"fmt"
	"time"

	"fettle/internal/act/journal"
	"fettle/internal/fettle"
)

// headEvery is how long a head under which nothing was begun may wait to be
// durable. What was begun has it in the same write as its intent.
const headEvery = time.Hour

// LogHead is where a server's log of decisions ended, as it was shown to this agent
// (S13). Who calls has verified the signature.
type LogHead struct {
	Epoch       uint64 `json:"epoch"`
	Entries     int64  `json:"entries"`
	Hash        string `json:"hash"`                  // of the last entry; "" where there is none
	Note        string `json:"note,omitempty"`        // the signed text: evidence, not read here
	Certificate []byte `json:"certificate,omitempty"` // of who signed it, DER
}

func (h LogHead) same(as LogHead) bool {
	return h.Epoch == as.Epoch && h.Entries == as.Entries && h.Hash == as.Hash
}

func (h LogHead) String() string {
	return fmt.Sprintf("entry %d of epoch %d, hash %.12s", h.Entries, h.Epoch, h.Hash)
}

// headRecord is a head in the journal.
type headRecord struct {
	Head LogHead `json:"head"`
}

// Head returns the last head that was taken, and false before the first.
func (e *Executor) Head() (LogHead, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.head, e.head.Epoch != 0
}

const (
	forkHint = "somebody restored an old copy of the server's store, or rewrote it: put the newest copy back; where there is none a new epoch must begin, which an administrator signs"
	noneHint = "upgrade the server: one that shows no head of its log cannot be told from one with another log"
)

// Meet compares the head of a server that this agent meets anew with the last one
// that it took: there is what stands at that place in the server's log now, "" where
// it ends before. A nil head is that of a server that shows none, which is taken
// only by an agent that has never been shown one.
//
// What does not go on from what was seen is refused, with an error that says why;
// from then on, until a Meet succeeds, no dispatch is done or recovered, whoever's
// token it has. What is under way goes on.
func (e *Executor) Meet(h *LogHead, there string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.doubt = nil
	kept := e.head
	if h == nil {
		if kept.Epoch != 0 {
			e.doubt = refuse(noneHint, "the server shows no head of its log, and this host has seen %s", kept)
		}
		return e.doubt.err(e.o.Host)
	}
	switch {
	case kept.Epoch == 0: // the first is taken: there is nothing to compare it with
	case h.Epoch > kept.Epoch:
		highest := e.highest
		if highest.Epoch == 0 {
			highest = fettle.Token{Fleet: e.o.Fleet, Epoch: kept.Epoch}
		}
		if err := e.o.NewEpoch(highest, fettle.Token{Fleet: e.o.Fleet, Epoch: h.Epoch}); err != nil {
			e.doubt = refuse(forkHint, "the server's log of decisions is not the one that this host has seen: %s", err)
		}
	case h.Epoch < kept.Epoch:
		e.fork(*h, "it is of an epoch that has ended")
	case h.Entries < kept.Entries:
		e.fork(*h, "it is shorter")
	case there != kept.Hash, h.Entries == kept.Entries && h.Hash != kept.Hash:
		e.fork(*h, fmt.Sprintf("its entry %d is another", kept.Entries))
	}
	if e.doubt == nil {
		e.keep(*h)
	}
	return e.doubt.err(e.o.Host)
}

// Follow takes a later head of the server that was met. One that does not go on from
// the last, and any after that, is refused as by Meet.
func (e *Executor) Follow(h LogHead) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	kept := e.head
	switch {
	case e.doubt != nil:
	case h.Epoch != kept.Epoch && kept.Epoch != 0:
		e.fork(h, "its epoch changed without a new session")
	case h.Entries < kept.Entries:
		e.fork(h, "it is shorter")
	case h.Entries == kept.Entries && h.Hash != kept.Hash:
		e.fork(h, fmt.Sprintf("its entry %d is another", kept.Entries))
	default:
		e.keep(h)
	}
	return e.doubt.err(e.o.Host)
}

// Distrust refuses the server that was met for a reason of the caller's: what it
// showed cannot be believed.
func (e *Executor) Distrust(hint, why string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.doubt = refuse(hint, "%s", why)
	return e.doubt.err(e.o.Host)
}

// fork notes that a log is not the one that was seen. mu is held.
func (e *Executor) fork(h LogHead, why string) {
	e.doubt = refuse(forkHint, "the server's log of decisions has forked from the one that this host has seen: %s (it shows %s; this host has seen %s)", why, h, e.head)
}

// err is a refusal of the server, nil where there is none.
func (r *refusal) err(host fettle.Subject) error {
	if r == nil {
		return nil
	}
	return fettle.Refuse("follow the server", host, r.hint, "%s", r.why)
}

// keep takes a head. It becomes durable with the next intent, or after a while. mu
// is held.
func (e *Executor) keep(h LogHead) {
	e.head = h
	if now := e.o.Clock.Now(); now.Sub(e.headAt) >= headEvery && !e.closed {
		e.headAt = now
		e.running.Go(func() { _ = e.KeepHead() }) // else with the next intent, which says so if it fails
	}
}

// unkept is the head for the journal, where it does not stand there yet.
func (e *Executor) unkept() (LogHead, []journal.Entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.head
	if h.same(e.headDurable) {
		return h, nil
	}
	if string(h.Certificate) == string(e.headDurable.Certificate) {
		h.Certificate = nil // the record before has it
	}
	return e.head, []journal.Entry{{Kind: KindHead, Schema: Schema, Value: headRecord{h}}}
}

// kept notes that a head stands in the journal.
func (e *Executor) kept(h LogHead) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !h.same(e.headDurable) && (h.Epoch > e.headDurable.Epoch || h.Entries >= e.headDurable.Entries) {
		e.headDurable, e.headAt = h, e.o.Clock.Now()
	}
}

// KeepHead makes the last head durable, where it is not. It blocks for the disk.
func (e *Executor) KeepHead() error {
	h, entries := e.unkept()
	if len(entries) == 0 {
		return nil
	}
	if _, err := e.o.Journal.AppendAll(entries...); err != nil {
		return fmt.Errorf("keep the head of the server's log: %w", err)
	}
	e.kept(h)
	return nil
}
