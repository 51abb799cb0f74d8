package journal

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

// sample is a journal with single records and groups, as bytes, and how many
// records are whole in each prefix of it, and where the last whole frame ends.
func sample(t testing.TB, records int) (content []byte, wholeBefore func(prefix int) (records, end int)) {
	d := newDisk(nil)
	j := mustOpen(t, d)
	ends := []int{} // ends[i]: where record i, with its whole group, ends
	for n := 0; n < records; {
		if n%5 == 2 && n+3 <= records {
			if _, err := j.AppendAll(Entry{Kind: "g", Value: testNote{N: n}}, Entry{Kind: "g", Value: testNote{N: n + 1}}, Entry{Kind: "g", Value: testNote{N: n + 2}}); err != nil {
				t.Fatal(err)
			}
			n += 3
		} else {
			mustAppend(t, j, n)
			n++
		}
		for len(ends) < n {
			ends = append(ends, int(j.durable))
		}
	}
	return d.used(), func(prefix int) (int, int) {
		n, end := 0, min(prefix, headerSize)
		for n < len(ends) && ends[n] <= prefix {
			end = ends[n]
			if end+headFrame <= prefix {
				end += headFrame
			}
			n++
		}
		return n, end
	}
}

// TestEveryPrefixOpens cuts the file at every byte, with and without the room
// behind it: every whole record is there, the rest is reported, and the journal
// goes on.
func TestEveryPrefixOpens(t *testing.T) {
	content, whole := sample(t, 12)
	for n := 0; n <= len(content); n++ {
		for _, room := range []int{0, 3000} {
			d := newDisk(append(bytes.Clone(content[:n]), make([]byte, room)...))
			if n < headerSize && n > 0 && room > 0 {
				continue // a header is less than a sector and cannot be torn inside a long file
			}
			j, err := openOn(d)
			if err != nil {
				t.Fatalf("prefix of %d bytes and %d of room: %v", n, room, err)
			}
			want, end := whole(n)
			checkCount(t, notes(t, j), want)
			torn := int64(len(bytes.TrimRight(content[end:n], "\x00")))
			if n < headerSize {
				torn = int64(len(bytes.TrimRight(content[:n], "\x00")))
			}
			if j.opened.Torn != torn {
				t.Fatalf("prefix of %d bytes: %d torn bytes reported, want %d", n, j.opened.Torn, torn)
			}
			mustAppend(t, j, want)
			if j = mustOpen(t, newDisk(d.data)); j.opened.Torn != 0 {
				t.Fatalf("prefix of %d: %d bytes still torn after the next append", n, j.opened.Torn)
			}
			checkCount(t, notes(t, j), want+1)
		}
	}
}

// TestGarbageBehindTheEnd puts what a crash may leave behind the last record.
func TestGarbageBehindTheEnd(t *testing.T) {
	content, whole := sample(t, 12)
	all, _ := whole(len(content))
	random := make([]byte, 2000)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	debris := appendFrame(nil, frame{kindOf: typeRecord, kind: "a", number: int64(all + 1), durable: int64(len(content)), payload: []byte("{}")})
	for name, tail := range map[string][]byte{
		"random":               random,
		"a magic":              frameMagic,
		"long length":          append(bytes.Clone(frameMagic), 0xff, 0xff, 0xff, 0x00),
		"zeros, then garbage":  append(make([]byte, 700), random...),
		"a later whole record": append(make([]byte, 99), debris...),
	} {
		d := newDisk(append(bytes.Clone(content), tail...))
		j, err := openOn(d)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want := int64(len(bytes.TrimRight(tail, "\x00"))); j.opened.Torn != want {
			t.Errorf("%s: %d torn bytes reported, want %d", name, j.opened.Torn, want)
		}
		checkCount(t, notes(t, j), all)
		mustAppend(t, j, all)
		if j = mustOpen(t, newDisk(d.data)); j.opened.Torn != 0 {
			t.Errorf("%s: still torn", name)
		}
		checkCount(t, notes(t, j), all+1)
	}
}

// TestEveryBitFlipIsFound flips each bit of the used part. Either it is damage,
// named with its offset, or it hit the last tree head, whose loss loses no record
// and is reported.
func TestEveryBitFlipIsFound(t *testing.T) {
	content, whole := sample(t, 12)
	all, _ := whole(len(content))
	lastHead := len(content) - headFrame
	for bit := range 8 * len(content) {
		b := append(bytes.Clone(content), make([]byte, 600)...)
		b[bit/8] ^= 1 << (bit % 8)
		j, err := openOn(newDisk(b))
		var d *Damaged
		switch {
		case bit/8 >= lastHead:
			if err != nil || j.opened.Torn == 0 {
				t.Fatalf("bit %d of the last head: %v", bit, err)
			}
			checkCount(t, notes(t, j), all)
			continue
		case !errors.As(err, &d):
			t.Fatalf("bit %d of byte %d: not found: %v", bit%8, bit/8, err)
		case d.Offset > int64(bit/8):
			t.Fatalf("bit %d of byte %d: damage reported at %d, behind it", bit%8, bit/8, d.Offset)
		}
		if n, _ := whole(bit / 8); d.Records > int64(n) {
			t.Fatalf("byte %d: %d whole records before it, there are %d", bit/8, d.Records, n)
		}
	}
}

// TestNewerFrameIsNotCutOff keeps what a newer version appended.
func TestNewerFrameIsNotCutOff(t *testing.T) {
	content, _ := sample(t, 3)
	newer := appendFrame(nil, frame{kindOf: 9, number: 3, durable: int64(len(content)), payload: []byte("{}")})
	b := append(content, newer...)
	d := newDisk(b)
	var damaged *Damaged
	if _, err := openOn(d); !errors.As(err, &damaged) || damaged.Offset != int64(len(content)) {
		t.Fatalf("opened: %v", err)
	}
	if !bytes.Equal(d.data, b) {
		t.Fatal("it was changed")
	}
}

// TestDamagedIsStillRead opens a damaged journal for reading: what is whole
// before the damage comes, then the error.
func TestDamagedIsStillRead(t *testing.T) {
	content, whole := sample(t, 12)
	at := 2 * len(content) / 3
	before, _ := whole(at)
	content[at] ^= 0xff
	d := newDisk(content)
	j, err := open(t.Context(), d, "x", Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if j.Opened().Damage == nil {
		t.Fatal("damage is not reported")
	}
	n := 0
	err = j.Read(t.Context(), 0, func(Record) error { n++; return nil })
	var damage *Damaged
	if !errors.As(err, &damage) || n == 0 || n > before || int64(n) != damage.Records {
		t.Fatalf("%d records, then %v", n, err)
	}
	if !bytes.Equal(d.data, content) {
		t.Fatal("reading changed the file")
	}
}

// TestPowerCut appends, cuts the power at a random moment, and opens what the
// disk may then hold: all acknowledged records are there, groups are whole, and
// the next life goes on from there.
func TestPowerCut(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 7))
		d := newDisk(nil)
		acked, begun := 0, 0
		for range 4 { // lives
			j, err := openOn(d)
			if err != nil {
				t.Fatalf("seed %d, %d acknowledged: %v", seed, acked, err)
			}
			got := notes(t, j)
			if len(got) < acked || len(got) > begun {
				t.Fatalf("seed %d: %d records, acknowledged %d, begun %d", seed, len(got), acked, begun)
			}
			checkCount(t, got, len(got))
			begun = len(got)
			acked = begun
			failed := false
			for range r.IntN(12) {
				group := make([]Entry, 1+r.IntN(4))
				for i := range group {
					group[i] = Entry{Kind: "g", Value: testNote{N: begun + i, Text: string(bytes.Repeat([]byte("x"), r.IntN(1200)))}}
				}
				begun += len(group)
				if r.IntN(8) == 0 { // the power fails while this one is being written
					frames, err := j.frames(group)
					if err != nil {
						t.Fatal(err)
					}
					d.syncErr = errors.New("no power")
					if err := j.commit(&batch{groups: [][]frame{frames}}); err == nil {
						t.Fatal("committed without power")
					}
					d.syncErr = nil
					failed = true
					break
				}
				if _, err := j.AppendAll(group...); err != nil {
					t.Fatal(err)
				}
				acked = begun
			}
			// A life may also end by SIGKILL: what it wrote is then still in memory,
			// and the next life finds it there without its being durable.
			if failed || r.IntN(2) == 0 {
				d = newDisk(d.powerCut(r))
			}
		}
	}
}

// TestKilledThenPowerCut has a life read what is only in memory, build on it, and
// lose its power before its own first sync: what it read must have been synced.
func TestKilledThenPowerCut(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 9))
		d := newDisk(nil)
		j := mustOpen(t, d)
		mustAppend(t, j, 0)
		frames, err := j.frames([]Entry{{Kind: "a", Value: testNote{N: 1, Text: string(bytes.Repeat([]byte("x"), 1500))}}})
		if err != nil {
			t.Fatal(err)
		}
		d.syncErr = errors.New("killed here")
		if err := j.commit(&batch{groups: [][]frame{frames}}); err == nil {
			t.Fatal("committed")
		}
		d.syncErr = nil
		j = mustOpen(t, d) // the next life, in the same memory
		n := int(j.Opened().Records)
		frames, err = j.frames([]Entry{{Kind: "a", Value: testNote{N: n, Text: string(bytes.Repeat([]byte("y"), 1500))}}})
		if err != nil {
			t.Fatal(err)
		}
		d.syncErr = errors.New("no power")
		if err := j.commit(&batch{groups: [][]frame{frames}}); err == nil {
			t.Fatal("committed")
		}
		j, err = openOn(newDisk(d.powerCut(r)))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if got := notes(t, j); len(got) < n {
			t.Fatalf("seed %d: %d records, the life before had shown %d", seed, len(got), n)
		}
	}
}

// TestLostSectorIsFound zeroes one sector at a time, also the one with the head
// that would tell, and with the last head not written: nothing that was synced
// before the last batch may vanish unseen.
func TestLostSectorIsFound(t *testing.T) {
	content, _ := sample(t, 40)
	content = content[:len(content)-headFrame]
	last := bytes.LastIndex(content, frameMagic)
	found := 0
	for at := 0; at+sector <= last; at++ {
		b := append(bytes.Clone(content), make([]byte, 600)...)
		clear(b[at : at+sector])
		var d *Damaged
		if _, err := openOn(newDisk(b)); !errors.As(err, &d) {
			t.Fatalf("a lost sector at byte %d was not found: %v", at, err)
		}
		found++
	}
	if found < 1000 {
		t.Fatalf("only %d places were tried", found)
	}
}

func FuzzOpen(f *testing.F) {
	content, _ := sample(f, 7)
	f.Add(content)
	f.Add(content[:len(content)-20])
	f.Add(append(bytes.Clone(content), "FjR1garbage"...))
	f.Add([]byte("FjR1"))
	f.Add(make([]byte, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := newDisk(b)
		j, err := openOn(d)
		if err != nil {
			if !bytes.Equal(d.data[:len(b)], b) {
				t.Fatal("refused and changed")
			}
			return
		}
		n := j.Opened().Records
		if _, err := j.Append("a", 1); err != nil {
			t.Fatal(err)
		}
		j, err = openOn(newDisk(d.data))
		if err != nil || j.Opened().Torn != 0 || j.Opened().Records != n+1 {
			t.Fatalf("after repair and one append: %+v, %v", j.Opened(), err)
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(nil, frame{kindOf: typeRecord, kind: "a", payload: []byte(`{"n":1}`)}))
	f.Add(appendFrame(nil, frame{kindOf: typeHead, payload: make([]byte, 32)}))
	f.Add([]byte("FjR1"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, n, err := parseFrame(b)
		if err != nil {
			return
		}
		if again := appendFrame(nil, got); !bytes.Equal(again, b[:n]) {
			t.Fatalf("%d bytes read as %+v, written as %x", n, got, again)
		}
	})
}
