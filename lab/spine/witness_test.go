//go:build lab

package spine_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"fettle/lab"
	"fettle/lab/spine"
)

// The bars for a verdict at the server, from before the fault is ordered.
const (
	deadBar  = 1500 * time.Millisecond
	agentBar = 300 * time.Millisecond
	hungBar  = 3 * time.Second
)

// number reads a count from the environment.
func number(t *testing.T, name string, normal int) int {
	t.Helper()
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

// witnesses is a fleet of five hosts, the server on the first, and what that judges.
type witnesses struct {
	*spine.Fleet
	t   *testing.T
	log *lab.Proc // of the server
}

// judgement is a line of the server's log. All hosts of a lab share one kernel and so
// one clock.
type judgement struct {
	at         time.Time
	host, life string
	why        string
}

var judgedAnew = regexp.MustCompile(`^time=(\S+) .*msg="a host is judged anew" .*label=(\S+) life=(\S+) why="?(.*?)"?$`)

func startWitnesses(t *testing.T) *witnesses {
	t.Helper()
	w := &witnesses{Fleet: start(t, 5, spine.Options{Servers: 1}), t: t}
	var err error
	if w.log, err = w.Host(1).Start(t.Context(), "journalctl", "-f", "-n", "0", "-o", "cat", "-u", spine.ServerUnit); err != nil {
		t.Fatal(err)
	}
	w.together()
	t.Log(w.Gossip().Settings)
	return w
}

// together waits until all hosts are alive and every one sees all others.
func (w *witnesses) together() {
	w.t.Helper()
	spine.Until(w.t, "all hosts to see each other", func() bool {
		g := w.Gossip()
		return g.Members == len(w.Hosts()) && g.Seen == len(w.Hosts())-1 && len(w.Lives("alive")) == len(w.Hosts())
	})
}

// judged is what the server has judged since a time.
func (w *witnesses) judged(since time.Time) []judgement {
	w.t.Helper()
	out, err := w.log.Output()
	if err != nil {
		w.t.Fatal(err)
	}
	var list []judgement
	for line := range strings.Lines(out) {
		m := judgedAnew.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil || !strings.HasSuffix(line, "\n") { // something else, or being written
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, m[1])
		if err != nil {
			w.t.Fatalf("the server wrote %q: %v", line, err)
		}
		if at.Add(time.Millisecond).After(since) { // the log cuts to milliseconds
			list = append(list, judgement{at, m[2], m[3], m[4]})
		}
	}
	return list
}

// took waits until a host is judged so, and returns how long after the fault that was.
// No other host may be judged anything but alive meanwhile.
func (w *witnesses) took(victim *lab.Host, life string, began time.Time) time.Duration {
	w.t.Helper()
	took := time.Duration(-1)
	spine.Until(w.t, victim.Name()+" to be judged "+life, func() bool {
		for _, j := range w.judged(began) {
			if j.host == victim.Name() && j.life == life {
				took = max(0, j.at.Sub(began))
				return true
			}
		}
		return false
	})
	for _, j := range w.judged(began) {
		if j.host != victim.Name() && j.life != "alive" {
			w.t.Errorf("%s, which lives, was judged %s: %s", j.host, j.life, j.why)
		}
		if j.host == victim.Name() && (took > deadBar || j.life == "dead") && life != j.life {
			w.t.Logf("%s was %s after %v: %s", j.host, j.life, j.at.Sub(began).Round(time.Millisecond), j.why)
		}
	}
	return took
}

// trials makes one fault on each host that runs no server, in turn. FETTLE_LAB_FAULT
// names the only one that is tried, by the judgement.
func (w *witnesses) trials(what, life string, bar time.Duration, fault, undo func(*lab.Host)) {
	w.t.Helper()
	if only := os.Getenv("FETTLE_LAB_FAULT"); only != "" && only != life {
		return
	}
	var all []time.Duration
	for i := range number(w.t, "FETTLE_LAB_TRIALS", 3) {
		victim := w.Host(2 + i%(len(w.Hosts())-1))
		began := time.Now()
		fault(victim)
		took := w.took(victim, life, began)
		if took > bar {
			load, err := os.ReadFile("/proc/loadavg")
			w.t.Logf("trial %d took %v; this machine's load is %s (%v)", i+1, took, strings.TrimSpace(string(load)), err)
		}
		all = append(all, took)
		undo(victim)
		w.together()
	}
	slices.Sort(all)
	at := func(perMille int) time.Duration { return all[(len(all)-1)*perMille/1000].Round(time.Millisecond) }
	w.t.Logf("%s: %d trials; judged %s by the server after p50 %v, p99 %v, worst %v (bar %v); %v", what, len(all), life, at(500), at(990), at(1000), bar, all)
	if worst := all[len(all)-1]; worst > bar {
		w.t.Errorf("%s: %v, and the bar is %v", what, worst, bar)
	}
}

func (w *witnesses) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// The server judges from all witnesses: a host whose link is cut before its power, so
// that no reset gives it away; an agent that is killed on a host that lives; a host that
// is frozen, whose kernel still answers.
func TestLabWitness(t *testing.T) {
	w := startWitnesses(t)
	w.trials("agent killed on a live host", "agent_dead", agentBar, func(h *lab.Host) {
		w.Shell(h, "systemctl kill -s KILL "+spine.AgentUnit)
	}, func(h *lab.Host) { w.Shell(h, "systemctl start "+spine.AgentUnit) })
	w.trials("powered off, link cut first", "dead", deadBar, func(h *lab.Host) {
		w.must(w.Isolate(t.Context(), h))
		w.must(h.PowerOff(t.Context()))
	}, func(h *lab.Host) {
		w.must(w.Heal(t.Context()))
		w.must(h.Boot(t.Context()))
		w.must(h.WaitRunning(t.Context()))
		w.Shell(h, "systemctl start "+spine.AgentUnit)
	})
	// The last: whoever stood still for seconds is given longer windows for a while.
	w.trials("frozen", "hung", hungBar, func(h *lab.Host) { w.must(h.Freeze(t.Context())) }, func(h *lab.Host) { w.must(h.Thaw(t.Context())) })
	g := w.Gossip()
	t.Logf("news reaches half in %v, all but one in a hundred in %v", g.P50, g.P99)
}

// A quarter of all packets lost each way, and twice as many busy loops as there are
// cores: no host that lives is declared dead, under the same settings.
func TestLabWitnessLossAndLoad(t *testing.T) {
	w := startWitnesses(t)
	for i := range 2 * runtime.NumCPU() {
		_, err := w.Hosts()[i%len(w.Hosts())].Start(t.Context(), "/bin/sh", "-c", "while :; do :; done")
		w.must(err)
	}
	for _, h := range w.Hosts() {
		w.must(w.Loss(t.Context(), h, nil, 25))
	}
	began := time.Now()
	minutes := number(t, "FETTLE_LAB_MINUTES", 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(minutes)*time.Minute)
	defer cancel()
	<-ctx.Done() // what is measured is the time itself
	counts := map[string]int{}
	for _, j := range w.judged(began) {
		counts[j.life]++
		if j.life == "dead" {
			t.Errorf("%s, which lives, was judged dead after %v: %s", j.host, j.at.Sub(began), j.why)
		}
		if j.life != "alive" {
			t.Logf("%s after %v: %s, %s", j.host, j.at.Sub(began).Round(time.Millisecond), j.life, j.why)
		}
	}
	w.must(w.Heal(t.Context()))
	t.Logf("%d minutes, 25 %% of the packets lost each way, %d busy loops: judged anew %s", minutes, 2*runtime.NumCPU(), fmt.Sprint(counts))
}
