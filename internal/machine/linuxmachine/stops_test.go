package linuxmachine

import (
	"os"
	"path/filepath"
	"testing"

	"fettle/internal/machine"
)

// Own stops are known again after a restart of this program, but not in another
// boot, and not when they were refused.
func TestOwnStopsAreRemembered(t *testing.T) {
	dir := t.TempDir()
	s := newStops(dir, "", "boot1")
	s.own("a.service", "1")
	s.own("a.service", "2")
	s.disown("a.service", "2")
	for _, tt := range []struct {
		boot, invocation, want string
	}{
		{"boot1", "1", machine.BySelf}, {"boot1", "2", machine.ByPerson}, {"boot1", "3", machine.ByPerson}, {"boot2", "1", machine.ByPerson},
	} {
		if got := newStops(dir, "", tt.boot).asked("a.service", tt.invocation); got != tt.want {
			t.Errorf("%s, invocation %s: %q, want %q", tt.boot, tt.invocation, got, tt.want)
		}
	}
	// Half a line, as a kill in the middle of writing leaves it, spoils nothing.
	f := filepath.Join(dir, stopsFile)
	data, err := os.ReadFile(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f, append(data, "+ boot1 a.ser"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := newStops(dir, "", "boot1").asked("a.service", "1"); got != machine.BySelf {
		t.Errorf("with half a line: %q", got)
	}
}

// What the executor beside this process stopped was not stopped by a person, from the
// moment at which it wrote so.
func TestStopsOfAnother(t *testing.T) {
	theirs, own := t.TempDir(), t.TempDir()
	executor := newStops(theirs, "", "boot1")
	agent := newStops(own, theirs, "boot1")
	if got := agent.asked("a.service", "1"); got != machine.ByPerson {
		t.Errorf("before anything was stopped: %q", got)
	}
	executor.own("a.service", "1")
	if got := agent.asked("a.service", "1"); got != machine.BySelf {
		t.Errorf("stopped by the executor: %q", got)
	}
	executor.disown("a.service", "1")
	if got := agent.asked("a.service", "1"); got != machine.ByPerson {
		t.Errorf("its stop was refused after all: %q", got)
	}
}
