package store

import (
	"bytes"
	"testing"

	"fettle/internal/loop"
)

// FuzzFollow: entries that come from elsewhere are whatever somebody sent. What is
// taken is numbered from the head on without a gap.
func FuzzFollow(f *testing.F) {
	kept, _, err := seal(loop.Head{}, []loop.Entry{{Kind: "note", Text: "a"}, {Kind: "note", Text: "b"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(int64(0), "", bytes.Join(kept, []byte("\n")))
	f.Add(int64(1), "x", kept[1])
	f.Add(int64(0), "", []byte(`{"entry":null,"hash":""}`))
	f.Fuzz(func(t *testing.T, after int64, hash string, data []byte) {
		list, err := Follow(loop.Head{Entries: after, Hash: hash}, bytes.Split(data, []byte("\n")))
		if err != nil {
			return
		}
		for i, e := range list {
			if e.Seq != after+int64(i)+1 || e.Hash == "" {
				t.Errorf("entry %d after %d is %+v", i, after, e)
			}
		}
	})
}
