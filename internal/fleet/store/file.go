package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"fettle/internal/act/journal"
	"fettle/internal/fettle"
	"fettle/internal/loop"
)

// The kinds of record in the journal of a File. One Commit is one group.
const (
	kindLeader  = "store.leader"
	kindRecord  = "store.record"
	kindIntent  = "store.intent"
	kindSettled = "store.settled"
	kindFreeze  = "store.freeze"
	kindThaw    = "store.thaw"
	kindWindows = "store.windows"
	kindEntry   = "store.entry"
	kindMerged  = "store.merged"
)

const fileSchema = 1

// File is a store in one file, an internal/act/journal: for one machine that is
// looked after by itself. Its methods may be called concurrently; the journal's
// lock keeps other processes out. The file never gets shorter.
type File struct {
	fleet   string
	journal *journal.Journal

	mu       sync.Mutex
	held     held
	revision uint64 // under which this process writes; 0 before Load
	tip      tip
}

// keyed is a settled intent, or a value with its name.
type keyed struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value,omitempty"`
}

type leaderRecord struct {
	Fleet string `json:"fleet"`
}

// OpenFile opens the store at path, or makes it. It refuses the store of another
// fleet. Errors are those of journal.Open.
func OpenFile(ctx context.Context, path, fleet string, opts journal.Options) (*File, error) {
	j, err := journal.Open(ctx, path, opts)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	f := &File{fleet: fleet, journal: j, held: newHeld()}
	if err := j.Read(ctx, 0, f.replay); err != nil {
		return nil, fmt.Errorf("store %s: %w", path, joinClose(err, j))
	}
	return f, nil
}

func joinClose(err error, j *journal.Journal) error {
	if cerr := j.Close(); cerr != nil {
		return fmt.Errorf("%w; and %w", err, cerr)
	}
	return err
}

// replay puts one record of the journal into effect. A kind that a newer version
// wrote is an error: what it meant to keep is not known here.
func (f *File) replay(r journal.Record) error {
	var k keyed
	switch r.Kind {
	case kindRecord, kindIntent, kindSettled, kindMerged:
		if err := r.Decode(&k); err != nil {
			return err
		}
	case kindLeader:
		var l leaderRecord
		if err := r.Decode(&l); err != nil {
			return err
		}
		if l.Fleet != f.fleet {
			return fmt.Errorf("it is of fleet %q, not %q (give it another folder)", l.Fleet, f.fleet)
		}
	}
	switch r.Kind {
	case kindLeader:
	case kindRecord:
		f.held.records[k.Key] = k.Value
	case kindIntent:
		f.held.intents[k.Key] = k.Value
	case kindMerged:
		f.held.merged[k.Key] = k.Value
	case kindSettled:
		delete(f.held.intents, k.Key)
	case kindFreeze:
		f.held.freeze = r.Data
	case kindThaw:
		f.held.freeze = nil
	case kindWindows:
		f.held.windows = r.Data
	case kindEntry:
		e, _, err := unseal(r.Data)
		if err != nil {
			return err
		}
		f.held.head = loop.Head{Entries: e.Seq, Hash: e.Hash}
	default:
		return fmt.Errorf("record %d is of kind %s, which is not known here (a newer version wrote it: use that)", r.Seq, r.Kind)
	}
	return nil
}

func (f *File) token() fettle.Token {
	return fettle.Token{Fleet: f.fleet, Epoch: 1, Revision: f.revision}
}

// Load implements loop.Store.
func (f *File) Load(ctx context.Context) (loop.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return loop.State{}, fmt.Errorf("load: %w", err)
	}
	s, err := f.held.state()
	if err != nil {
		return loop.State{}, err
	}
	seq, err := f.journal.Append(kindLeader, leaderRecord{Fleet: f.fleet})
	if err != nil {
		return loop.State{}, fmt.Errorf("load: %w", err)
	}
	f.revision = uint64(seq) + 1
	s.Token = f.token()
	f.tip.set(s.Token.Epoch, s.Head)
	return s, nil
}

// Commit implements loop.Store. It blocks for the disk.
func (f *File) Commit(ctx context.Context, t loop.Txn) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if f.revision == 0 || t.Token != f.token() {
		return fmt.Errorf("commit: %w", loop.ErrNotLeader)
	}
	c, err := prepare(t, f.held.head)
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if entries := c.journalled(); len(entries) > 0 {
		if _, err := f.journal.AppendAll(entries...); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
	}
	f.held.apply(c)
	f.tip.set(t.Token.Epoch, c.head)
	return nil
}

// journalled is the change as one group of records.
func (c *change) journalled() []journal.Entry {
	var out []journal.Entry
	add := func(kind string, v any) {
		out = append(out, journal.Entry{Kind: kind, Schema: fileSchema, Value: v})
	}
	for _, id := range sorted(c.records) {
		add(kindRecord, keyed{id, c.records[id]})
	}
	for _, key := range sorted(c.intents) {
		add(kindIntent, keyed{key, c.intents[key]})
	}
	for _, key := range c.settled {
		add(kindSettled, keyed{Key: key})
	}
	for _, host := range sorted(c.merged) {
		add(kindMerged, keyed{host, c.merged[host]})
	}
	if c.freeze != nil {
		add(kindFreeze, json.RawMessage(c.freeze))
	}
	if c.thaw {
		add(kindThaw, struct{}{})
	}
	if c.windows != nil {
		add(kindWindows, json.RawMessage(c.windows))
	}
	for _, e := range c.log {
		add(kindEntry, json.RawMessage(e))
	}
	return out
}

// Log implements loop.Store.
func (f *File) Log(ctx context.Context, from int64, each func(loop.Entry) error) error {
	return f.journal.Read(ctx, 0, func(r journal.Record) error {
		if r.Kind != kindEntry {
			return nil
		}
		e, _, err := unseal(r.Data)
		if err != nil || e.Seq < from {
			return err
		}
		return each(e)
	})
}

// Sealed calls each with the log's entries as they are kept, from the one numbered
// from, in order: what Follow verifies elsewhere.
func (f *File) Sealed(ctx context.Context, from int64, each func(entry loop.Entry, kept []byte) error) error {
	return f.journal.Read(ctx, 0, func(r journal.Record) error {
		if r.Kind != kindEntry {
			return nil
		}
		e, _, err := unseal(r.Data)
		if err != nil || e.Seq < from {
			return err
		}
		return each(e, r.Data)
	})
}

// Tip returns where the log ends now. It never waits for the disk.
func (f *File) Tip(context.Context) (loop.Tip, error) { return f.tip.get() }

// HashAt returns the hash of an entry, "" where there is none of this number. It
// reads the log from its beginning.
func (f *File) HashAt(ctx context.Context, seq int64) (string, error) {
	hash, found := "", errors.New("found")
	err := f.Log(ctx, seq, func(e loop.Entry) error {
		if e.Seq == seq {
			hash = e.Hash
		}
		return found
	})
	if errors.Is(err, found) {
		err = nil
	}
	return hash, err
}

// Check implements loop.Store. The journal itself checks its own frames and tree
// when it is opened.
func (f *File) Check(ctx context.Context) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var c checker
	err := f.journal.Read(ctx, 0, func(r journal.Record) error {
		if r.Kind != kindEntry {
			return nil
		}
		return c.add(r.Data)
	})
	if err == nil {
		err = c.end(f.held.head)
	}
	return c.head.Entries, err
}

// Close implements loop.Store.
func (f *File) Close() error { return f.journal.Close() }

// ID is the identity of the file, minted when it was made: another one is another
// chain.
func (f *File) ID() string { return f.journal.Opened().ID }

// Entries is how many entries the log has.
func (f *File) Entries() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.held.head.Entries
}
