package agent

import (
	"sync"

	"fettle/internal/fleet/executor"
)

// freeze is whether this machine is frozen, as its executor says, and whether the
// fleet is, by the server's word. Of a freeze of the fleet the server takes care: it
// lets a plan that has begun come to its safe point.
type freeze struct {
	mu  sync.Mutex
	now frozen
}

type frozen struct {
	fleet, local bool
	why          string
}

// heard notes what the executor says.
func (f *freeze) heard(p executor.Pulse) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now.local, f.now.why = p.Frozen, p.Why
}

// told notes what the server says of the fleet.
func (f *freeze) told(fleet bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now.fleet = fleet
}

func (f *freeze) state() frozen {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

// FreezeFile, Freeze and Thaw are package executor's.
func FreezeFile(stateDir string) string { return executor.FreezeFile(stateDir) }

// Freeze is executor.Freeze.
func Freeze(stateDir, why string) error { return executor.Freeze(stateDir, why) }

// Thaw is executor.Thaw.
func Thaw(stateDir string) error { return executor.Thaw(stateDir) }
