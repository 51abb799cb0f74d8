package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"
)

// disk is a file on a disk that tests can fill, break and cut from its power. It
// keeps, for every sector, each content that was written since the last sync:
// after a power cut any one of them, or the synced one, may be what is found.
type disk struct {
	mu     sync.Mutex
	data   []byte
	synced []byte
	since  map[int][][]byte // sector: contents written since the last sync
	limit  int64            // of the file's length; 0: none
	syncs  int

	writeErr, syncErr error
	beforeSync        func()
}

const sector = 512

func newDisk(content []byte) *disk {
	return &disk{data: bytes.Clone(content), synced: bytes.Clone(content), since: map[int][][]byte{}}
}

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off >= int64(len(d.data)) {
		return 0, io.EOF
	}
	n := copy(p, d.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.writeErr != nil {
		return 0, d.writeErr
	}
	if off+int64(len(p)) > int64(len(d.data)) {
		return 0, fmt.Errorf("write at %d of %d bytes: beyond the room of %d", off, len(p), len(d.data))
	}
	copy(d.data[off:], p)
	for s := int(off) / sector; s*sector < int(off)+len(p); s++ {
		d.since[s] = append(d.since[s], bytes.Clone(d.sector(d.data, s)))
	}
	return len(p), nil
}

func (d *disk) sector(b []byte, s int) []byte { return b[s*sector : min((s+1)*sector, len(b))] }

func (d *disk) Size() (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return int64(len(d.data)), nil
}

func (d *disk) Extend(n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.limit > 0 && int64(len(d.data))+n > d.limit {
		return fmt.Errorf("fallocate: %w", syscall.ENOSPC)
	}
	d.data = append(d.data, make([]byte, n)...)
	d.synced = append(d.synced, make([]byte, n)...)
	return nil
}

func (d *disk) Sync() error {
	if d.beforeSync != nil {
		d.beforeSync()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.syncErr != nil {
		return d.syncErr
	}
	d.syncs++
	copy(d.synced, d.data)
	clear(d.since)
	return nil
}

func (d *disk) InPlace() bool { return true }
func (d *disk) Close() error  { return nil }

// powerCut returns what is on the disk after the power failed now.
func (d *disk) powerCut(r *rand.Rand) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := bytes.Clone(d.synced)
	for s := 0; s*sector < len(out); s++ { // in order: the seed decides
		versions := d.since[s]
		if n := r.IntN(len(versions) + 1); n > 0 {
			copy(d.sector(out, s), versions[n-1])
		}
	}
	return out
}

// used is the content without the zeros behind it.
func (d *disk) used() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.TrimRight(bytes.Clone(d.data), "\x00")
}

// testNote is the payload that the tests write.
type testNote struct {
	N    int    `json:"n"`
	Text string `json:"text,omitempty"`
}

type fixedClock struct{}

func (fixedClock) Now() time.Time { return time.Unix(1700000000, 0) }

// openOn opens a journal on a disk.
func openOn(d *disk) (*Journal, error) {
	return open(context.Background(), d, "test.journal", Options{Reserve: MinReserve, Clock: fixedClock{}})
}

func mustOpen(t testing.TB, d *disk) *Journal {
	t.Helper()
	j, err := openOn(d)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func mustAppend(t testing.TB, j *Journal, n int) {
	t.Helper()
	if _, err := j.Append("test.note", testNote{N: n, Text: "some words that fill a record"}); err != nil {
		t.Fatal(err)
	}
}

// notes reads all numbers back and checks that each stands at its own place.
func notes(t testing.TB, j *Journal) []int {
	t.Helper()
	var out []int
	err := j.Read(context.Background(), 0, func(r Record) error {
		var n testNote
		if err := json.Unmarshal(r.Data, &n); err != nil {
			return err
		}
		if int(r.Seq) != len(out) {
			return fmt.Errorf("record %d read as number %d", r.Seq, len(out))
		}
		out = append(out, n.N)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// checkCount fails unless notes are 0, 1, 2 … want-1.
func checkCount(t testing.TB, got []int, want int) {
	t.Helper()
	if len(got) != want {
		t.Fatalf("%d records, want %d", len(got), want)
	}
	for i, n := range got {
		if n != i {
			t.Fatalf("record %d holds %d", i, n)
		}
	}
}
