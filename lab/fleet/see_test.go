//go:build lab

package fleet_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fettle/lab"
	"fettle/lab/labtest"
)

const gossipPort = "7946"

// slow is from when on a trial's story is told, not a bar.
const slow = 1500 * time.Millisecond

// number reads a count from the environment.
func number(t *testing.T, name string, normal int) int {
	text := os.Getenv(name)
	if text == "" {
		return normal
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: want a number from 1", name, text)
	}
	return n
}

// news is one line of a node.
type news struct {
	at        time.Time
	kind      string
	host, saw string
	here      int
}

// ring is five hosts with a node each.
type ring struct {
	*lab.Lab
	t     *testing.T
	procs map[*lab.Host]*lab.Proc
}

func start(t *testing.T) *ring {
	t.Helper()
	r := &ring{Lab: labtest.Start(t, lab.Config{Hosts: 5}), t: t, procs: map[*lab.Host]*lab.Proc{}}
	for _, h := range r.Hosts() {
		if err := h.CopyIn(built, nodePath); err != nil {
			t.Fatal(err)
		}
		r.run(h)
	}
	r.together()
	return r
}

// run starts the node of a host.
func (r *ring) run(h *lab.Host) {
	r.t.Helper()
	argv := []string{nodePath, nodeWord, h.Name(), h.Addr().String() + ":" + gossipPort}
	for _, other := range r.Hosts() {
		if other != h {
			argv = append(argv, other.Addr().String()+":"+gossipPort)
		}
	}
	p, err := h.Start(r.t.Context(), argv...)
	if err != nil {
		r.t.Fatal(err)
	}
	r.procs[h] = p
}

// heard is what a node has written since a time.
func (r *ring) heard(h *lab.Host, since time.Time) []news {
	r.t.Helper()
	out, err := r.procs[h].Output()
	if err != nil {
		r.t.Fatal(err)
	}
	var all []news
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) != 5 || !strings.HasSuffix(line, "\n") {
			continue // being written
		}
		at, err := strconv.ParseInt(f[0], 10, 64)
		here, err2 := strconv.Atoi(f[4])
		if err != nil || err2 != nil {
			r.t.Fatalf("%s wrote %q", h.Name(), line)
		}
		if n := (news{time.Unix(0, at), f[1], f[2], f[3], here}); !n.at.Before(since) {
			all = append(all, n)
		}
	}
	return all
}

// until waits for what the nodes write.
func (r *ring) until(what string, done func() bool) {
	r.t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(time.Minute)
	for !done() {
		select {
		case <-ticker.C:
		case <-deadline:
			for _, h := range r.Hosts() {
				all := r.heard(h, time.Time{})
				r.t.Logf("%s: %v", h.Name(), all[max(0, len(all)-15):])
			}
			r.t.Fatalf("not in a minute: %s", what)
		}
	}
}

// together waits until every node has had all others here, in the latest of its news.
func (r *ring) together() {
	r.t.Helper()
	r.until("all know all", func() bool {
		for _, h := range r.Hosts() {
			here := -1
			for _, n := range r.heard(h, time.Time{}) {
				if n.kind != "health" {
					here = n.here
				}
			}
			if here != len(r.Hosts())-1 {
				return false
			}
		}
		return true
	})
}

// lost waits until all others have lost a host, and returns how long after began each
// did, with what it saw.
func (r *ring) lost(victim *lab.Host, began time.Time, want string) []time.Duration {
	r.t.Helper()
	took := map[string]time.Duration{}
	r.until(fmt.Sprintf("all others have lost %s (%s)", victim.Name(), want), func() bool {
		for _, h := range r.Hosts() {
			if h == victim || took[h.Name()] > 0 {
				continue
			}
			for _, n := range r.heard(h, began) {
				if (n.kind == "lost" || n.kind == "changed") && n.host == victim.Name() && n.saw == want {
					took[h.Name()] = n.at.Sub(began)
					break
				}
			}
		}
		return len(took) == len(r.Hosts())-1
	})
	for _, h := range r.Hosts() {
		for _, n := range r.heard(h, began) {
			if h != victim && n.kind == "lost" && n.host != victim.Name() {
				r.t.Errorf("%s has lost %s, which lives (%s)", h.Name(), n.host, n.saw)
			}
			if h != victim && n.kind == "lost" && n.host == victim.Name() && n.saw != want {
				r.t.Logf("%s saw %s of %s at first, after %s", h.Name(), n.saw, n.host, n.at.Sub(began))
			}
		}
	}
	var all []time.Duration
	for host, d := range took {
		all = append(all, d)
		if d > slow {
			h, err := r.HostByName(host)
			r.must(err)
			for _, n := range r.heard(h, began) {
				r.t.Logf("%s took %s: after %s it wrote: %s %s %s", host, d, n.at.Sub(began), n.kind, n.host, n.saw)
			}
		}
	}
	return all
}

// show prints what all trials took: every observer of every trial, and the last of each.
func show(t *testing.T, what string, trials [][]time.Duration) {
	var each, last []time.Duration
	for _, trial := range trials {
		each = append(each, trial...)
		last = append(last, slices.Max(trial))
	}
	slices.Sort(each)
	slices.Sort(last)
	at := func(all []time.Duration, perMille int) time.Duration {
		return all[(len(all)-1)*perMille/1000].Round(time.Millisecond)
	}
	t.Logf("%s: %d trials; one observer p50 %s, p99 %s; the last of all p50 %s, p99 %s, worst %s; default settings (probe 100ms, floor 100ms)",
		what, len(trials), at(each, 500), at(each, 990), at(last, 500), at(last, 990), at(last, 1000))
}

func (r *ring) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// TestPoweredOff: the link is cut first, so that no reset gives the host away. The time
// runs from before the cut is ordered.
func TestPoweredOff(t *testing.T) {
	r := start(t)
	var trials [][]time.Duration
	for i := range number(t, "FETTLE_LAB_TRIALS", 5) {
		victim := r.Hosts()[i%len(r.Hosts())]
		began := time.Now()
		r.must(r.Isolate(t.Context(), victim))
		r.must(victim.PowerOff(t.Context()))
		trials = append(trials, r.lost(victim, began, "silence"))
		r.must(r.Heal(t.Context()))
		r.must(victim.Boot(t.Context()))
		r.must(victim.WaitRunning(t.Context()))
		r.run(victim)
		r.together()
	}
	show(t, "powered off, link cut first", trials)
}

// TestFrozen: the kernel of a frozen host takes connections. That is told from silence.
func TestFrozen(t *testing.T) {
	r := start(t)
	var trials [][]time.Duration
	for i := range number(t, "FETTLE_LAB_TRIALS", 5) {
		victim := r.Hosts()[i%len(r.Hosts())]
		began := time.Now()
		r.must(victim.Freeze(t.Context()))
		trials = append(trials, r.lost(victim, began, "accept"))
		r.must(victim.Thaw(t.Context()))
		r.together()
	}
	show(t, "frozen", trials)
}

// TestKilled: the port of a killed agent is refused. That is told from silence too; the
// end of its stream, which the servers see, is faster.
func TestKilled(t *testing.T) {
	r := start(t)
	var trials [][]time.Duration
	for i := range number(t, "FETTLE_LAB_TRIALS", 5) {
		victim := r.Hosts()[i%len(r.Hosts())]
		began := time.Now()
		r.must(r.procs[victim].Signal(t.Context(), syscall.SIGKILL))
		trials = append(trials, r.lost(victim, began, "refusal"))
		r.run(victim)
		r.together()
	}
	show(t, "agent killed on a live host", trials)
}

// TestLossAndLoad: a quarter of all packets lost each way, and twice as many busy loops
// as there are cores: no host that lives is lost, under the same settings.
func TestLossAndLoad(t *testing.T) {
	r := start(t)
	for i := range 2 * runtime.NumCPU() {
		_, err := r.Hosts()[i%len(r.Hosts())].Start(t.Context(), "/bin/sh", "-c", "while :; do :; done")
		r.must(err)
	}
	for _, h := range r.Hosts() {
		r.must(r.Loss(t.Context(), h, nil, 25))
	}
	began := time.Now()
	minutes := number(t, "FETTLE_LAB_MINUTES", 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(minutes)*time.Minute)
	defer cancel()
	<-ctx.Done()
	suspected := 0
	for _, h := range r.Hosts() {
		last := ""
		for _, n := range r.heard(h, began) {
			switch n.kind {
			case "lost":
				t.Errorf("%s has lost %s, which lives (%s), after %s", h.Name(), n.host, n.saw, n.at.Sub(began))
			case "suspected":
				suspected++
			case "health":
				last = n.saw
			}
		}
		if last == "" {
			t.Errorf("%s has said nothing", h.Name())
		}
		t.Logf("%s: %s", h.Name(), last)
	}
	t.Logf("%d minutes, 25 %% of the packets lost each way, %d busy loops: %d times the ring held a host for dead, and who looked found it alive", minutes, 2*runtime.NumCPU(), suspected)
}
