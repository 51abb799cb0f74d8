package whole_test

import (
	"flag"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"fettle/internal/fettle"
)

var many = flag.Int("whole.hosts", 100, "how many agents TestMany runs")

// some is of how many hosts one has a service that fails, and one is in the rack.
const some = 50

// TestMany: a large fleet connects, its leader is killed, it returns, a rack is cut off
// and comes back, services fail everywhere, and all of it is mended.
func TestMany(t *testing.T) {
	began := elapsed()
	said := func(r *run, what string) {
		t.Logf("%-34s %8.1f s pretended, %6.1f s of a processor", what, time.Since(r.began).Seconds(), (elapsed() - began).Seconds())
	}
	out := play(t, know(t), options{Seed: 1, Hosts: *many, Nodes: 3, Plain: true, Script: func(r *run) {
		r.connected(t, 30*time.Second)
		said(r, "connected")
		r.settle(t, 30*time.Second)
		said(r, "everything told")
		r.bounce(r.leading(), 20*time.Second)
		r.pass(2 * time.Second)
		for i := 0; i < len(r.hosts); i += some {
			r.hosts[i].crash("web.service")
		}
		r.connected(t, 60*time.Second)
		said(r, "connected after the leader was killed")
		r.mended(t, 60*time.Second)
		said(r, "mended")
		in := []string{}
		for i, h := range r.hosts {
			if i%some == 0 {
				in = append(in, h.name)
				h.crash("job.service")
			}
		}
		out := r.others(in)
		sever := func(by int) {
			for _, a := range in {
				for _, b := range out {
					r.net.sever(a, b, by)
					r.net.sever(b, a, by)
				}
			}
		}
		sever(1)
		r.pass(30 * time.Second)
		sever(-1)
		r.connected(t, 60*time.Second)
		r.mended(t, 60*time.Second)
		r.until(t, "nothing is being mended any more", 60*time.Second, func() bool { return !r.acts() })
		said(r, "a rack was cut off, and is mended")
		synctest.Wait()
		r.checkEnd()
	}})
	for _, b := range out.Broken {
		t.Error(b)
	}
	if want := 2 * (*many / some); len(out.Effects) < want {
		t.Errorf("%d effects, and %d services had failed", len(out.Effects), want)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("%d agents: %v of a processor, %v pretended, %d effects, a person called %d times, %d MB from the system", *many, elapsed()-began, out.Fake, len(out.Effects), out.Calls, m.Sys>>20)
}

// elapsed is the processor's time that this process has taken: outside of every bubble,
// and whatever else the machine is busy with.
func elapsed() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts) // it does not fail on this clock
	return time.Duration(ts.Nano())
}

// until waits for what has no channel, in the bubble's time.
func (r *run) until(t *testing.T, what string, within time.Duration, is func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !is(); {
		if time.Now().After(end) {
			t.Errorf("waited %v in vain until %s", within, what)
			return
		}
		r.pass(100 * time.Millisecond)
	}
}

// connected waits until the leader has every agent.
func (r *run) connected(t *testing.T, within time.Duration) {
	t.Helper()
	r.until(t, "all agents are connected", within, func() bool { return r.counted("connected") == len(r.hosts) })
}

// settle waits until the leader was told everything.
func (r *run) settle(t *testing.T, within time.Duration) {
	t.Helper()
	r.until(t, "all agents have told everything", within, func() bool { return r.counted("settled") == len(r.hosts) })
}

// acts reports whether a repair is under way: what runs again is watched for a while.
func (r *run) acts() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range r.board {
		if rec.State == fettle.Acting || rec.State == fettle.Undoing {
			return true
		}
	}
	return false
}

// mended waits until every service runs.
func (r *run) mended(t *testing.T, within time.Duration) {
	t.Helper()
	r.until(t, "all services run", within, func() bool {
		for _, h := range r.hosts {
			for _, name := range h.services() {
				if h.unit(name).ActiveState != "active" {
					return false
				}
			}
		}
		return true
	})
}
