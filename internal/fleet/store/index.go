package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sort"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/fleet/segment"
	"fettle/internal/loop"
)

// Where what went to files is named.
const (
	keySegments = "segment/" // by kind and first number: a segment.Ref; it only grows
	keyOffer    = "offer/"   // by kind: the segment.Ref that the servers are to hold before it counts
	keyHeld     = "held/"    // by server: what it holds of them
)

func segmentKey(kind segment.Kind, first int64) string {
	return fmt.Sprintf("%s%s/%020d", keySegments, kind, first)
}

// index is what went to files, as far as it was read. A kind's segments follow each other
// without a gap, and none is ever taken back.
type index struct {
	mu   sync.Mutex
	refs map[segment.Kind][]segment.Ref
}

// refs returns all segments of a kind, in order. The list is not to be changed.
func (e *Etcd) refs(ctx context.Context, kind segment.Kind) ([]segment.Ref, error) {
	e.index.mu.Lock()
	defer e.index.mu.Unlock()
	known := e.index.refs[kind]
	more, err := e.refsFrom(ctx, kind, known)
	if err != nil {
		return nil, err
	}
	e.index.refs[kind] = more
	return more[:len(more):len(more)], nil
}

// refsFrom appends the segments behind those that are known. Where one does not follow
// from the one before, that is a *Broken of the entry where it should be.
func (e *Etcd) refsFrom(ctx context.Context, kind segment.Kind, known []segment.Ref, opts ...clientv3.OpOption) ([]segment.Ref, error) {
	from := ""
	if n := len(known); n > 0 {
		from = segmentKey(kind, known[n-1].First) + "\x00"
	}
	err := e.each(ctx, keySegments+string(kind)+"/", from, func(key string, value []byte) error {
		r, err := segment.ParseRef(value)
		next := int64(1)
		if n := len(known); n > 0 {
			next = known[n-1].Last + 1
		}
		if err == nil && (r.Kind != kind || r.First != next || key != segmentKey(kind, r.First)) {
			err = fmt.Errorf("%s stands where one that begins with %d should", r, next)
		}
		if err != nil {
			return &Broken{Seq: next, Why: "what is in files: " + err.Error()}
		}
		known = append(known, r)
		return nil
	}, opts...)
	return known, err
}

// sealedAt finds the segment that has a number in it.
func sealedAt(refs []segment.Ref, n int64) (segment.Ref, bool) {
	i := sort.Search(len(refs), func(i int) bool { return refs[i].Last >= n })
	if i == len(refs) || refs[i].First > n {
		return segment.Ref{}, false
	}
	return refs[i], true
}

// through is the number of the last thing that is in files, 0 where there is none.
func through(refs []segment.Ref) int64 {
	if len(refs) == 0 {
		return 0
	}
	return refs[len(refs)-1].Last
}

// endOf is where the chain stands behind the entries that are in files.
func endOf(refs []segment.Ref) loop.Head {
	if len(refs) == 0 {
		return loop.Head{}
	}
	last := refs[len(refs)-1]
	return loop.Head{Entries: last.Last, Hash: last.Hash}
}

// Fetch gets a segment's bytes from the server that is reached at an address. What it
// returns is checked before it is used. fs.ErrNotExist: that one does not hold it.
type Fetch func(ctx context.Context, address string, r segment.Ref) ([]byte, error)

// lines returns a segment's lines. One that is not here is fetched from another server,
// and kept. The error names the segment.
func (e *Etcd) lines(ctx context.Context, r segment.Ref) ([][]byte, error) {
	return orFetched(ctx, e, r, e.files.Load)
}

// orFetched reads a segment that is here, or is fetched first, in one way or another.
func orFetched[T any](ctx context.Context, e *Etcd, r segment.Ref, read func(segment.Ref) (T, error)) (T, error) {
	got, err := read(r)
	var bad *segment.Bad
	if err == nil || !errors.As(err, &bad) {
		return got, err
	}
	if ferr := e.fetch(ctx, r); ferr != nil {
		var none T
		return none, errors.Join(err, ferr)
	}
	return read(r)
}

// fetch gets a segment from whichever other server holds it.
func (e *Etcd) fetch(ctx context.Context, r segment.Ref) error {
	from := e.fetcher.Load()
	self, several := e.self()
	if from == nil || !several {
		return errors.New("there is no other server to get it from")
	}
	addresses, err := e.Addresses(ctx)
	if err != nil {
		return fmt.Errorf("get %s from another server: %w", r, err)
	}
	failed := []error{fmt.Errorf("no other server gave %s", r)}
	for _, name := range slices.Sorted(maps.Keys(addresses)) {
		if name == self.Name {
			continue
		}
		data, err := (*from)(ctx, addresses[name], r)
		if err == nil {
			err = e.files.Put(r, data)
		}
		if err == nil {
			return nil
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("it does not hold it either")
		}
		failed = append(failed, fmt.Errorf("server %s: %w", name, err))
	}
	return errors.Join(failed...)
}

// hashes remembers the hashes of the segments that were asked about last: ten thousand
// agents that come back ask about the same few.
type hashes struct {
	mu   sync.Mutex
	list []segmentHashes
}

type segmentHashes struct {
	name   string
	hashes []string // by number, from First on
}

// hashesKept is of how many segments; one takes half a megabyte.
const hashesKept = 4

func (e *Etcd) hashIn(ctx context.Context, r segment.Ref, seq int64) (string, error) {
	e.hashes.mu.Lock()
	defer e.hashes.mu.Unlock()
	for _, s := range e.hashes.list {
		if s.name == r.Name() {
			return s.hashes[seq-r.First], nil
		}
	}
	lines, err := e.lines(ctx, r)
	if err != nil {
		return "", &Broken{Seq: seq, Why: err.Error()}
	}
	s := segmentHashes{name: r.Name()}
	for i, line := range lines {
		hash, err := hashOf(r.First+int64(i), line)
		if err != nil {
			return "", err
		}
		s.hashes = append(s.hashes, hash)
	}
	e.hashes.list = append(e.hashes.list, s)
	e.hashes.list = e.hashes.list[max(0, len(e.hashes.list)-hashesKept):]
	return s.hashes[seq-r.First], nil
}

// Segment returns the bytes of a segment that is held here, for another server. The error
// wraps fs.ErrNotExist where it is not.
func (e *Etcd) Segment(r segment.Ref) ([]byte, error) { return e.files.Bytes(r) }
