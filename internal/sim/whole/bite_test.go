package whole_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
)

// TestCheckersSee: what must not be is seen when it is. Each case does by hand what the
// agents, the servers and the store never do.
func TestCheckersSee(t *testing.T) {
	lib := know(t)
	step := func(h *host, action, unit string) fettle.Step {
		return fettle.Step{ID: "s", Action: action, Target: fettle.NewSubject(fettle.KindUnit, h.id, unit), Host: fettle.HostSubject(h.id), Fresh: 5 * time.Second}
	}
	for want, do := range map[string]func(*run, *host, *agentLife){
		"S6: x.1.s touches h0001, and no intent of it was ever durable": func(r *run, h *host, l *agentLife) {
			r.touch(l, fettle.Dispatch{Key: "x.1.s", Step: step(h, "systemd.start", "web.service")})
		},
		"S6: x.1.s touches h0001, and its journal does not know it": func(r *run, h *host, l *agentLife) {
			r.touch(l, fettle.Dispatch{Key: "x.1.s", Step: step(h, "systemd.start", "web.service")})
		},
		"for the 2th time": func(r *run, h *host, l *agentLife) {
			h.crash("web.service")
			r.pass(20 * time.Second)
			r.mu.Lock()
			key := r.effects[0].key
			r.mu.Unlock()
			r.touch(l, fettle.Dispatch{Key: key, Step: step(h, "systemd.start", "web.service")})
		},
		"S11: x.1.s touches h0001, which is frozen": func(r *run, h *host, l *agentLife) {
			h.mu.Lock()
			h.frozen = time.Now()
			h.mu.Unlock()
			r.pass(2 * slack)
			r.touch(l, fettle.Dispatch{Key: "x.1.s", Step: step(h, "systemd.start", "web.service")})
		},
		"S12: x.1.s does systemd.stop": func(r *run, h *host, l *agentLife) {
			r.touch(l, fettle.Dispatch{Key: "x.1.s", Permit: "p", Step: step(h, "systemd.stop", "web.service")})
		},
		"S11: x.1.s starts": func(r *run, h *host, l *agentLife) {
			h.byHand("web.service")
			r.pass(20 * time.Second)
			r.touch(l, fettle.Dispatch{Key: "x.1.s", Permit: "p", Step: step(h, "systemd.start", "web.service")})
		},
		"L: web.service on h0001 is failed": func(r *run, h *host, _ *agentLife) {
			h.kill(false)
			h.crash("web.service")
			r.checkEnd()
		},
		"S13: x.1.s was done, and the log does not tell of it": func(r *run, h *host, l *agentLife) {
			r.touch(l, fettle.Dispatch{Key: "x.1.s", Step: step(h, "systemd.start", "web.service")})
			r.checkLog()
		},
		"S14: a secret is in the log of somebody": func(r *run, _ *host, _ *agentLife) { r.log("somebody").Info("it is " + secret) },
	} {
		out := play(t, lib, options{Seed: 1, Hosts: 3, Nodes: 1, Votes: 3, Script: func(r *run) {
			r.pass(10 * time.Second)
			do(r, r.hosts[0], r.hosts[0].alive())
		}})
		if !slices.ContainsFunc(out.Broken, func(b string) bool { return strings.Contains(b, want) }) {
			t.Errorf("%q is not among what was seen: %q", want, out.Broken)
		}
	}
}
