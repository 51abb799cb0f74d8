package store_test

import (
	"path/filepath"
	"strconv"
	"testing"

	"fettle/internal/fleet/store/storetest"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

// BenchmarkCommit is what a step waits for before it is sent: its intent, its
// incident and three log entries, durable.
func BenchmarkCommit(b *testing.B) {
	for _, kind := range []string{"file", "etcd"} {
		b.Run(kind, func(b *testing.B) {
			s, err := openKind(b.Context(), kind, filepath.Join(b.TempDir(), "store"))
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			state, err := s.Load(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			for i := 0; b.Loop(); i++ {
				err := s.Commit(b.Context(), loop.Txn{Token: state.Token, Records: []incident.Record{storetest.Record("a", 10)},
					Intents: []loop.Intent{storetest.Intent(strconv.Itoa(i))}, Settled: []string{strconv.Itoa(i - 1)},
					Log: []loop.Entry{storetest.Entry("1"), storetest.Entry("2"), storetest.Entry("3")}})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
