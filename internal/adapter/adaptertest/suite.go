// Package adaptertest is the suite that every adapter must pass: the same
// questions to each, asked of the real adapter over a machine (in memory, or
// real) that the adapter's own test prepares.
//
// It proves what can be asked of any adapter without knowing its system: that
// its catalogue is complete and agrees with what its probes and actions do, that
// a peer that never answers makes things unknown in time and leaks nothing, that
// faults raise what they say and revert, that Preview changes nothing, that
// Recover tells the truth, that Undo restores, that missing rights are called so
// and that no secret shows up. Whether a repair helps the real system is for the
// adapter's own tests and the lab.
package adaptertest

import (
	"context"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// Rig is an adapter ready to be asked. Every field but those said to be optional
// is needed; a case that is missing fails the suite, unless Excused names it
// with a reason.
type Rig struct {
	Adapter machine.Adapter
	Machine machine.Machine
	Config  []byte
	// Canary is a secret that the rig has planted where the adapter reads:
	// credentials, logs, command lines. It must show up nowhere.
	Canary string
	// State describes the external system and the machine, so that two states
	// are equal exactly when their descriptions are.
	State func(context.Context) string
	// Settle waits until the system is at rest after a change.
	Settle func(context.Context)
}

// ActionCase asks one action.
type ActionCase struct {
	Action string
	Target fettle.Subject
	Params fettle.Facts
	// Prepare brings the system into the state in which the action makes sense
	// and returns the generations that a plan would pin.
	Prepare func(context.Context, *testing.T, Rig) []fettle.Generation
	// Times is what tells how often the action took effect, as far as the
	// external system shows it.
	Times func(context.Context) int
}

// FaultCase asks one fault.
type FaultCase struct {
	Fault  string
	Target fettle.Subject
	Params fettle.Facts
}

// Suite is everything that is asked of one adapter. New makes a fresh rig for
// each question.
type Suite struct {
	New     func(*testing.T) Rig
	Books   func(*testing.T) map[fettle.Code]bool // the codes that a runbook mends
	Actions []ActionCase
	Faults  []FaultCase
	// Hang returns a rig whose peer accepts and never answers, and the subjects
	// whose observation must become unknown, or say that it does not answer.
	Hang func(*testing.T) (Rig, []fettle.Look)
	// ReadOnly returns a rig whose credentials may read and not change.
	ReadOnly func(*testing.T) Rig
	// Excused names questions that make no sense for this adapter, with the
	// reason: "fault etcd.x", "hang", "read-only", "undo etcd.y".
	Excused map[string]string
}

// patience bounds what waits for the external system.
const patience = 30 * time.Second

// Run asks everything.
func Run(t *testing.T, s Suite) {
	t.Run("catalogue", s.catalogue)
	t.Run("observes", s.observes)
	t.Run("hang", s.hang)
	t.Run("faults", s.faults)
	t.Run("actions", s.actions)
	t.Run("read-only", s.readOnly)
}

func (s Suite) excused(t *testing.T, what string) bool {
	t.Helper()
	why, ok := s.Excused[what]
	if ok && why == "" {
		t.Errorf("%s is excused without a reason", what)
	}
	if ok {
		t.Logf("%s is not asked: %s", what, why)
	}
	return ok
}

// open opens the rig's adapter and closes it at the end of the test.
func open(t *testing.T, r Rig) fettle.Instance {
	t.Helper()
	in, err := r.Adapter.Open(t.Context(), r.Machine, r.Config)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := in.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return in
}
