package fanout

import (
	"errors"
	"fmt"
	"time"
)

// Outcome is how a command ended on one host.
type Outcome string

// The outcomes. The first three are known ends of a command that ran.
const (
	Succeeded   Outcome = "succeeded"
	Failed      Outcome = "failed"      // exit status other than 0
	Signalled   Outcome = "signalled"   // ended by a signal
	Refused     Outcome = "refused"     // the host, or who guards it, said no: not run
	Unreachable Outcome = "unreachable" // not run
	Hung        Outcome = "hung"        // accepts connections, or did, and does not answer
	Lost        Outcome = "lost"        // the connection broke before the end was told
	Cut         Outcome = "cut"         // broken off by us: out of time, or interrupted
	Skipped     Outcome = "skipped"     // never begun: the run was stopped first
)

// Outcomes lists them all, in the order in which people are told.
func Outcomes() []Outcome {
	return []Outcome{Succeeded, Failed, Signalled, Refused, Unreachable, Hung, Lost, Cut, Skipped}
}

// Result is how it went on one host.
type Result struct {
	Host    string        `json:"host"`
	Outcome Outcome       `json:"outcome"`
	Exit    int           `json:"exit"`             // where it failed
	Signal  string        `json:"signal,omitempty"` // "KILL"
	Began   bool          `json:"began"`            // the command was handed to the host: it has run, or may have
	Why     string        `json:"why,omitempty"`
	Hint    string        `json:"hint,omitempty"` // what to do next
	Bytes   int64         `json:"bytes"`          // of output, also of what was cut away
	Clipped bool          `json:"clipped,omitempty"`
	Took    time.Duration `json:"took_ns"`
}

// Status is how a command that ran to its end ended.
type Status struct {
	Exit   int
	Signal string // without "SIG"; not empty: ended by it
}

// Failure is why there is no Status: a Runner's error with a verdict. Every other
// error of a Runner means Lost where the command had begun, and Unreachable
// before.
type Failure struct {
	Outcome Outcome // Refused, Unreachable, Hung, Lost
	Err     error
	Hint    string
}

// Error returns the cause's text.
func (f *Failure) Error() string { return f.Err.Error() }

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// Refuse is the error of a host that said no, with what to do next.
func Refuse(hint, format string, args ...any) error {
	return &Failure{Outcome: Refused, Err: fmt.Errorf(format, args...), Hint: hint}
}

// Unreach is the error of a host that cannot be reached.
func Unreach(hint, format string, args ...any) error {
	return &Failure{Outcome: Unreachable, Err: fmt.Errorf(format, args...), Hint: hint}
}

// judge turns what a Runner returned into a Result. Cause is why its context
// ended, nil when it did not.
func judge(r *Result, status Status, err, cause error) {
	var f *Failure
	switch {
	case err == nil && status.Signal != "":
		r.Outcome, r.Signal = Signalled, status.Signal
	case err == nil && status.Exit != 0:
		r.Outcome, r.Exit = Failed, status.Exit
	case err == nil:
		r.Outcome = Succeeded
	case errors.As(cause, &f): // we gave it up: what the Runner says follows from that
		r.Outcome, r.Why, r.Hint = f.Outcome, f.Error(), f.Hint
	case cause != nil:
		r.Outcome, r.Why = Cut, cause.Error()
	case errors.As(err, &f):
		r.Outcome, r.Why, r.Hint = f.Outcome, f.Error(), f.Hint
	case r.Began:
		r.Outcome, r.Why = Lost, err.Error()
	default:
		r.Outcome, r.Why = Unreachable, err.Error()
	}
	if r.Outcome == Refused || r.Outcome == Unreachable {
		r.Began = false
	}
}

// Summary counts the results of a run.
type Summary struct {
	Hosts   int             `json:"hosts"`
	Counts  map[Outcome]int `json:"counts"`
	Stopped string          `json:"stopped,omitempty"` // why not all were begun
	Took    time.Duration   `json:"took_ns"`
}

// Failures is how many hosts certainly did not do it.
func (s Summary) Failures() int {
	return s.Counts[Failed] + s.Counts[Signalled] + s.Counts[Refused]
}

// Exit is the exit status of a run: 0 when the command succeeded on every host, 1
// when it failed or was refused on at least one, 2 when it failed on none, but of
// some it cannot be told (unreachable, hung, lost, cut, skipped). A run of no
// host is no success.
func (s Summary) Exit() int {
	switch {
	case s.Failures() > 0:
		return 1
	case s.Hosts == 0 || s.Counts[Succeeded] != s.Hosts:
		return 2
	}
	return 0
}
