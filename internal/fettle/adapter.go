package fettle

import "context"

// Probe looks at subjects and reports what it read. It does not judge.
//
// Observe asks for the subjects named, or for all that it can find when none is
// named, and returns when it has an answer or its context ends. What could not
// be observed is returned as an Observation with a Reason, not left out. The
// runner fills in Host, Probe, Asked and Took where they are empty.
type Probe interface {
	Spec() ProbeSpec
	Observe(ctx context.Context, subjects ...Subject) []Observation
}

// Watcher is told of changes and passes them on at once. Watch blocks until its
// context ends or the source breaks; it must first report the present state of
// all its subjects, so that nothing is missed between two calls. emit may be
// called from one goroutine at a time and does not block for long.
type Watcher interface {
	Spec() ProbeSpec // the probe whose facts it reports
	Watch(ctx context.Context, emit func(Observation)) error
}

// Instance is an adapter opened on one machine with one configuration.
type Instance interface {
	Probes() []Probe
	Watchers() []Watcher
	Actions() map[string]Action // by ActionSpec.Name
	Faults() map[string]Fault   // by FaultSpec.Name
	// Close releases connections. It does not change the external system.
	Close() error
}
