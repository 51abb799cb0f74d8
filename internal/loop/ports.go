package loop

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/incident"
)

// Hands is how the loop reaches the machines: in one process on one machine, or
// through agents. All methods may be called concurrently and return when their
// context ends.
type Hands interface {
	// Look asks for fresh observations wherever they can be made and returns
	// what came before the context ended. A look that nobody can make is left
	// out.
	Look(ctx context.Context, looks []fettle.Look) []fettle.Observation
	// Do hands a dispatch to the agent of its step's host and waits for the
	// outcome. An error means that no answer came; the step may have been done.
	// ErrNoContact promises that it was not sent.
	Do(ctx context.Context, d fettle.Dispatch) (fettle.Outcome, error)
	// Recover asks that agent what became of a dispatch (see fettle.Action).
	Recover(ctx context.Context, d fettle.Dispatch) (fettle.Outcome, error)
	// Preview asks that agent what a step would do. It changes nothing.
	Preview(ctx context.Context, step fettle.Step) (fettle.Preview, error)
	// Incarnation names the present incarnation of the agent that acts for a
	// host; false when there is no contact with one.
	Incarnation(host fettle.Subject) (string, bool)
}

// ErrNoContact says that no agent acts for the host at present, and that nothing
// was sent.
var ErrNoContact = errors.New("no contact with an agent for this host")

// ErrNotLeader is returned by Commit when another server leads now.
var ErrNotLeader = errors.New("another server leads")

// ErrFull is returned by Commit when what room is left is kept for what is more urgent:
// nothing was kept.
var ErrFull = errors.New("the store is full")

// ErrTooLarge is returned by Commit of a change that is larger than what is kept at once:
// nothing was kept.
var ErrTooLarge = errors.New("the change is too large")

// Store keeps what must survive: records, intents, freeze, windows of maintenance and the one log. It
// is used by one leader at a time.
type Store interface {
	// Load returns everything that is kept, and the leader token under which
	// this process may write until another one is minted.
	Load(ctx context.Context) (State, error)
	// Commit keeps all of t, durably when it returns nil, or nothing of it.
	// ErrNotLeader: nothing, and nothing ever again under this token.
	Commit(ctx context.Context, t Txn) error
	// Log calls each with the log's entries from the one numbered from, in
	// order.
	Log(ctx context.Context, from int64, each func(Entry) error) error
	// Check verifies the log's chain from its first entry to its head.
	Check(ctx context.Context) (entries int64, err error)
	Close() error
}

// State is what a store holds.
type State struct {
	Token   fettle.Token
	Records []incident.Record
	Intents []Intent // dispatched, outcome not known
	Freeze  *guard.Freeze
	Windows []guard.Window // of maintenance, sorted by ID
	Merged  []Merged       // what was taken from agents that had been cut off, sorted by host
	Head    Head
}

// Txn is one atomic change.
type Txn struct {
	Token   fettle.Token
	Records []incident.Record // put, by ID
	Intents []Intent          // put, by Dispatch.Key
	Settled []string          // keys of intents whose outcome is known
	Freeze  *guard.Freeze
	Thaw    bool
	Merged  []Merged        // put, by host
	Windows *[]guard.Window // all that there are from now on; nil: as they were
	Log     []Entry         // appended; Seq and hashes are filled in by the store
}

// Intent is a dispatch that may have been sent.
type Intent struct {
	At       time.Time       `json:"at"`
	Dispatch fettle.Dispatch `json:"dispatch"`
	Claims   []fettle.Claim  `json:"claims,omitempty"`
}

// Entry is one line of the log of decisions (S13): what was decided or refused,
// with what it rested on.
type Entry struct {
	Seq      int64           `json:"seq"`
	At       time.Time       `json:"at"`
	Kind     string          `json:"kind"` // a fettle.EventKind, or "start", "answer", "freeze", "thaw", "maintenance", "run", "rotate"
	Incident string          `json:"incident,omitempty"`
	Text     string          `json:"text"`
	Data     json.RawMessage `json:"data,omitempty"`
	Hash     string          `json:"hash,omitempty"` // over the entry and the hash before it
}

// Head is the end of the log.
type Head struct {
	Entries int64  `json:"entries"`
	Hash    string `json:"hash"`
}

// Tip is the end of the log and the epoch that it is of: what a store that servers
// use tells them, so that agents can hold them to it.
type Tip struct {
	Epoch uint64
	Head
}
