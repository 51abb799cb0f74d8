package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/fleet/segment"
	"fettle/internal/loop"
)

// The log of decisions, wherever its entries are: the old ones in files, the newest in
// etcd.

// Log implements loop.Store. Entries that are on their way into a file are found in one
// place or the other.
func (e *Etcd) Log(ctx context.Context, from int64, each func(loop.Entry) error) error {
	tell := func(kept []byte) error {
		entry, _, err := unseal(kept)
		if err != nil {
			return err
		}
		return each(entry)
	}
	for next := max(from, 1); ; {
		refs, err := e.refs(ctx, segment.Log)
		if err != nil {
			return err
		}
		if r, ok := sealedAt(refs, next); ok {
			lines, err := e.lines(ctx, r)
			if err != nil {
				return err
			}
			for _, line := range lines[next-r.First:] {
				if err := tell(line); err != nil {
					return err
				}
			}
			next = r.Last + 1
			continue
		}
		began := next
		err = e.each(ctx, keyLog, logKey(next), func(key string, kept []byte) error {
			if key != logKey(next) {
				return errGap
			}
			next++
			return tell(kept)
		})
		if err != nil && !errors.Is(err, errGap) {
			return err
		}
		// What is not there any more may have gone to a file meanwhile.
		refs, rerr := e.refs(ctx, segment.Log)
		if rerr != nil {
			return rerr
		}
		if _, moved := sealedAt(refs, next); moved {
			continue
		}
		if err != nil && next > began {
			continue // it may have been put there after this was read: once more
		}
		if err != nil {
			return &Broken{Seq: next, Why: "it is not there"}
		}
		return nil
	}
}

var errGap = errors.New("an entry is not where it should be")

// HashAt returns the hash of an entry, "" where there is none of this number. An
// entry that cannot be read is a *Broken.
func (e *Etcd) HashAt(ctx context.Context, seq int64) (string, error) {
	if seq < 1 {
		return "", nil
	}
	got, err := e.get(ctx, logKey(seq))
	if err != nil {
		return "", fmt.Errorf("log entry %d: %w", seq, explain(err))
	}
	if len(got.Kvs) > 0 {
		return hashOf(seq, got.Kvs[0].Value)
	}
	refs, err := e.refs(ctx, segment.Log)
	if err != nil {
		return "", fmt.Errorf("log entry %d: %w", seq, err)
	}
	if r, ok := sealedAt(refs, seq); ok {
		return e.hashIn(ctx, r, seq)
	}
	return "", nil
}

// checkTries is how often a Check begins anew because what it read was compacted
// meanwhile.
const checkTries = 5

// Check implements loop.Store. It verifies every entry from the first on, in files and
// in etcd, and every file of incidents. What cannot be read is a *Broken, which names it.
func (e *Etcd) Check(ctx context.Context) (int64, error) {
	var n int64
	var err error
	for range checkTries {
		if n, err = e.check(ctx); !errors.Is(err, rpctypes.ErrCompacted) {
			break
		}
	}
	return n, err
}

// check reads everything as it is at one moment, so nobody who commits waits for it.
func (e *Etcd) check(ctx context.Context) (int64, error) {
	e.readers.Add(1)
	defer e.readers.Add(-1)
	var c checker
	if err := e.inPlace(ctx); err != nil {
		return 0, fmt.Errorf("check the log: %w", explain(err))
	}
	got, err := e.headUnstaged(ctx)
	if err != nil {
		return 0, fmt.Errorf("check the log: %w", explain(err))
	}
	var head loop.Head
	if len(got.Kvs) > 0 {
		if err := json.Unmarshal(got.Kvs[0].Value, &head); err != nil {
			return 0, fmt.Errorf("check the log: its head cannot be read: %w", err)
		}
	}
	at := clientv3.WithRev(got.Header.Revision)
	inFiles := map[segment.Kind][]segment.Ref{}
	for _, kind := range []segment.Kind{segment.Log, segment.Incidents} {
		if inFiles[kind], err = e.refsFrom(ctx, kind, nil, at); err != nil {
			return 0, err
		}
	}
	for _, r := range inFiles[segment.Log] {
		if err := e.checkSegment(ctx, &c, r); err != nil {
			return c.head.Entries, err
		}
	}
	err = e.each(ctx, keyLog, logKey(c.head.Entries+1), func(_ string, kept []byte) error { return c.add(kept) }, at)
	if err != nil {
		return c.head.Entries, err
	}
	if err := c.end(head); err != nil {
		return c.head.Entries, err
	}
	return c.head.Entries, e.checkIncidents(ctx, &c, inFiles[segment.Incidents])
}

// asFound is lines for a Check: a file that was altered is told of, although another server
// could give a good one. The keeper gets that one afterwards.
func (e *Etcd) asFound(ctx context.Context, r segment.Ref) ([][]byte, error) {
	lines, err := e.files.Load(r)
	if errors.Is(err, fs.ErrNotExist) {
		lines, err = e.lines(ctx, r)
	}
	if err != nil {
		e.suspect(r)
	}
	return lines, err
}

// checkSegment verifies a file of entries.
func (e *Etcd) checkSegment(ctx context.Context, c *checker, r segment.Ref) error {
	lines, err := e.asFound(ctx, r)
	if err != nil {
		return &Broken{Seq: r.First, Why: err.Error()}
	}
	if r.Before != c.head.Hash {
		return &Broken{Seq: r.First, Why: fmt.Sprintf("%s does not follow from the entry before", r)}
	}
	for _, line := range lines {
		if err := c.add(line); err != nil {
			return err
		}
	}
	if r.Hash != c.head.Hash {
		return &Broken{Seq: r.Last, Why: fmt.Sprintf("%s does not end as it was sealed", r)}
	}
	return nil
}

// checkIncidents verifies that the files of incidents are those of which the chain says
// that they were sealed, and all of them.
func (e *Etcd) checkIncidents(ctx context.Context, c *checker, refs []segment.Ref) error {
	for _, r := range refs {
		if _, err := e.asFound(ctx, r); err != nil {
			return &Broken{Seq: c.sealed[r.Name()], Why: "it says that incidents went to a file: " + err.Error()}
		}
		if c.sealed[r.Name()] == 0 {
			return &Broken{Seq: c.head.Entries + 1, Why: fmt.Sprintf("no entry says that %s was sealed", r)}
		}
		delete(c.sealed, r.Name())
	}
	for name, seq := range c.sealed { // any order: one is enough to say
		if strings.HasPrefix(name, string(segment.Incidents)) {
			return &Broken{Seq: seq, Why: fmt.Sprintf("it says that segment %s was sealed, and the store does not know it", name)}
		}
	}
	return nil
}
