package whole_test

import (
	"flag"
	"testing"
	"testing/synctest"
	"time"
)

var (
	seeds = flag.Uint64("whole.seeds", 4, "how many seeds TestSeeds runs")
	from  = flag.Uint64("whole.from", 1, "the first of them")
	twice = flag.Uint64("whole.twice", 1, "how many seeds TestReplays runs twice")
	one   = flag.Uint64("whole.seed", 0, "run this seed alone, and tell its story")
)

const (
	faultsFor = 3 * time.Minute
	calmFor   = 5 * time.Minute
)

// TestMended: a service fails, and is started again, by way of agent, server and store.
func TestMended(t *testing.T) {
	began := time.Now()
	out := play(t, know(t), options{Seed: 1, Hosts: 2, Nodes: 1, Script: func(r *run) {
		r.pass(10 * time.Second)
		r.hosts[0].box().Crash("web.service", 9)
		r.pass(30 * time.Second)
		synctest.Wait()
		if u := r.hosts[0].unit("web.service"); u.ActiveState != "active" {
			t.Errorf("the service is %s", u.ActiveState)
		}
	}})
	for _, b := range out.Broken {
		t.Error(b)
	}
	t.Logf("%v of real time, %v pretended, effects %+v", time.Since(began), out.Fake, out.Effects)
}

// broken plays a seed: faults, then calm, then the reckoning.
func broken(t *testing.T, lib *library, o options) result {
	seed, during := o.Seed, faultsFor
	if o.Apart > 0 {
		during = 8 * o.Apart
	}
	o.Hosts, o.Nodes, o.Votes = 5+int(seed*7%16), 1+int(seed%3), 3+2*int(seed%2)
	o.Script = func(r *run) {
		for _, f := range r.draw(during) {
			r.pass(f.at - time.Since(r.began))
			synctest.Wait()
			r.tell("FAULT %s (host %s, server %s, %v)", f.kind.name, r.hosts[f.host].name, r.nodes[f.node].name, f.long)
			f.kind.strike(r, f)
		}
		r.pass(during - time.Since(r.began))
		r.tell("CALM")
		r.heal()
		r.pass(calmFor)
		synctest.Wait()
		r.checkEnd()
	}
	return play(t, lib, o)
}

// TestSeeds: seeds of random faults, none of which breaks an invariant, and after which
// what can be mended is.
func TestSeeds(t *testing.T) {
	lib := know(t)
	first, last := *from, *from+*seeds-1
	if *one != 0 {
		first, last = *one, *one
	}
	effects, alone, calls := 0, 0, 0
	for seed := first; seed <= last; seed++ {
		began := time.Now()
		out := broken(t, lib, options{Seed: seed, Trace: *one != 0})
		for _, e := range out.Effects {
			effects++
			if e.alone {
				alone++
			}
		}
		calls += out.Calls
		t.Logf("seed %d: %d effects, a person called %d times, in %v", seed, len(out.Effects), out.Calls, time.Since(began).Round(time.Millisecond))
		if len(out.Broken) > 0 {
			t.Errorf("seed %d: %s\nagain: go test ./internal/sim/whole -run TestSeeds -v -whole.seed %d", seed, out.Broken[0], seed)
		}
	}
	t.Logf("%d seeds: %d effects of Fettle's, %d of them alone, a person called %d times", last-first+1, effects, alone, calls)
	if *one == 0 && !t.Failed() && (effects < 3*int(*seeds) || alone == 0) {
		t.Error("next to nothing was done: this proves nothing")
	}
}
