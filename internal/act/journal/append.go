package journal

import (
	"encoding/json"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// Entry is a record to be appended.
type Entry struct {
	Kind   string // what it is: a-z, 0-9, '.', '_', '-', at most 64 bytes
	Schema int    // version of Value's shape, 0 to 65535; 0 is 1
	Value  any    // becomes JSON; a json.RawMessage is kept as it is, unknown fields included
}

// batch is the appends that one fdatasync makes durable.
type batch struct {
	groups [][]frame
	first  []Seq // of each group, filled in by the commit
	err    error
	done   chan struct{}
}

// Append appends one record of schema version 1. See AppendAll.
func (j *Journal) Append(kind string, v any) (Seq, error) {
	return j.AppendAll(Entry{Kind: kind, Value: v})
}

// AppendAll appends records, all or none of them, and returns the number of the
// first when all are durable. It blocks for one or two fdatasyncs, also when the
// disk hangs. An error that wraps ErrFull, ErrTooLarge, ErrReadOnly or ErrClosed
// promises that nothing was written; after any other the journal must be opened
// again, and then shows whether they were.
func (j *Journal) AppendAll(entries ...Entry) (Seq, error) {
	frames, err := j.frames(entries)
	if err != nil {
		return 0, err
	}
	j.gather.Lock()
	if j.closed || j.opts.ReadOnly {
		defer j.gather.Unlock()
		if j.opts.ReadOnly {
			return 0, fmt.Errorf("journal %s: append: %w", j.path, ErrReadOnly)
		}
		return 0, fmt.Errorf("journal %s: append: %w", j.path, ErrClosed)
	}
	b := j.next
	leads := b == nil
	if leads {
		b = &batch{done: make(chan struct{})}
		j.next = b
	}
	mine := len(b.groups)
	b.groups = append(b.groups, frames)
	j.gather.Unlock()

	if leads {
		j.lead(b)
	}
	<-b.done
	if b.err != nil {
		return 0, b.err
	}
	return b.first[mine], nil
}

// lead waits for the commit under way, during which others join b, then commits
// b for all of them.
func (j *Journal) lead(b *batch) {
	j.commits.Lock()
	defer j.commits.Unlock()
	j.gather.Lock()
	j.next = nil
	closed := j.closed
	j.gather.Unlock()
	if closed {
		b.err = fmt.Errorf("journal %s: append: %w", j.path, ErrClosed)
	} else {
		b.err = j.commit(b)
	}
	close(b.done)
	if b.err == nil {
		j.refill()
	}
}

func (j *Journal) isClosed() bool {
	j.gather.Lock()
	defer j.gather.Unlock()
	return j.closed
}

// frames makes the frames of one group, without what only the commit knows.
func (j *Journal) frames(entries []Entry) ([]frame, error) {
	if len(entries) == 0 || len(entries) > maxGroup {
		return nil, fmt.Errorf("journal %s: append of %d records at once; want 1 to %d", j.path, len(entries), maxGroup)
	}
	out := make([]frame, len(entries))
	for i, e := range entries {
		if e.Schema == 0 {
			e.Schema = 1
		}
		if !validKind(e.Kind) || e.Schema < 0 || e.Schema > 0xffff {
			return nil, fmt.Errorf("journal %s: append: kind %q, schema %d: kinds are a-z, 0-9, '.', '_', '-', at most %d bytes, schemas 1 to 65535", j.path, e.Kind, e.Schema, maxKind)
		}
		payload, err := json.Marshal(e.Value)
		if err != nil {
			return nil, fmt.Errorf("journal %s: append %s: %w", j.path, e.Kind, err)
		}
		if len(payload) > MaxRecord {
			return nil, fmt.Errorf("journal %s: append %s: %d bytes, at most %d: %w", j.path, e.Kind, len(payload), MaxRecord, ErrTooLarge)
		}
		out[i] = frame{kindOf: typeRecord, kind: e.Kind, schema: e.Schema, payload: payload, more: len(entries) - 1 - i}
	}
	return out, nil
}

// commit writes and syncs a batch, then the tree head over it.
func (j *Journal) commit(b *batch) error {
	if err := j.fault(); err != nil {
		return err
	}
	size := int64(headFrame)
	for _, g := range b.groups {
		for _, f := range g {
			size += int64(frameSize(f.kind, f.payload))
		}
	}
	if missing := j.end + size - j.size; missing > 0 {
		if err := j.grow(missing); err != nil {
			return err
		}
	}
	now := j.opts.Clock.Now()
	number := j.tree.size // only a commit changes it, and this is the one
	buf := make([]byte, 0, size)
	type leaf struct {
		hash tlog.Hash
		at   int64
	}
	var leaves []leaf
	for _, g := range b.groups {
		b.first = append(b.first, Seq(number))
		for _, f := range g {
			start := len(buf)
			f.durable, f.number, f.at = j.durable, number, now
			buf = appendFrame(buf, f)
			leaves = append(leaves, leaf{tlog.RecordHash(buf[start+leafStart:]), j.end + int64(start)})
			number++
		}
	}
	if _, err := j.file.WriteAt(buf, j.end); err != nil {
		return j.fail("write", err)
	}
	if err := j.file.Sync(); err != nil {
		return j.fail("sync", err)
	}
	if j.opts.OnDurable != nil {
		j.opts.OnDurable(Seq(j.tree.size), len(leaves))
	}

	j.mu.Lock()
	for _, l := range leaves {
		j.tree.add(l.hash, l.at)
	}
	j.end += int64(len(buf))
	j.durable = j.end
	root, err := j.tree.root()
	j.mu.Unlock()
	if err != nil {
		return j.fail("tree head", err)
	}
	// The head goes with the next sync. It is what tells, after a crash, that the
	// records before it had been acknowledged.
	head := appendFrame(nil, frame{kindOf: typeHead, number: number, durable: j.durable, at: now, payload: root[:]})
	if _, err := j.file.WriteAt(head, j.end); err != nil {
		_ = j.fail("write tree head", err) // the records are durable: this append succeeded
		return nil
	}
	j.mu.Lock()
	j.end += int64(len(head))
	j.mu.Unlock()
	return nil
}
