package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// state is what a lab's folder tells whoever has to clean up after its owner. It is written before the first thing
// that it names is made.
type state struct {
	Schema int    `json:"schema"` // 1
	Name   string `json:"name"`
	Number int    `json:"number"`  // decides the cgroup and the prefix
	Owner  int    `json:"owner"`   // process id, for people; the lock is what counts
	BootID string `json:"boot_id"` // of the machine: after a restart of it only the folder is left
}

const (
	stateFile   = "lab.json"
	lockFile    = "lock"
	controlFile = "control.sock"
	globalLock  = ".lock" // in the folder of all labs: held while labs are added or swept
)

func (s state) write(dir string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, stateFile), append(data, '\n'), 0o600)
}

func readState(dir string) (state, error) {
	var s state
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("read %s: %w", filepath.Join(dir, stateFile), err)
	}
	if s.Schema != 1 || s.Number < 0 || s.Number > 255 || s.Name != filepath.Base(dir) {
		return s, fmt.Errorf("read %s: schema %d, name %q, number %d: not written by this version of the lab: remove the folder by hand", filepath.Join(dir, stateFile), s.Schema, s.Name, s.Number)
	}
	return s, nil
}

func machineBootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data)), err
}
