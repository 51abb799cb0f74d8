package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fettle/internal/fleet/wire"
)

// TestStatusNamesWhoTakesNoSteps: a host that does not obey the server is in its
// line, with the reason, and the fleet is not healthy.
func TestStatusNamesWhoTakesNoSteps(t *testing.T) {
	st := &wire.StatusResponse{Fleet: "f", Hosts: 2, Connected: 2}
	hosts := []*wire.Host{{Id: "h1", Label: "one", Connected: true}, {Id: "h2", Label: "two", Connected: true, LogRefused: "the log has forked (begin a new epoch)"}}
	for _, json := range []bool{false, true} {
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		a := &app{out: out, errOut: os.Stderr, json: json}
		err = a.printStatus(st, hosts)
		var e *Exit
		if !errors.As(err, &e) || e.Code != ExitIll {
			t.Errorf("exit %v, want %d", err, ExitIll)
		}
		text, err := os.ReadFile(out.Name())
		if err != nil || strings.Count(string(text), "the log has forked") != 1 {
			t.Errorf("it prints %s, %v", text, err)
		}
	}
	hosts[1].LogRefused = ""
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := (&app{out: out}).printStatus(st, hosts); err != nil {
		t.Errorf("with nobody who refuses: %v", err)
	}
}
