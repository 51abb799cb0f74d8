package member

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPoweredOff: everybody finds out for itself, and about nobody else.
func TestPoweredOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSimRing(t, 5, Settings{}, 1)
		defer r.stop()
		if bad, _ := r.bad(); bad != nil {
			t.Fatalf("before anything happened: %v", bad)
		}
		r.net.set(r.hosts[3], off)
		r.until("all have lost h003", 10*time.Second, func() bool {
			return r.everyone(3, func(m Member) bool { return m.State == Gone && m.Saw == SawSilence })
		})
		for i := range r.nodes {
			if i != 3 && r.count(i, Here) != 3 {
				t.Errorf("%s has lost somebody else: %+v", r.hosts[i].name, r.nodes[i].Members())
			}
			if why, ill := r.nodes[i].Doubt(); i != 3 && ill {
				t.Errorf("%s doubts itself: %s", r.hosts[i].name, why)
			}
		}
		// It comes back as another life of the same host.
		r.stops[3]()
		r.until("its old life ends", 10*time.Second, func() bool { return r.hosts[3].now() == killed })
		r.start(3, "2")
		r.together()
		// Its machine answers again before everybody has heard who lives there now.
		r.until("all know its second life", time.Minute, func() bool {
			return r.everyone(3, func(m Member) bool { return m.State == Here && m.Label.Incarnation == "2" })
		})
	})
}

// TestKilledAgent: a closed port is not silence.
func TestKilledAgent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSimRing(t, 5, Settings{}, 2)
		defer r.stop()
		r.net.set(r.hosts[1], killed)
		r.until("all see the closed port", 10*time.Second, func() bool {
			return r.everyone(1, func(m Member) bool { return m.State == Gone && m.Saw == SawRefusal })
		})
		// Then its host dies too, and those who look again see that.
		r.net.set(r.hosts[1], off)
		r.until("all see the silence", 2*time.Minute, func() bool {
			return r.everyone(1, func(m Member) bool { return m.State == Gone && m.Saw == SawSilence })
		})
	})
}

// TestFrozenHost: a kernel that takes connections behind which nobody is.
func TestFrozenHost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSimRing(t, 5, Settings{}, 3)
		defer r.stop()
		r.net.set(r.hosts[2], frozen)
		r.until("all see that it is taken and not answered", 10*time.Second, func() bool {
			return r.everyone(2, func(m Member) bool { return m.State == Gone && m.Saw == SawAccept })
		})
		r.net.set(r.hosts[2], up)
		r.together()
	})
}

// TestLeave: who takes leave is not missed.
func TestLeave(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSimRing(t, 4, Settings{}, 4)
		defer r.stop()
		r.stops[3]()
		r.until("it has left", 10*time.Second, func() bool { return r.hosts[3].now() == killed })
		missed := 0
		r.until("all know that", 10*time.Second, func() bool {
			missed = 0
			return r.everyone(3, func(m Member) bool {
				if departed(m) && m.State != Left {
					missed++
				}
				return departed(m)
			})
		})
		if missed > 1 {
			t.Errorf("%d of 3 have not heard that it left", missed)
		}
		if bad, _ := r.bad(); len(bad) > missed {
			t.Errorf("lost: %v", bad)
		}
	})
}

// TestCutOff: who loses everybody doubts itself; the others do not. When the cut is
// mended, long after the ring has forgotten, they find together.
func TestCutOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSimRing(t, 7, Settings{}, 5)
		defer r.stop()
		r.net.change(func() { r.net.cut = func(a, b string) bool { return (a == "h006") != (b == "h006") } })
		r.until("h006 has lost all", 30*time.Second, func() bool { return r.count(6, Gone) == 6 })
		if why, ill := r.nodes[6].Doubt(); !ill {
			t.Error("the one that is cut off does not doubt itself")
		} else {
			t.Logf("h006: %s", why)
		}
		r.until("all others have lost h006 alone", 30*time.Second, func() bool {
			for i := range 6 {
				if _, ill := r.nodes[i].Doubt(); ill || r.count(i, Here) != 5 || r.sees(i, 6).State != Gone {
					return false
				}
			}
			return true
		})
		<-time.After(5 * time.Minute) // pretend time: memberlist forgets its dead after one
		r.net.change(func() { r.net.cut = nil })
		r.together()
	})
}

// TestLossAndLoad: a quarter of the packets lost each way, and every host as late as
// with twice as many busy loops as cores, for ten minutes: nobody is lost. The windows
// have widened by themselves, and a host that is off is still found.
func TestLossAndLoad(t *testing.T) {
	for _, size := range []int{5, 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newSimRing(t, size, Settings{Events: 100_000}, uint64(size))
				defer r.stop()
				r.net.change(func() {
					r.net.loss = 250
					// As measured on a machine with four busy loops on two cores: mostly little,
					// now and then a time slice or two.
					r.net.late = func(rng *rand.Rand, _ string) time.Duration {
						if rng.IntN(10) == 0 {
							return time.Duration(rng.IntN(30)) * time.Millisecond
						}
						return time.Duration(rng.IntN(2000)) * time.Microsecond
					}
				})
				minutes := 10
				if size > 5 {
					minutes = 1
				}
				r.bad()
				<-time.After(time.Duration(minutes) * time.Minute)
				bad, suspected := r.bad()
				if bad != nil {
					t.Errorf("%d times a host that lives was lost:\n%q", len(bad), bad[:min(len(bad), 20)])
				}
				t.Logf("%d times a member heard from the ring that one is dead which was not, and looked for itself", suspected)
				if size == 5 && suspected == 0 {
					t.Error("the ring was never wrong: this shows nothing about looking for oneself")
				}
				h := r.nodes[0].Health()
				t.Logf("after %d minutes: %+v", minutes, h)
				if h.Loss < 250 || h.Silence <= DefaultWindows().Silence(Measured{}) {
					t.Errorf("the windows did not follow: loss %d per mille, silence %s", h.Loss, h.Silence)
				}
				r.net.set(r.hosts[1], off)
				took := r.until("all have lost h001", time.Minute, func() bool {
					return r.everyone(1, func(m Member) bool { return m.State == Gone && m.Saw == SawSilence })
				})
				t.Logf("a dead one is lost by all after %s, all the same", took)
			})
		})
	}
}

// TestWholeRing: a ring of 200, its limit. One is switched off: all 199 see that and
// nothing else.
func TestWholeRing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSimRing(t, wholeRing, Settings{Spread: time.Hour}, 200)
		defer r.stop()
		r.bad()
		spread := r.nodes[7].Beat(t.Context())
		t.Logf("news: %+v", spread)
		if spread.Heard != wholeRing-1 {
			t.Errorf("news reached %d of %d", spread.Heard, wholeRing-1)
		}
		r.net.set(r.hosts[42], off)
		begin := time.Now()
		took := map[int]time.Duration{}
		r.until("all have lost h042", time.Minute, func() bool {
			for i := range r.nodes {
				if took[i] == 0 && i != 42 && r.sees(i, 42).State == Gone {
					took[i] = time.Since(begin)
				}
			}
			return len(took) == wholeRing-1
		})
		var all []time.Duration
		for _, d := range took {
			all = append(all, d)
		}
		slices.Sort(all)
		t.Logf("lost by: first %s, half %s, all %s (pretend time)", all[0], all[len(all)/2], all[len(all)-1])
		lost, _ := r.bad()
		for _, line := range lost {
			if !strings.HasPrefix(line, "h042") && !strings.Contains(line, "lost h042 silence") {
				t.Error(line)
			}
		}
	})
}

// TestSuddenLoss: the loss begins, and nobody has measured it yet. Those who are asked
// besides tell at once that silence proves nothing now.
func TestSuddenLoss(t *testing.T) {
	wrong, suspected := 0, 0
	const rounds = 30
	for seed := range uint64(rounds) {
		bubble(t, func(t *testing.T) {
			r := newSimRing(t, 5, Settings{}, seed)
			defer r.stop()
			<-time.After(20 * time.Second) // all have measured that nothing is lost
			r.bad()
			r.net.change(func() { r.net.loss = 250 })
			<-time.After(10 * time.Second)
			bad, sus := r.bad()
			wrong += len(bad)
			suspected += sus
		})
	}
	t.Logf("%d rounds: %d suspicions, %d of them wrongly confirmed", rounds, suspected, wrong)
	if wrong > 0 {
		t.Errorf("%d times a host that lives was lost", wrong)
	}
}
