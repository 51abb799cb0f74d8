package journal

import (
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// TestTreeIsThatOfTlog compares every head, and the proofs, with a tree that
// keeps all hashes as tlog itself makes them.
func TestTreeIsThatOfTlog(t *testing.T) {
	d := newDisk(nil)
	j := mustOpen(t, d)
	var stored []tlog.Hash
	reference := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = stored[x]
		}
		return out, nil
	})
	var heads []Head
	const n = 3*tileSize + 77
	for i := range n + 1 {
		want, err := tlog.TreeHash(int64(i), reference)
		if err != nil {
			t.Fatal(err)
		}
		got, err := j.Head()
		if err != nil || got != (Head{int64(i), want}) {
			t.Fatalf("head %v, want root %v at %d (%v)", got, want, i, err)
		}
		heads = append(heads, got)
		if i == n {
			break
		}
		mustAppend(t, j, i)
		r, err := j.At(t.Context(), Seq(i))
		if err != nil {
			t.Fatal(err)
		}
		more, err := tlog.StoredHashesForRecordHash(int64(i), r.Hash, reference)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, more...)
	}
	j = mustOpen(t, newDisk(d.data)) // the tree that Open makes is the same
	last := heads[n]
	for _, size := range []int64{1, 2, 3, 100, 255, 256, 257, 511, 512, 700, n} {
		if err := j.CheckHead(heads[size]); err != nil {
			t.Error(err)
		}
		growth, err := j.ProveGrowth(size, n)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckGrowth(growth, heads[size], last); err != nil {
			t.Error(err)
		}
		other := heads[size]
		other.Root[0] ^= 1
		var fork *Forked
		if err := CheckGrowth(growth, other, last); !errors.As(err, &fork) {
			t.Errorf("a fork at %d was proven: %v", size, err)
		}
		for _, seq := range []Seq{0, Seq(size) / 2, Seq(size) - 1} {
			r, err := j.At(t.Context(), seq)
			if err != nil {
				t.Fatal(err)
			}
			p, err := j.ProveRecord(seq, size)
			if err != nil {
				t.Fatal(err)
			}
			if err := CheckRecord(p, heads[size], seq, r.Hash); err != nil {
				t.Error(err)
			}
			if err := CheckRecord(p, heads[size], seq, tlog.RecordHash([]byte("another"))); err == nil {
				t.Errorf("another record was proven to be number %d of %d", seq, size)
			}
		}
	}
	if err := CheckGrowth(nil, Head{}, last); err != nil {
		t.Error("from nothing everything grows:", err)
	}
	for _, bad := range [][2]int64{{0, 5}, {6, 5}, {1, n + 1}} {
		if _, err := j.ProveGrowth(bad[0], bad[1]); err == nil {
			t.Errorf("growth from %d to %d was proven", bad[0], bad[1])
		}
	}
}

func TestForkIsRefused(t *testing.T) {
	write := func(last string) *Journal {
		j := mustOpen(t, newDisk(nil))
		for range 300 {
			mustAppend(t, j, 1)
		}
		if _, err := j.Append("a", last); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			mustAppend(t, j, 2)
		}
		return j
	}
	one, two := write("one"), write("two")
	seen, err := one.Head()
	if err != nil {
		t.Fatal(err)
	}
	var fork *Forked
	if err := two.CheckHead(seen); !errors.As(err, &fork) {
		t.Errorf("rewritten history: %v", err)
	}
	if err := one.CheckHead(seen); err != nil {
		t.Error(err)
	}
	// An old copy that was put back.
	old := mustOpen(t, newDisk(nil))
	for range 300 {
		mustAppend(t, old, 1)
	}
	if err := old.CheckHead(seen); !errors.As(err, &fork) || !strings.Contains(err.Error(), "300 records") {
		t.Errorf("shortened history: %v", err)
	}
}

// TestRewrittenRecordIsFound changes a record together with its checksum, as one
// who knows the format would: the tree heads behind it do not agree.
func TestRewrittenRecordIsFound(t *testing.T) {
	d := newDisk(nil)
	j := mustOpen(t, d)
	for i := range 5 {
		mustAppend(t, j, i)
	}
	f, n, err := parseFrame(d.data[headerSize:])
	if err != nil {
		t.Fatal(err)
	}
	f.payload = []byte(strings.Replace(string(f.payload), `"n":0`, `"n":9`, 1))
	forged := appendFrame(nil, f)
	if len(forged) != n {
		t.Fatal("the forged record has another length")
	}
	copy(d.data[headerSize:], forged)
	var damaged *Damaged
	if _, err := openOn(newDisk(d.data)); !errors.As(err, &damaged) {
		t.Fatalf("a forged record was taken: %v", err)
	}
}

func TestSignedHead(t *testing.T) {
	skey, vkey, err := note.GenerateKey(rand.Reader, "fleet.example")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	known := note.VerifierList(verifier)
	head := Head{Size: 42, Root: tlog.RecordHash([]byte("x"))}
	msg, err := SignHead(head, "fleet.example/chain", signer)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenHead(msg, "fleet.example/chain", known); err != nil || got != head {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := OpenHead(msg, "another/chain", known); err == nil {
		t.Error("a head of another log was taken")
	}
	forged := []byte(strings.Replace(string(msg), "\n42\n", "\n41\n", 1))
	if _, err := OpenHead(forged, "fleet.example/chain", known); err == nil {
		t.Error("a changed head was taken")
	}
	if _, err := OpenHead(msg, "fleet.example/chain", note.VerifierList()); err == nil {
		t.Error("a head was taken without a known signature")
	}
	for _, text := range []string{"fleet.example/chain\n", "fleet.example/chain\n-1\nAA\n", "fleet.example/chain\n01\n" + head.Root.String() + "\n", "fleet.example/chain\n1\nAAAA\n"} {
		bad, err := note.Sign(&note.Note{Text: text}, signer)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenHead(bad, "fleet.example/chain", known); err == nil {
			t.Errorf("taken: %q", text)
		}
	}
	if _, err := SignHead(head, "two words", signer); err == nil {
		t.Error("an origin with a blank was signed")
	}
	if _, err := SignHead(head, "fleet.example/chain"); err == nil {
		t.Error("signed by nobody")
	}
}
