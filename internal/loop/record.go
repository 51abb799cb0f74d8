package loop

import (
	"slices"

	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
)

// Recorder keeps the inputs of a loop, so that its decisions can be replayed. It
// keeps at most about MaxInputs of them; a recording of more is marked as
// truncated and cannot be replayed. Not safe for concurrent use: hand Input to
// Options.OnInput, and ask for Recording through Loop.Ask.
type Recorder struct {
	MaxInputs int // 0: 200,000
	Policy    fettle.Policy
	Evaluates []fettle.Scope

	inputs    []incident.Input
	truncated bool
}

// Input keeps one input.
func (r *Recorder) Input(in incident.Input) {
	most := r.MaxInputs
	if most == 0 {
		most = 200_000
	}
	if len(r.inputs) >= most {
		r.truncated = true
		return
	}
	r.inputs = append(r.inputs, in)
}

// Recording returns everything so far, with the mind's incidents as they stand.
func (r *Recorder) Recording(m *incident.Mind) incident.Recording {
	return incident.Recording{
		Schema: 1, Pins: m.Pins(), Policy: r.Policy, Evaluates: r.Evaluates,
		Inputs: slices.Clone(r.inputs), Truncated: r.truncated, Incidents: m.Incidents(),
	}
}
