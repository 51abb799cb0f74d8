package journal

import (
	"path/filepath"
	"testing"
)

// BenchmarkAppend is one durable record after another, as an agent writes its
// intents.
func BenchmarkAppend(b *testing.B) {
	j, err := Open(b.Context(), filepath.Join(b.TempDir(), "j"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	for i := 0; b.Loop(); i++ {
		mustAppend(b, j, i)
	}
}

// BenchmarkAppendTogether is many appenders that share syncs.
func BenchmarkAppendTogether(b *testing.B) {
	j, err := Open(b.Context(), filepath.Join(b.TempDir(), "j"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	b.SetParallelism(32)
	b.RunParallel(func(p *testing.PB) {
		for i := 0; p.Next(); i++ {
			mustAppend(b, j, i)
		}
	})
}

// BenchmarkOpen reads ten thousand records.
func BenchmarkOpen(b *testing.B) {
	d := newDisk(nil)
	j := mustOpen(b, d)
	for i := range 10_000 {
		mustAppend(b, j, i)
	}
	for b.Loop() {
		mustOpen(b, d)
	}
}
