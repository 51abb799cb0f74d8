package executor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"fettle/internal/act/armed"
	"fettle/internal/act/execute"
	"fettle/internal/act/journal"
	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/machine"
)

// closeWait is how long steps that are under way may go on when the executor stops.
const closeWait = 10 * time.Second

// Options are what an Executor works with. Host, StateDir, Trust and Clock must be set.
type Options struct {
	Host     fettle.Subject
	StateDir string            // of the journal and the freeze file; made, for its owner only, if it is not there
	Trust    func() *pki.Trust // whose signatures are believed
	// Keep keeps whom to believe from now on, which Trust returns then. nil: the agent of
	// this very process does.
	Keep       func(*pki.Trust) error
	Clock      machine.Clock
	Actions    map[string]fettle.Action
	Catalogues []fettle.Catalogue
	// Filesystems is the machine's, for CheckWrite. nil: it is refused.
	Filesystems machine.Filesystems
	// Looks are the adapters' probes that need root, for an agent that has none. nil: they
	// are refused.
	Looks Looks
	// ActionsFile is the host's own list of what may be done, which ParseRules reads.
	// "": everything is allowed; a file that is not there: the zero Rules.
	ActionsFile string
	// Commands runs what people say with "fettle run". nil: nothing is run.
	Commands machine.Commands
	// RunFile is the host's own list of who may run what, which ParseRunPolicy reads with
	// every command. "", or a file that is not there or of no use: nobody.
	RunFile string
	// Name is what people know this host by, its own label: a command whose person was
	// shown another is refused. "": it is not looked at.
	Name string
	// Allow is asked besides the file. nil: it allows everything.
	Allow func(action string) bool
	// Unsigned takes orders that no server signed, and such as come before a server was
	// met: who hands them over is this very process, which has met the server itself.
	Unsigned bool
	// Arms takes back what cut this host off. nil: what could do that is refused.
	Arms      *armed.Arms
	OnDurable func(first journal.Seq, records int) // as journal.Options.OnDurable
	Log       *slog.Logger                         // nil: nothing is logged
}

// Executor does what servers order. It implements Hands. Close it when it is no longer
// used.
type Executor struct {
	o       Options
	journal *journal.Journal
	ex      *execute.Executor
	freeze  *freeze
	ruling  *ruling
	nonces  nonces
	heads   heads
	permits *permits
	windows *maintenance
	alone   alone
	peoples peoples
	telling sync.Mutex  // one word at a time
	met     atomic.Bool // a server was met since the start
}

var _ Hands = (*Executor)(nil)

// Open opens the journal and begins a new incarnation.
func Open(ctx context.Context, o Options) (*Executor, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Allow == nil {
		o.Allow = func(string) bool { return true }
	}
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("executor: state folder: %w", err)
	}
	e := &Executor{
		o: o, freeze: newFreeze(o.StateDir), ruling: &ruling{file: o.ActionsFile, log: o.Log}, nonces: newNonces(),
		heads:   heads{trust: o.Trust, clock: o.Clock, log: o.Log},
		permits: recallPermit(o.StateDir, o.Trust(), o.Host), windows: recallMaintenance(o.StateDir, o.Host),
	}
	e.ruling.look()
	var err error
	if e.journal, err = journal.Open(ctx, filepath.Join(o.StateDir, "journal"), journal.Options{Clock: o.Clock, OnDurable: o.OnDurable}); err != nil {
		return nil, err
	}
	e.ex, err = execute.New(execute.Options{
		Journal: e.journal, Actions: o.Actions, Catalogues: o.Catalogues, Clock: o.Clock, Host: o.Host, Fleet: o.Trust().Fleet,
		Frozen: e.freeze.here, Allow: e.allow, NewEpoch: e.heads.newEpoch, Approved: e.approved,
		Arms: o.arms(), Permit: e.permits.port, Paused: e.paused,
	})
	if err != nil {
		return nil, errors.Join(err, e.journal.Close())
	}
	e.heads.ex = e.ex
	e.tidy(ctx)
	return e, nil
}

func (e *Executor) allow(action string) bool {
	return e.o.Allow(action) && e.ruling.now().Allows(action)
}

// Close takes nothing more, waits for what is under way, ten seconds at most, and
// closes the journal.
func (e *Executor) Close(ctx context.Context) error {
	// The caller's context has ended; steps that are under way still may.
	last, done := context.WithTimeout(context.WithoutCancel(ctx), closeWait)
	defer done()
	err := e.ex.Close(last)
	if kerr := e.ex.KeepHead(); kerr != nil {
		e.o.Log.Warn("the next start will know an earlier head of the server's log", "error", kerr)
	}
	return errors.Join(err, e.journal.Close())
}

// Greet implements Hands.
func (e *Executor) Greet(ctx context.Context) (Greeting, error) {
	e.ruling.look()
	g := Greeting{Incarnation: e.ex.Incarnation(), Able: e.ex.Able(), Believes: e.o.Trust().Serial()}
	if h, ok := e.ex.Head(); ok {
		g.Head = &Head{Epoch: h.Epoch, Entries: h.Entries, Hash: h.Hash}
	}
	var err error
	g.Pulse, err = e.Pulse(ctx)
	return g, err
}

// Pulse implements Hands.
func (e *Executor) Pulse(context.Context) (Pulse, error) {
	p := Pulse{Incarnation: e.ex.Incarnation(), Nonce: e.nonces.make(e.o.Clock.Now())}
	p.Frozen, p.Why = e.freeze.look()
	return p, nil
}

// CheckWrite implements Hands.
func (e *Executor) CheckWrite(ctx context.Context, mountpoint string) error {
	if e.o.Filesystems == nil {
		return fettle.ErrNotSupported
	}
	mounts, err := e.o.Filesystems.Mounts(ctx)
	if err != nil {
		return err
	}
	for _, m := range mounts { // nowhere else is anything written for who asks
		if m.Point == mountpoint {
			return e.o.Filesystems.CheckWrite(ctx, mountpoint)
		}
	}
	return fettle.Refuse("write check", e.o.Host, "ask about a mount point", "nothing is mounted at %.200q", mountpoint)
}

// Look implements Hands.
func (e *Executor) Look(ctx context.Context, from Outlook, subjects ...fettle.Subject) ([]fettle.Observation, error) {
	if e.o.Looks == nil {
		return nil, fettle.ErrNotSupported
	}
	return e.o.Looks.Look(ctx, from, subjects...)
}

// Changed implements Hands.
func (e *Executor) Changed(ctx context.Context, from Outlook, known uint64) (uint64, error) {
	if e.o.Looks == nil {
		return 0, fettle.ErrNotSupported
	}
	return e.o.Looks.Changed(ctx, from, known)
}
