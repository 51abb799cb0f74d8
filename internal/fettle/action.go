package fettle

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Token proves that a dispatch comes from the present leader. An agent obeys no
// token lower than the highest that it has seen in the epoch.
type Token struct {
	Fleet    string `json:"fleet"`    // identity of the fleet, minted once
	Epoch    uint64 `json:"epoch"`    // grows when the store is restored or moved
	Revision uint64 `json:"revision"` // of the store, when leadership was won
}

// Less reports whether t is older than u within one fleet.
func (t Token) Less(u Token) bool {
	if t.Epoch != u.Epoch {
		return t.Epoch < u.Epoch
	}
	return t.Revision < u.Revision
}

// Dispatch is a step as it is handed to an agent. Its key is for one target and
// one incarnation of the agent; doing it twice under one key does it once.
type Dispatch struct {
	Schema      int       `json:"schema"`
	Key         string    `json:"key"`
	Incarnation string    `json:"incarnation"` // of the agent that may do it
	Token       Token     `json:"token"`
	Deadline    time.Time `json:"deadline"` // on the agent's clock; a later Apply is refused
	Incident    string    `json:"incident"`
	Plan        string    `json:"plan"` // the plan's hash
	Step        Step      `json:"step"` // late parameters filled in
	Undo        bool      `json:"undo,omitempty"`
	Outputs     Facts     `json:"outputs,omitempty"` // of the applied step, when it is to be undone
	Permit      string    `json:"permit,omitempty"`  // serial of the standing permit that stands for Token; see Permit
	Approval    *Approval `json:"approval,omitempty"`
}

// Approval is a person's signed yes to the plan of a dispatch, as it goes with every
// step of that plan, so that who does the step need not take anybody else's word.
type Approval struct {
	Plan        []byte `json:"plan,omitempty"` // the plan's JSON, of which Dispatch.Plan is the hash
	Note        []byte `json:"note"`           // what was signed
	Certificate []byte `json:"certificate"`    // X.509, DER, of who signed it
}

// Preview says what an action would do, in sentences, and changes nothing.
type Preview struct {
	Would []string `json:"would"`
	Loses string   `json:"loses,omitempty"` // what would be lost for good
}

// Receipt records something that was set aside or let go (S5).
type Receipt struct {
	What  string `json:"what"`            // path or name
	Where string `json:"where,omitempty"` // where it is now; empty: gone, by policy
	Bytes int64  `json:"bytes,omitempty"`
	Back  string `json:"back,omitempty"` // the one command that puts it back
}

// Result is what an action that was applied has to say.
type Result struct {
	Outputs  Facts     `json:"outputs,omitempty"`
	Receipts []Receipt `json:"receipts,omitempty"`
	Notes    []string  `json:"notes,omitempty"`
}

// Fate is what became of a key, as the external system itself answers.
type Fate string

// The fates. Only NeverWillBe permits another try, under a new key; UnknownFate
// is probed again, never assumed.
const (
	UnknownFate Fate = "unknown"
	Done        Fate = "done"
	Running     Fate = "running"
	NeverWillBe Fate = "never will be"
)

// Action does one kind of step on one machine. It may be called concurrently for
// different targets. Every method returns when its context ends, and an Apply
// cut off so may still take effect: Recover tells.
type Action interface {
	// Preview says what Apply would do. It changes nothing.
	Preview(ctx context.Context, step Step) (Preview, error)

	// Apply does it. An error of class Refused promises that nothing was
	// touched; any other error promises nothing.
	Apply(ctx context.Context, d Dispatch) (Result, error)

	// Recover asks the external system what became of a dispatch that was
	// begun and whose answer was lost.
	Recover(ctx context.Context, d Dispatch) (Fate, Result, error)

	// Undo restores what was before Apply, given its outputs. A forward-only
	// action returns ErrNotSupported.
	Undo(ctx context.Context, d Dispatch) (Result, error)
}

// PutBack takes a change back without knowing what it was: one program that is run
// again and again until it succeeds, perhaps after a reboot and without the agent.
// Running it twice must do what running it once does.
type PutBack struct {
	Program string   `json:"program"` // a name, one of those that the reverter knows
	Args    []string `json:"args,omitempty"`
	Stdin   string   `json:"stdin,omitempty"`
	Says    string   `json:"says"` // what it puts back, a sentence for a person
}

// Armable is an Action whose Apply and Undo can cut its machine off (S8). Before
// each of them a revert is armed, which takes the change back unless it is
// confirmed over a new connection.
type Armable interface {
	Action

	// Before returns what would put back what is there now, before the dispatch is
	// done. It changes nothing. An error refuses the dispatch: what cannot be put
	// back is not touched.
	Before(ctx context.Context, d Dispatch) (PutBack, error)
}

// Injected is a fault in effect. Revert ends it; it must be safe to call twice.
type Injected interface {
	Revert(ctx context.Context) error
}

// Fault breaks something on purpose, reversibly. The runner arms a dead-man
// timer on the machine before Inject is called.
type Fault interface {
	Inject(ctx context.Context, target Subject, params Facts) (Injected, error)
}

// Class sorts errors by what the caller may conclude.
type Class string

// The classes of error.
const (
	Refused     Class = "refused"           // nothing was touched
	Denied      Class = "permission denied" // nothing was touched: credentials or privilege missing
	Unsupported Class = "not supported"
	NoAnswer    Class = "no answer" // the other side did not answer in time; it may have acted
	Broken      Class = "failed"    // it said no, or broke
)

// Error is an error with what was being done, to what, and what to do next.
type Error struct {
	Op      string // "etcd.member_remove"
	Subject Subject
	Class   Class
	Err     error
	Hint    string // what to do next, a sentence for a person
}

// Error returns operation, subject, cause and hint on one line.
func (e *Error) Error() string {
	s := e.Op
	if e.Subject != "" {
		s += " " + string(e.Subject)
	}
	cause := ""
	if e.Err != nil {
		cause = ": " + e.Err.Error()
	}
	if !strings.Contains(cause, string(e.Class)) { // it says so itself
		s += ": " + string(e.Class)
	}
	s += cause
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrNotSupported is wrapped by errors of class Unsupported.
var ErrNotSupported = errors.New("not supported")

// Refuse makes an error of class Refused: nothing was touched.
func Refuse(op string, s Subject, hint, format string, args ...any) error {
	return &Error{Op: op, Subject: s, Class: Refused, Err: fmt.Errorf(format, args...), Hint: hint}
}

// ClassOf returns the class of an error, Broken when it has none, "" for nil.
func ClassOf(err error) Class {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	if errors.Is(err, ErrNotSupported) {
		return Unsupported
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return NoAnswer
	}
	return Broken
}

// Outcome is what an agent answers to a dispatch, and what its journal keeps
// under the key.
type Outcome struct {
	Schema  int           `json:"schema"`
	Key     string        `json:"key"`
	Fate    Fate          `json:"fate"` // Done also when it was done and failed: Error says how
	Result  Result        `json:"result"`
	Class   Class         `json:"class,omitempty"` // of the error, "" when it succeeded
	Error   string        `json:"error,omitempty"`
	Started time.Time     `json:"started"`
	Took    time.Duration `json:"took_ns"`
	Replay  bool          `json:"replay,omitempty"` // answered from the journal: this key had been done before
}
