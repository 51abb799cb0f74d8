package executor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

const (
	freezeName = "freeze"
	// fleetName is the file whose presence says that the fleet was frozen when a server
	// was last heard: who is cut off does not know that it was thawed.
	fleetName = "fleet-frozen"
)

// freeze knows whether this host is frozen, by a file, and whether the fleet was when a
// server was last heard.
type freeze struct {
	path string

	mu     sync.Mutex
	frozen bool
	why    string
	fleet  bool
	kept   bool // the fleet's, as the file has it; told's own
}

// newFreeze begins with what is in a state folder. Of what cannot be told it is taken for
// a freeze.
func newFreeze(stateDir string) *freeze {
	f := &freeze{path: FreezeFile(stateDir), fleet: FleetFrozen(stateDir)}
	f.kept = f.fleet
	f.look()
	return f
}

// FleetFrozen reports whether the fleet was frozen when the executor with this state
// folder last heard of a server, or that cannot be told.
func FleetFrozen(stateDir string) bool {
	_, err := os.Lstat(filepath.Join(stateDir, fleetName))
	return !errors.Is(err, fs.ErrNotExist)
}

func (f *freeze) fleetFrozen() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fleet
}

// told notes what a server says of the fleet, and keeps it. An error: it is in effect,
// and may be forgotten over a restart. One call at a time.
func (f *freeze) told(fleet bool) error {
	f.mu.Lock()
	f.fleet = fleet
	f.mu.Unlock() // who asks whether it is frozen does not wait for the disk
	if f.kept == fleet {
		return nil
	}
	dir := filepath.Dir(f.path)
	var err error
	if fleet {
		err = os.WriteFile(filepath.Join(dir, fleetName), nil, 0o600)
	} else {
		err = os.Remove(filepath.Join(dir, fleetName))
	}
	if errors.Is(err, fs.ErrNotExist) && !fleet {
		err = nil
	}
	if err == nil {
		err = SyncDir(dir)
	}
	if err == nil {
		f.kept = fleet
	}
	return err
}

// look reads the file's presence. What cannot be told is taken for a freeze.
func (f *freeze) look() (frozen bool, why string) {
	_, err := os.Lstat(f.path)
	frozen = !errors.Is(err, fs.ErrNotExist)
	switch {
	case frozen && err != nil:
		why = "whether it is frozen cannot be told: " + err.Error()
	case frozen:
		text, rerr := os.ReadFile(f.path)
		why = strings.TrimSpace(string(text[:min(len(text), 200)]))
		if rerr != nil || why == "" {
			why = f.path + " is there"
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frozen, f.why = frozen, why
	return frozen, why
}

// here reports what was looked at last.
func (f *freeze) here() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.frozen
}

// FreezeFile is the file in a state folder whose presence freezes the host: nothing new
// is started. Freeze and Thaw need no executor to run.
func FreezeFile(stateDir string) string { return filepath.Join(stateDir, freezeName) }

// Freeze freezes this host, durably.
func Freeze(stateDir, why string) error {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	f, err := os.OpenFile(FreezeFile(stateDir), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	_, err = f.WriteString(why + "\n")
	if err = errors.Join(err, f.Sync(), f.Close(), SyncDir(stateDir)); err != nil {
		return fmt.Errorf("freeze: the file is there, so it is frozen, but not safe from a power cut: %w", err)
	}
	return nil
}

// Thaw takes a Freeze back.
func Thaw(stateDir string) error {
	err := os.Remove(FreezeFile(stateDir))
	if err == nil {
		err = SyncDir(stateDir)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("thaw: %w", err)
	}
	return nil
}

// SyncDir makes durable what changed in a folder: files that came and went.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
