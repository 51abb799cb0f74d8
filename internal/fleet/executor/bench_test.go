package executor_test

import (
	"fmt"
	"os"
	"testing"

	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/warrant"
)

// What a step costs at its executor: in one process, and over the socket with the head
// shown before, as an agent does it. The journal is synced in either.
func BenchmarkDo(b *testing.B) {
	for _, socket := range []bool{false, true} {
		b.Run(fmt.Sprintf("socket=%v", socket), func(b *testing.B) {
			h := newFleet(b).host(b.TempDir())
			var hands executor.Hands = h.ex
			if socket {
				path := socketIn(b)
				serve(b, h.ex, path, os.Geteuid())
				hands = client(b, path)
			}
			d := h.dispatch("", light)
			orders := make([]executor.Order, b.N)
			for i := range orders {
				d.Key = fmt.Sprint("k", i)
				h.head++
				orders[i] = h.order(d)
			}
			b.ResetTimer()
			for _, o := range orders {
				if why, err := hands.Follow(b.Context(), *o.Log); why != "" || err != nil {
					b.Fatal(why, err)
				}
				if out, err := hands.Do(b.Context(), o); err != nil || out.Error != "" {
					b.Fatal(out, err)
				}
			}
		})
	}
}

// BenchmarkSign is what an order costs the server.
func BenchmarkSign(b *testing.B) {
	h := newFleet(b).host(b.TempDir())
	for b.Loop() {
		h.sign(h.server, warrant.Order{Say: warrant.Do, Nonce: "a.b", Body: warrant.HashOf([]byte("{}"))})
	}
}
