package server

import (
	"fmt"
	"testing"
	"unsafe"

	"fettle/internal/fettle"
)

// TestWords: facts that come again are equal to what came, and share their texts; what
// is not asked for any more is let go.
func TestWords(t *testing.T) {
	var w words
	make := func(state string) fettle.Facts {
		return fettle.Facts{string([]byte("state")): string([]byte(state)), "n": int64(70_000), "up": true, "list": []string{"a"}}
	}
	first, second := w.facts(make("active")), w.facts(make("active"))
	if !first.Equal(make("active")) || !second.Equal(first) {
		t.Fatalf("%v and %v are not what came", first, second)
	}
	a, _ := first.Str("state")
	b, _ := second.Str("state")
	if unsafe.StringData(a) != unsafe.StringData(b) {
		t.Error("the same text is there twice")
	}
	if w.facts(nil) != nil {
		t.Error("no facts become some")
	}
	for i := range 3 * wordsMost {
		w.facts(fettle.Facts{"id": fmt.Sprint("text", i)})
	}
	if n := len(w.now) + len(w.before); n > 2*wordsMost {
		t.Errorf("%d texts are kept, more than %d", n, 2*wordsMost)
	}
	if _, kept := w.now["active"]; kept {
		t.Error("a text that nobody asks for any more is still there")
	}
	if _, kept := w.now["id"]; !kept {
		t.Error("a name that comes all the time was let go")
	}
}
