package world

import (
	"maps"
	"testing"
)

// FuzzFew: whatever is put in and taken out, it holds what a map would.
func FuzzFew(f *testing.F) {
	f.Add([]byte{1, 2, 3, 0x81, 4})
	long := make([]byte, 0, 120)
	for i := range byte(60) {
		long = append(long, i)
	}
	for i := range byte(60) {
		long = append(long, 0x80|i)
	}
	f.Add(long)
	f.Fuzz(func(t *testing.T, steps []byte) {
		var have few[byte, int]
		want := map[byte]int{}
		for i, s := range steps {
			key := s & 0x7f
			if s&0x80 != 0 {
				have.remove(key)
				delete(want, key)
			} else {
				*have.ensure(key) += i
				want[key] += i
			}
			got := map[byte]int{}
			for _, e := range have.list {
				got[e.key] = e.value
			}
			if !maps.Equal(got, want) || have.len() != len(want) {
				t.Fatalf("after step %d it holds %v, not %v", i, got, want)
			}
			v, ok := have.get(key)
			if w, there := want[key]; ok != there || ok && *v != w {
				t.Fatalf("after step %d %d is %v, %v, not %v, %v", i, key, v, ok, w, there)
			}
		}
	})
}
