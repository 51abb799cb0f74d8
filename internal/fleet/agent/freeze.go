package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

const freezeName = "freeze"

// freeze knows whether this machine is frozen, by a file, and whether the fleet
// is, by the server's word.
type freeze struct {
	path string

	mu    sync.Mutex
	local bool
	why   string
	fleet bool
}

func newFreeze(path string) *freeze { return &freeze{path: path} }

// look reads the file's presence. What cannot be told is taken for a freeze.
func (f *freeze) look() {
	_, err := os.Lstat(f.path)
	local := !errors.Is(err, fs.ErrNotExist)
	why := ""
	switch {
	case local && err != nil:
		why = "whether it is frozen cannot be told: " + err.Error()
	case local:
		text, rerr := os.ReadFile(f.path)
		why = strings.TrimSpace(string(text[:min(len(text), 200)]))
		if rerr != nil || why == "" {
			why = f.path + " is there"
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.local, f.why = local, why
}

// here reports whether this machine itself is frozen. Of a freeze of the fleet
// the server takes care: it lets a plan that has begun come to its safe point.
func (f *freeze) here() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.local
}

// told notes what the server says of the fleet.
func (f *freeze) told(fleet bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fleet = fleet
}

type frozen struct {
	fleet, local bool
	why          string
}

func (f *freeze) state() frozen {
	f.mu.Lock()
	defer f.mu.Unlock()
	return frozen{f.fleet, f.local, f.why}
}

// FreezeFile is the file in a state folder whose presence freezes the machine: its
// agent starts nothing new. Freeze and Thaw need no agent to run.
func FreezeFile(stateDir string) string { return filepath.Join(stateDir, freezeName) }

// Freeze freezes this machine, durably.
func Freeze(stateDir, why string) error {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	f, err := os.OpenFile(FreezeFile(stateDir), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	_, err = f.WriteString(why + "\n")
	if err = errors.Join(err, f.Sync(), f.Close(), syncDir(stateDir)); err != nil {
		return fmt.Errorf("freeze: the file is there, so it is frozen, but not safe from a power cut: %w", err)
	}
	return nil
}

// Thaw takes a Freeze back.
func Thaw(stateDir string) error {
	err := os.Remove(FreezeFile(stateDir))
	if err == nil {
		err = syncDir(stateDir)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("thaw: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
