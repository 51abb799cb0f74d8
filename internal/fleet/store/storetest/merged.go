package storetest

import (
	"testing"

	"fettle/internal/loop"
)

// merged: how far agents' own chains were taken is kept with what was taken, by host.
func merged(t *testing.T, open Open) {
	s := load(t, open)
	taken := loop.Merged{Host: "host:h1", Chains: []loop.Chain{{Chain: "c1", Head: loop.Head{Entries: 1, Hash: "a"}}}}
	s.commit(loop.Txn{Merged: []loop.Merged{taken}, Log: []loop.Entry{Entry("1")}})
	taken.Chains[0].Entries = 2
	other := loop.Merged{Host: "host:h0"}
	s.commit(loop.Txn{Merged: []loop.Merged{taken, other}})
	s = s.again(open)
	equal(t, "merged", s.state.Merged, []loop.Merged{other, taken})
	s.check(1)
}
