package journal

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestAppendReadReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if o := j.Opened(); !o.New || o.ID == "" || o.Torn != 0 {
		t.Fatalf("opened %+v", o)
	}
	raw := json.RawMessage(`{"n":0,"from_a_newer_version":{"kept":[1,2]}}`)
	if seq, err := j.AppendAll(Entry{Kind: "a.b", Schema: 7, Value: raw}); err != nil || seq != 0 {
		t.Fatal(seq, err)
	}
	for i := 1; i < 700; i++ { // more than two tiles
		mustAppend(t, j, i)
	}
	id := j.Opened().ID
	head, err := j.Head()
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append("x", 1); !errors.Is(err, ErrClosed) {
		t.Fatalf("append after close: %v", err)
	}

	j, err = Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if o := j.Opened(); o.New || o.ID != id || o.Torn != 0 || o.Records != 700 {
		t.Fatalf("opened %+v", o)
	}
	checkCount(t, notes(t, j), 700)
	if err := j.CheckHead(head); err != nil {
		t.Fatal(err)
	}
	r, err := j.At(t.Context(), 0)
	if err != nil || string(r.Data) != string(raw) || r.Schema != 7 || r.Kind != "a.b" {
		t.Fatalf("record 0: %+v, %v", r, err)
	}
	for _, seq := range []Seq{255, 256, 257, 699} {
		r, err := j.At(t.Context(), seq)
		var n testNote
		if err != nil || r.Decode(&n) != nil || n.N != int(seq) {
			t.Fatalf("record %d: %+v, %v", seq, r, err)
		}
	}
	if _, err := j.At(t.Context(), 700); err == nil {
		t.Fatal("record 700 is there")
	}
}

func TestAppendRefusesBadInput(t *testing.T) {
	j := mustOpen(t, newDisk(nil))
	for name, e := range map[string]Entry{
		"no kind":      {Value: 1},
		"shouting":     {Kind: "A", Value: 1},
		"control":      {Kind: "a\x00b", Value: 1},
		"long kind":    {Kind: strings.Repeat("a", maxKind+1), Value: 1},
		"schema":       {Kind: "a", Schema: 1 << 16, Value: 1},
		"no JSON":      {Kind: "a", Value: make(chan int)},
		"broken JSON":  {Kind: "a", Value: json.RawMessage(`{"a":`)},
		"large record": {Kind: "a", Value: strings.Repeat("x", MaxRecord)},
	} {
		if _, err := j.AppendAll(e); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := j.AppendAll(); err == nil {
		t.Error("nothing: accepted")
	}
	mustAppend(t, j, 0)
	checkCount(t, notes(t, j), 1)
}

func TestOneWriterOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, j, 0)
	if _, err := Open(t.Context(), path, Options{}); !errors.Is(err, ErrLocked) {
		t.Fatalf("second writer: %v", err)
	}
	r, err := Open(t.Context(), path, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	checkCount(t, notes(t, r), 1)
	if _, err := r.Append("a", 1); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("append to a read-only journal: %v", err)
	}
	if err := errors.Join(r.Close(), j.Close()); err != nil {
		t.Fatal(err)
	}
	if j, err = Open(t.Context(), path, Options{}); err != nil {
		t.Fatalf("after the writer closed: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefusesWhatIsNoJournal(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"short text": "hello",
		"long text":  strings.Repeat("all work and no play\n", 100),
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		var d *Damaged
		if _, err := Open(t.Context(), path, Options{}); !errors.As(err, &d) {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != content {
			t.Errorf("%s: the file was changed (%v)", name, err)
		}
	}
	if _, err := Open(t.Context(), dir, Options{}); err == nil {
		t.Error("a folder was opened")
	}
	if _, err := Open(t.Context(), filepath.Join(dir, "missing"), Options{ReadOnly: true}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing, to read: %v", err)
	}
}

// TestGroupCommit holds the first sync until all others wait, and counts syncs.
func TestGroupCommit(t *testing.T) {
	d := newDisk(nil)
	j := mustOpen(t, d)
	const writers = 50
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	d.beforeSync = func() { once.Do(func() { close(entered); <-release }) }
	before := d.syncs

	var all sync.WaitGroup
	all.Go(func() { mustAppend(t, j, 0) })
	<-entered
	for i := 1; i < writers; i++ {
		all.Go(func() {
			if _, err := j.AppendAll(Entry{Kind: "a", Value: testNote{N: i}}, Entry{Kind: "a", Value: testNote{N: i}}); err != nil {
				t.Error(err)
			}
		})
	}
	for waiting := 0; waiting < writers-1; {
		j.gather.Lock()
		if j.next != nil {
			waiting = len(j.next.groups)
		}
		j.gather.Unlock()
		runtime.Gosched()
	}
	close(release)
	all.Wait()
	if n := d.syncs - before; n > 3 { // two commits, one refill at most
		t.Errorf("%d syncs for %d appends", n, writers)
	}
	if j = mustOpen(t, newDisk(d.data)); j.Opened().Records != 1+2*(writers-1) {
		t.Errorf("%d records", j.Opened().Records)
	}
	got := notes(t, j)
	for i := 1; i < len(got); i += 2 { // a group's records stand together
		if got[i] != got[i+1] {
			t.Fatalf("records %d and %d are of different groups", i, i+1)
		}
	}
}

func TestConcurrentAppendReadProve(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, err := Open(t.Context(), path, Options{Reserve: MinReserve}) // small: it grows often
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range 200 {
				if _, err := j.Append("a", testNote{N: i, Text: strings.Repeat("x", i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 2 {
		all.Go(func() {
			for last := (Head{}); last.Size < 800; {
				h, err := j.Head()
				if err != nil {
					t.Error(err)
					return
				}
				if err := j.CheckHead(last); last.Size > 0 && err != nil {
					t.Error(err)
					return
				}
				n := int64(0)
				if err := j.Read(t.Context(), 0, func(Record) error { n++; return nil }); err != nil || n < h.Size {
					t.Errorf("read %d of %d: %v", n, h.Size, err)
					return
				}
				// Another process that only reads must never take the writer's work for damage.
				r, err := Open(t.Context(), path, Options{ReadOnly: true})
				if err != nil || r.Opened().Damage != nil {
					t.Errorf("read-only: %v, %v", err, r.Opened().Damage)
					return
				}
				if err := errors.Join(r.CheckHead(h), r.Close()); err != nil {
					t.Error(err)
					return
				}
				last = h
			}
		})
	}
	all.Wait()
}

func TestNothingIsAcceptedAfterAFailedWrite(t *testing.T) {
	for name, breakIt := range map[string]func(*disk){
		"write": func(d *disk) { d.writeErr = syscall.EIO },
		"sync":  func(d *disk) { d.syncErr = syscall.EIO },
	} {
		d := newDisk(nil)
		j := mustOpen(t, d)
		mustAppend(t, j, 0)
		breakIt(d)
		if _, err := j.Append("a", testNote{N: 1}); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", name, err)
		}
		d.writeErr, d.syncErr = nil, nil
		// A later sync could succeed although the kernel dropped the first write.
		if _, err := j.Append("a", testNote{N: 1}); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: went on after the disk failed: %v", name, err)
		}
		checkCount(t, notes(t, j), 1)
		j = mustOpen(t, d)
		for i := int(j.Opened().Records); i < 3; i++ {
			mustAppend(t, j, i)
		}
		checkCount(t, notes(t, j), 3)
	}
}
