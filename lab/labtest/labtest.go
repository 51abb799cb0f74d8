// Package labtest gives a test its own lab: booted before it, removed after it, and with the hosts' consoles and journals in
// the test's output if it failed. It does not decide whether a test may run: a machine that cannot boot a lab fails it.
//
// Tests that use it stand behind the build tag lab, and run as root.
package labtest

import (
	"context"
	"strings"
	"testing"
	"time"

	"fettle/lab"
)

// Start boots a lab as cfg says. Its progress goes to the test's log, unless cfg says where else. It fails the test if
// the lab does not start, or if it cannot be removed afterwards.
func Start(t testing.TB, cfg lab.Config) *lab.Lab {
	t.Helper()
	if cfg.Progress == nil {
		cfg.Progress = progress{t}
	}
	began := time.Now()
	l, err := lab.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("lab %s: %d hosts up in %v", l.Name(), cfg.Hosts, time.Since(began).Round(time.Millisecond))
	t.Cleanup(func() {
		if t.Failed() {
			show(t, l)
		}
		if err := l.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
	})
	return l
}

// showDeadline bounds the look at each host of a failed test: one that is frozen does not answer.
const showDeadline = 10 * time.Second

func show(t testing.TB, l *lab.Lab) {
	if faults := l.Faults(); len(faults) > 0 {
		t.Logf("faults in the network: %s", strings.Join(faults, "; "))
	}
	for _, h := range l.Hosts() {
		power := h.Power()
		t.Logf("%s is %s; end of its console:\n%s", h.Name(), power, h.Console(15))
		if power != lab.On {
			continue
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), showDeadline) // a test's own context has ended
		out, err := h.Shell(ctx, "systemctl --failed --no-legend --plain; journalctl -b -o short-precise --no-pager -n 80")
		cancel()
		if err != nil {
			t.Logf("%s: cannot read its journal: %v", h.Name(), err)
		}
		t.Logf("%s: failed units and end of the journal:\n%s", h.Name(), out)
	}
}

type progress struct{ t testing.TB }

func (p progress) Write(b []byte) (int, error) {
	p.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}
