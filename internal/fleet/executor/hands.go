package executor

import (
	"context"
	"errors"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/warrant"
)

// Hands is how an agent reaches its executor. All methods may be called concurrently.
// An error of class fettle.NoAnswer, or one that wraps ErrAway, is of the way there;
// with ErrAway nothing was handed over.
type Hands interface {
	// Greet says who the executor is. An agent asks before each session.
	Greet(ctx context.Context) (Greeting, error)
	// Pulse makes a new nonce and says whether the host is frozen.
	Pulse(ctx context.Context) (Pulse, error)
	// Meet shows what the server of a new session showed, and returns why that one is
	// not obeyed, "" where it is.
	Meet(ctx context.Context, in Introduction) (refused string, err error)
	// Follow shows a later head of the same session.
	Follow(ctx context.Context, head warrant.Signed) (refused string, err error)
	// Told keeps what the server said that holds while there is none. An error says what
	// is not kept; the rest is.
	Told(ctx context.Context, w Word) error
	// Believe takes the authority's words of whom the fleet believes, and returns the
	// serial of the last that is kept. With an error that is an earlier one.
	Believe(ctx context.Context, words []pki.SignedWord) (serial int64, err error)
	// Permit says what this host may do while there is no server.
	Permit(ctx context.Context) (Standing, error)
	// Armed says which changes wait to be confirmed, or were taken back.
	Armed(ctx context.Context) (Arming, error)
	// Confirm lets a change stand (armed.Arms.Confirm). since is the time since boot at
	// which the connection began over which it is confirmed.
	Confirm(ctx context.Context, id string, since time.Duration) error
	// Do does what a server dispatched, or what the host's standing permit lets it
	// (execute.Executor.Do).
	Do(ctx context.Context, o Order) (fettle.Outcome, error)
	// Recover says what became of a dispatch (execute.Executor.Recover).
	Recover(ctx context.Context, o Order) (fettle.Outcome, error)
	// Preview says what a step would do. It changes nothing.
	Preview(ctx context.Context, o Order) (fettle.Preview, error)
	// Run runs what a person has signed for this host, if the host lets that person, and
	// returns when it has ended, at the latest soon after ctx did. out is called with
	// what it writes as that comes, one call at a time, never more than Command.Limit
	// bytes: a call that blocks holds the program up, and must return when its context
	// ends. It may keep no data. An error is of the way there: then the command may have
	// run, unless it wraps ErrAway.
	Run(ctx context.Context, c Command, out func(context.Context, Output) error) (Ending, error)
	// CheckWrite is machine.Filesystems.CheckWrite, which no account but root can do
	// on every filesystem.
	CheckWrite(ctx context.Context, mountpoint string) error
	Looks
}

// Looks are what only root sees: the probes whose spec says so.
type Looks interface {
	// Look asks such a probe about some subjects, or about all that it finds.
	Look(ctx context.Context, from Outlook, subjects ...fettle.Subject) ([]fettle.Observation, error)
	// Changed waits until such a probe's watcher has told of something, and returns how
	// often it has, once that is not what the caller knows of; 0 knows of nothing. An
	// error says that nothing tells of it.
	Changed(ctx context.Context, from Outlook, known uint64) (uint64, error)
}

// Outlook is a probe of one configuration of an adapter.
type Outlook struct {
	Conf  string `json:"conf"` // roster.Conf.Key
	Probe string `json:"probe"`
}

// ErrAway says that the executor cannot be reached, and that nothing was handed to it.
var ErrAway = errors.New("the executor of this host does not answer")

// Greeting is who an executor is.
type Greeting struct {
	Incarnation string         `json:"incarnation"`
	Able        map[string]int `json:"able"` // actions that it can do and may, with their versions
	Head        *Head          `json:"head,omitempty"`
	Believes    int64          `json:"believes,omitempty"` // serial of the authority's word that it keeps; 0: none
	Pulse       Pulse          `json:"pulse"`
}

// Head is the last head of the server's log that is kept; nil: none.
type Head struct {
	Epoch   uint64 `json:"epoch"`
	Entries int64  `json:"entries"`
	Hash    string `json:"hash"`
}

// Pulse is what changes.
type Pulse struct {
	Incarnation string `json:"incarnation"`
	Nonce       string `json:"nonce"`
	Frozen      bool   `json:"frozen"`
	Why         string `json:"why,omitempty"` // it is frozen
}

// Introduction is what a server showed when a session began.
type Introduction struct {
	Asked   *Head           `json:"asked,omitempty"`   // the head of which the server was asked; nil: of none
	Log     *warrant.Signed `json:"log,omitempty"`     // nil: it shows none
	Charter *warrant.Signed `json:"charter,omitempty"` // nil: it shows none
}

// Order is what a server ordered. The body is what was signed, byte by byte.
type Order struct {
	Body   []byte          `json:"body"`
	Signed *warrant.Signed `json:"signed,omitempty"` // nil: the server signs no orders, or there is none and a permit is named
	Log    *warrant.Signed `json:"log,omitempty"`    // the head that came along
}
