package journal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// DefaultReserve is the room kept ahead of use in bytes: about a thousand steps
// with their intents and outcomes, many times what mending a full disk takes.
const DefaultReserve = 1 << 20

// MinReserve is the least room that is kept ahead of use.
const MinReserve = 16 << 10

// Clock tells the time that records carry.
type Clock interface{ Now() time.Time }

type wallClock struct{}

func (wallClock) Now() time.Time { return time.Now() }

// Options say how a journal is opened. The zero value writes, with the default
// reserve and the system's clock.
type Options struct {
	Reserve  int64 // bytes kept ahead of use; 0: DefaultReserve, less than MinReserve: that
	Clock    Clock // nil: the system's wall clock
	ReadOnly bool  // take no lock, change nothing, and read also a damaged file up to the damage
	// OnDurable is called with the records of each commit once they are durable,
	// before anybody is told so, one call at a time. Crash tests end the process in
	// it. nil: nobody is told.
	OnDurable func(first Seq, records int)
}

// Opened says what Open found.
type Opened struct {
	ID      string // identity of the file, minted when it was made; a new file is a new history
	Records int64
	New     bool     // the file was made, or had never been finished
	Torn    int64    // bytes cut off behind the last whole record; nobody was told that they were written
	Damage  *Damaged // only with ReadOnly
}

// Seq is a record's number, from 0.
type Seq int64

// Journal is an open journal. All methods may be called concurrently.
type Journal struct {
	path   string
	file   file
	opts   Options
	opened Opened
	firm   bool

	gather  sync.Mutex // guards next and closed
	next    *batch     // appends that wait for the running commit to end
	closed  bool
	commits sync.Mutex // held by the one that writes; guards size, durable and grow times
	size    int64      // of the file, room included
	durable int64      // all before this is synced
	retryAt time.Time  // not before this is the reserve tried to be refilled again

	mu     sync.Mutex // guards what readers see
	tree   tree
	end    int64 // readers may read up to here: all before it is durable
	broken error // after a failed write or sync
}

// Open opens the journal at path, or makes it. It returns a *Damaged when what
// had been durable is not whole any more, and an error that wraps ErrLocked when
// another process writes to it. A torn tail is cut off and reported by Opened.
// It reads the whole file once; ctx ends the reading.
func Open(ctx context.Context, path string, opts Options) (*Journal, error) {
	f, err := openDisk(path, opts.ReadOnly)
	if err != nil {
		return nil, err
	}
	j, err := open(ctx, f, path, opts)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return j, nil
}

func open(ctx context.Context, f file, path string, opts Options) (*Journal, error) {
	if opts.Reserve == 0 {
		opts.Reserve = DefaultReserve
	}
	opts.Reserve = max(opts.Reserve, MinReserve)
	if opts.Clock == nil {
		opts.Clock = wallClock{}
	}
	j := &Journal{path: path, file: f, opts: opts, firm: f.InPlace()}
	j.tree.leaves = j.readLeaves
	if err := j.load(ctx); err != nil {
		var d *Damaged
		if errors.As(err, &d) {
			d.Path = path
			if opts.ReadOnly {
				j.opened.Damage = d
				return j, nil
			}
			return nil, d
		}
		return nil, fmt.Errorf("journal %s: open: %w", path, err)
	}
	return j, nil
}

// load reads the file and, unless it is only read, makes it ready to be written.
func (j *Journal) load(ctx context.Context) error {
	size, err := j.file.Size()
	if err != nil {
		return err
	}
	w := &window{r: j.file, size: size}
	start, err := w.view(0, headerSize)
	if err != nil {
		return err
	}
	id, state := readHeader(start)
	if state == headerTorn {
		last, _, err := w.search(0)
		if err != nil {
			return err
		}
		if last >= headerSize {
			state = headerWrong // records without a header are not a file being made
		} else if !j.opts.ReadOnly {
			return j.create(size, last+1)
		} else {
			j.opened.New, j.opened.Torn = true, last+1
			return nil
		}
	}
	var wrong *Damaged
	if state == headerWrong {
		wrong = &Damaged{Why: "this is not the header of a journal"}
		if !j.opts.ReadOnly {
			return wrong
		}
	}
	j.opened.ID = id
	s, err := scan(ctx, j.file, size, &j.tree)
	j.end, j.durable, j.size = s.end, s.end, size
	j.opened.Records, j.opened.Torn = j.tree.size, s.torn
	switch {
	case wrong != nil:
		wrong.Records = 0
		return wrong
	case err != nil || j.opts.ReadOnly:
		return err
	}
	return j.cut(s)
}

// create writes the header of a new file over what a crash may have left of one.
func (j *Journal) create(size, torn int64) error {
	now := j.opts.Clock.Now()
	header := newHeader(now)
	j.opened.ID, _ = readHeader(header)
	j.opened.New, j.opened.Torn = true, torn
	j.size = size
	if want := headerSize + j.opts.Reserve; size < want {
		if err := j.file.Extend(want - size); err != nil {
			return fmt.Errorf("no room for a new journal of %d bytes: %w", want, err)
		}
		j.size = want
	}
	if _, err := j.file.WriteAt(header, 0); err != nil {
		return err
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	j.end, j.durable = headerSize, headerSize
	return nil
}

// cut overwrites a torn tail with zeros, in place: the room behind it is kept.
// What was read may so far be in the page cache only, so it is synced before
// anything is built on it.
func (j *Journal) cut(s scanned) error {
	zeros := make([]byte, min(s.torn, windowSize))
	for off, n := s.end, s.torn; n > 0; {
		k := min(n, int64(len(zeros)))
		if _, err := j.file.WriteAt(zeros[:k], off); err != nil {
			return fmt.Errorf("cut off a torn tail of %d bytes at byte %d: %w", s.torn, s.end, err)
		}
		off, n = off+k, n-k
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	j.refill()
	return nil
}

// Opened returns what Open found.
func (j *Journal) Opened() Opened { return j.opened }

// Close waits for the appends under way and releases the lock. Later appends
// fail with ErrClosed.
func (j *Journal) Close() error {
	j.gather.Lock()
	was := j.closed
	j.closed = true
	j.gather.Unlock()
	if was {
		return nil
	}
	j.commits.Lock()
	defer j.commits.Unlock()
	var err error
	if !j.opts.ReadOnly && j.fault() == nil {
		err = j.file.Sync() // the last tree head
	}
	if err = errors.Join(err, j.file.Close()); err != nil {
		return fmt.Errorf("journal %s: close: %w", j.path, err)
	}
	return nil
}

// fault returns why nothing can be appended any more, nil while it can.
func (j *Journal) fault() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.broken
}

// fail makes err the reason why nothing is accepted until the next Open.
func (j *Journal) fail(op string, err error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken == nil {
		j.broken = fmt.Errorf("journal %s: %s: %w (nothing more is written until it is opened again, since what was not written may be lost; look at the disk and the kernel's log)", j.path, op, err)
	}
	return j.broken
}

// readLeaves reads the leaf hashes of a complete tile from the file.
func (j *Journal) readLeaves(tile int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, 0, tileSize)
	w := &window{r: j.file, size: j.end}
	at := j.tree.offsets[tile]
	for len(out) < tileSize {
		f, n, err := w.frameAt(at)
		if err != nil {
			return nil, fmt.Errorf("journal %s: read again at byte %d: %w", j.path, at, err)
		}
		if f.kindOf == typeRecord {
			out = append(out, tlog.RecordHash(f.leaf))
		}
		at += int64(n)
	}
	return out, nil
}
