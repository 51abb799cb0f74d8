//go:build lab

package lab

import (
	"context"
	"strings"
	"testing"
	"time"
)

// startLab boots a lab for one test, closes it at its end, and shows the consoles if the test failed.
func startLab(t *testing.T, hosts int) *Lab {
	t.Helper()
	began := time.Now()
	l, err := Start(testContext(t), Config{Hosts: hosts, Progress: testLog{t}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d hosts in %v", hosts, time.Since(began))
	t.Cleanup(func() {
		if t.Failed() {
			for _, h := range l.Hosts() {
				t.Logf("console of %s:\n%s", h.Name(), h.Console(30))
			}
		}
		if err := l.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return l
}

// testContext bounds a test, image build included; a lab that hangs is a failure with its console, not a timeout of go test.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func output(t *testing.T, h *Host, argv ...string) string {
	t.Helper()
	out, err := h.Output(testContext(t), argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestHostsAreRealDebian(t *testing.T) {
	l := startLab(t, 3)
	seen := map[string]bool{}
	for _, h := range l.Hosts() {
		if got := output(t, h, "systemctl", "is-system-running"); got != "running" {
			t.Errorf("%s: system is %q; failed units: %s", h.Name(), got, output(t, h, "systemctl", "--failed", "--no-legend"))
		}
		if got := output(t, h, "hostname"); got != h.Name() {
			t.Errorf("hostname %q, want %q", got, h.Name())
		}
		if got := output(t, h, "ip", "-br", "-4", "addr", "show", "host0"); !strings.Contains(got, h.Addr().String()+"/24") {
			t.Errorf("%s: address %q, want %s", h.Name(), got, h.Addr())
		}
		for _, file := range []string{"/etc/machine-id", "/proc/sys/kernel/random/boot_id"} {
			id := output(t, h, "cat", file)
			if id == "" || seen[id] {
				t.Errorf("%s: %s is %q, empty or another host's", h.Name(), file, id)
			}
			seen[id] = true
		}
		for _, other := range l.Hosts() {
			output(t, h, "ping", "-c", "1", "-W", "5", other.Name())
		}
	}
}

// testLog lets a test log what the lab says it is doing.
type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}
