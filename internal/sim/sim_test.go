package sim_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"fettle/internal/adapter/all"
	"fettle/internal/fettle"
	"fettle/internal/sim"
	"fettle/runbooks"
)

var (
	seeds = flag.Uint64("sim.seeds", 24, "how many seeds TestSeeds runs; `make sim-test` runs 2,000")
	from  = flag.Uint64("sim.from", 1, "the first of them")
	one   = flag.Uint64("sim.seed", 0, "run this seed alone, and tell its story")
	names = flag.String("sim.hashes", "", "a file that TestSeeds writes every seed's hash to: two that are alike judged alike")
)

// shards are how many runs go on at once.
const shards = 2

func know(t *testing.T) *sim.Knowledge {
	t.Helper()
	var cats []fettle.Catalogue
	for _, a := range all.Adapters() {
		cats = append(cats, a.Catalogue())
	}
	lib, err := sim.Know(cats, runbooks.FS(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return lib
}

// TestSeeds: seeds of random faults and repairs, none of which breaks an invariant,
// and after which what can be mended is, and of the rest a person knows.
func TestSeeds(t *testing.T) {
	if *one != 0 {
		r := sim.Run(t, know(t), sim.Options{Seed: *one, Trace: func(line string) { t.Log(line) }})
		t.Logf("seed %d: %d events, %d steps, %d mended, hash %.16s", r.Seed, r.Events, r.Steps, r.Mended, r.Hash)
		for _, b := range r.Broken {
			t.Error(b)
		}
		return
	}
	if testing.Short() {
		*seeds = min(*seeds, 6)
	}
	var next, events, steps, mended, calls atomic.Int64
	hashes := make([]string, *seeds)
	next.Store(int64(*from))
	t.Run("all", func(t *testing.T) {
		for n := range shards {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				t.Parallel()
				lib := know(t)
				for {
					seed := uint64(next.Add(1)) - 1
					if seed >= *from+*seeds {
						return
					}
					r := sim.Run(t, lib, sim.Options{Seed: seed})
					hashes[seed-*from] = fmt.Sprintf("%d %s", seed, r.Hash)
					events.Add(int64(r.Events))
					steps.Add(int64(r.Steps))
					mended.Add(int64(r.Mended))
					calls.Add(int64(r.Calls))
					if len(r.Broken) > 0 {
						t.Errorf("seed %d: %s\nagain: go test ./internal/sim -run TestSeeds -v -sim.seed %d\n…\n%s", seed, r.Broken[0], seed, r.Short(25))
					}
				}
			})
		}
	})
	t.Logf("%d seeds: %d events, %d steps of Fettle's, %d incidents mended, a person called %d times", *seeds, events.Load(), steps.Load(), mended.Load(), calls.Load())
	if *names != "" {
		if err := os.WriteFile(*names, []byte(strings.Join(hashes, "\n")+"\n"), 0o600); err != nil {
			t.Error(err)
		}
	}
	if !t.Failed() && (steps.Load() < 5*int64(*seeds) || mended.Load() < 5*int64(*seeds)) {
		t.Error("next to nothing was done and mended: this proves nothing")
	}
}

// TestReplaysExactly: a seed is a run, event by event, also where others ran before
// it in the same process. With -sim.seed it is asked of that one alone.
func TestReplaysExactly(t *testing.T) {
	lib := know(t)
	first, last := *from, *from+5
	if testing.Short() {
		last = first
	}
	if *one != 0 {
		first, last = *one, *one
	}
	for seed := first; seed <= last; seed++ {
		first, again := sim.Run(t, lib, sim.Options{Seed: seed}), sim.Run(t, lib, sim.Options{Seed: seed})
		if first.Hash == again.Hash {
			continue
		}
		for i := range first.Story {
			if i >= len(again.Story) || first.Story[i] != again.Story[i] {
				t.Errorf("seed %d went another way the second time, from:\n%s\n%s", seed, first.Story[i], again.Story[min(i, len(again.Story)-1)])
				break
			}
		}
		t.Errorf("seed %d: hash %s, then %s", seed, first.Hash, again.Hash)
	}
}
