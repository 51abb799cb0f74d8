package storetest

import (
	"context"
	"testing"

	"fettle/internal/loop"
)

// chained is what a server asks of a store besides.
type chained interface {
	Tip(ctx context.Context) (loop.Tip, error)
	HashAt(ctx context.Context, seq int64) (string, error)
}

// tip: a store says where its log ends and what stands where, the same after a
// restart.
func tip(t *testing.T, open Open) {
	s := load(t, open)
	var last loop.Tip
	is := func(entries int64) {
		t.Helper()
		got, err := s.Store.(chained).Tip(t.Context())
		if err != nil || got.Entries != entries || got.Epoch != s.state.Token.Epoch || (got.Hash == "") != (entries == 0) {
			t.Fatalf("the tip is %+v, %v; want %d entries of epoch %d", got, err, entries, s.state.Token.Epoch)
		}
		last = got
	}
	at := func(seq int64) string {
		t.Helper()
		hash, err := s.Store.(chained).HashAt(t.Context(), seq)
		if err != nil {
			t.Fatalf("hash at %d: %v", seq, err)
		}
		return hash
	}
	is(0)
	s.commit(loop.Txn{Log: []loop.Entry{{Kind: "start", Text: "1"}, {Kind: "start", Text: "2"}}})
	is(2)
	second := last.Hash
	s.commit(loop.Txn{Settled: []string{"k"}})
	is(2)
	s.commit(loop.Txn{Log: []loop.Entry{{Kind: "start", Text: "3"}}})
	is(3)
	third := last
	for range 2 {
		if at(2) != second || at(3) != last.Hash || at(0) != "" || at(4) != "" || at(-1) != "" || at(1) == second || at(1) == "" {
			t.Errorf("hashes %q, %q, %q, %q, %q; heads had %q and %q", at(0), at(1), at(2), at(3), at(4), second, last.Hash)
		}
		s = s.again(open)
		is(3)
		if last != third {
			t.Errorf("after a restart the tip is %+v, it was %+v", last, third)
		}
	}
}
