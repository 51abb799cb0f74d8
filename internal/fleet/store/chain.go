package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"fettle/internal/fleet/segment"
	"fettle/internal/loop"
)

// KindSealed is the kind of the log's entries that say that a segment went to a file;
// their data is its segment.Ref.
const KindSealed = "sealed"

// sealed is a log entry as it is kept. The hash covers the bytes of Entry, not
// what this version understands of them.
type sealed struct {
	Entry json.RawMessage `json:"entry"`
	Hash  string          `json:"hash"`
}

// seal numbers entries from a head on, chains them and returns them in the form
// that is kept, with the new head. The entries are not changed.
func seal(head loop.Head, entries []loop.Entry) ([][]byte, loop.Head, error) {
	out := make([][]byte, 0, len(entries))
	for _, e := range entries {
		e.Seq, e.Hash = head.Entries+1, ""
		e.At = e.At.Round(0).UTC() // without the monotonic reading, which is of this process
		raw, err := json.Marshal(e)
		if err != nil {
			return nil, loop.Head{}, fmt.Errorf("log entry %d (%s): %w", e.Seq, e.Kind, err)
		}
		if len(raw) > MaxItem {
			return nil, loop.Head{}, fmt.Errorf("log entry %d (%s): %d bytes, at most %d are kept", e.Seq, e.Kind, len(raw), MaxItem)
		}
		hash := link(head.Hash, raw)
		kept, err := json.Marshal(sealed{Entry: raw, Hash: hash})
		if err != nil {
			return nil, loop.Head{}, fmt.Errorf("log entry %d (%s): %w", e.Seq, e.Kind, err)
		}
		out = append(out, kept)
		head = loop.Head{Entries: e.Seq, Hash: hash}
	}
	return out, head, nil
}

// link is the hash of an entry that follows the one with the hash before.
func link(before string, raw []byte) string {
	h := sha256.New()
	h.Write([]byte(before))
	h.Write([]byte{'\n'})
	h.Write(raw)
	return hex.EncodeToString(h.Sum(nil))
}

// unseal reads an entry as it is kept.
func unseal(kept []byte) (loop.Entry, json.RawMessage, error) {
	var s sealed
	if err := json.Unmarshal(kept, &s); err != nil {
		return loop.Entry{}, nil, fmt.Errorf("a log entry cannot be read: %w", err)
	}
	var e loop.Entry
	if err := json.Unmarshal(s.Entry, &e); err != nil {
		return loop.Entry{}, nil, fmt.Errorf("a log entry cannot be read: %w", err)
	}
	e.Hash = s.Hash
	return e, s.Entry, nil
}

// Broken says that the log is not the one that was written.
type Broken struct {
	Seq int64 // of the first entry that is wrong
	Why string
}

// Error says where and what to do next.
func (b *Broken) Error() string {
	return fmt.Sprintf("the log of decisions is broken at entry %d: %s (keep the store as evidence; somebody changed it, or its disk is failing; what stands before this entry is whole)", b.Seq, b.Why)
}

// hashOf reads the hash of the entry of this number.
func hashOf(seq int64, kept []byte) (string, error) {
	e, _, err := unseal(kept)
	if err == nil && (e.Seq != seq || e.Hash == "") {
		err = fmt.Errorf("entry %d with hash %q stands in its place", e.Seq, e.Hash)
	}
	if err != nil {
		return "", &Broken{Seq: seq, Why: err.Error()}
	}
	return e.Hash, nil
}

// checker verifies a chain entry by entry.
type checker struct {
	head   loop.Head
	sealed map[string]int64 // segments of which the chain says that they were sealed, with the entry that does
}

func (c *checker) add(kept []byte) error {
	next := c.head.Entries + 1
	e, raw, err := unseal(kept)
	switch {
	case err != nil:
		return &Broken{Seq: next, Why: err.Error()}
	case e.Seq != next:
		return &Broken{Seq: next, Why: fmt.Sprintf("entry %d stands in its place", e.Seq)}
	case e.Hash != link(c.head.Hash, raw):
		return &Broken{Seq: next, Why: "its hash does not follow from its content and the entry before"}
	}
	c.head = loop.Head{Entries: e.Seq, Hash: e.Hash}
	if e.Kind == KindSealed {
		r, err := segment.ParseRef(e.Data)
		if err != nil {
			return &Broken{Seq: e.Seq, Why: err.Error()}
		}
		if c.sealed == nil {
			c.sealed = map[string]int64{}
		}
		c.sealed[r.Name()] = e.Seq
	}
	return nil
}

// end compares the end of the chain with the head that was kept.
func (c *checker) end(kept loop.Head) error {
	if c.head != kept {
		return &Broken{Seq: min(c.head.Entries, kept.Entries) + 1, Why: fmt.Sprintf("it ends at entry %d, and its head says %d", c.head.Entries, kept.Entries)}
	}
	return nil
}

// Follow verifies entries of a log, as they are kept, that come from elsewhere: each
// follows from the one before, the first from the head before. It returns them as they
// are read.
func Follow(before loop.Head, kept [][]byte) ([]loop.Entry, error) {
	c := checker{head: before}
	out := make([]loop.Entry, 0, len(kept))
	for _, data := range kept {
		if err := c.add(data); err != nil {
			return nil, err
		}
		e, _, err := unseal(data)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}
