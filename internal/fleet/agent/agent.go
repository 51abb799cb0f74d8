package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"fettle/internal/act/armed"
	"fettle/internal/act/journal"
	"fettle/internal/act/roster"
	"fettle/internal/fettle"
	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/condition"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/runbook"
	"fettle/internal/machine"
)

// Options is what an Agent runs with.
type Options struct {
	Server      string        // host:port of one; those that it has told of are kept in StateDir
	Identity    *pki.Identity // of role agent
	IdentityDir string        // where a renewed identity is kept; "": nowhere
	StateDir    string        // made, for its owner only, if it is not there
	ConfigDir   string        // ADAPTER.yaml and ADAPTER-NAME.yaml; "": only what is found
	Machine     machine.Machine
	Adapters    []machine.Adapter
	Catalogues  []fettle.Catalogue // besides the adapters' own, so that rules may read them
	// Executor is the executor beside this process, which does the steps. nil: this
	// process has its own, with its journal in StateDir.
	Executor executor.Hands
	// ActionsFile is the machine's own list of what may be done, for an executor of this
	// process (executor.Options). "": everything that its adapters can do.
	ActionsFile string
	// Allow is asked besides, of an executor of this process. nil: everything.
	Allow func(action string) bool
	// RunFile is this machine's own list of who may run commands on it ("fettle run"), for
	// an executor of this process (executor.Options).
	RunFile string
	// Arms takes back what cut this machine off, for an executor of this process. nil:
	// what could do that is refused.
	Arms *armed.Arms
	// Local reports whether a server's address is on this machine, so that reaching it
	// does not tell that the machine can be reached. nil: this machine's own addresses
	// are.
	Local func(ctx context.Context, address string) bool
	// GossipListen is where this host takes part in the gossip of its ring: GossipAuto, or
	// one address of it and a port. "": it does not gossip.
	GossipListen string
	Dial         wire.Dialer // how a server is reached; nil: over TCP
	// Jitter returns a time below most, so that many agents do not come at once.
	// nil: one by chance.
	Jitter  func(most time.Duration) time.Duration
	Version string       // of the program
	Log     *slog.Logger // nil: nothing is logged
	// Digest is how long a confirmation of what did not change may wait for others.
	// 0: five seconds.
	Digest time.Duration
	// Rediscover is how often adapters look for what is new on the machine. 0: a
	// minute.
	Rediscover time.Duration
	// OnDurable is told of what stands in this agent's journal, as
	// journal.Options.OnDurable is. nil: nobody is told.
	OnDurable func(first journal.Seq, records int)
	// Books are the runbooks by which this machine mends itself under its standing
	// permit while it reaches no server (incident.Options.Books). nil: it does nothing
	// then but observe.
	Books func(*expr.Env, []fettle.Catalogue) (*runbook.Set, error)
	// AloneAfter is how long it must have reached none. 0: fifteen seconds.
	AloneAfter time.Duration
	// OnAlone is told of what stands in the log that it keeps meanwhile, as OnDurable.
	OnAlone func(first journal.Seq, records int)
}

// Agent runs on one machine. Use it once.
type Agent struct {
	o          Options
	host       fettle.Subject
	fleet      string
	identity   atomic.Pointer[pki.Identity]
	renewing   sync.Mutex // held while the identity is changed
	cats       []fettle.Catalogue
	picture    *picture
	crew       *crew
	freeze     freeze
	gossip     *gossip
	servers    *servers // set by Run, as hands and process are
	hands      executor.Hands
	process    string // incarnation of this process, and of an executor in it
	contact    *contact
	solo       solo
	began      time.Time
	onPurpose  map[fettle.Code]bool
	permitless string        // why nothing is permitted, as the log was told last; serve's own
	refuses    string        // why the server is not obeyed, as the log was told last; connect's own
	homeAfter  time.Duration // homeAfter, but in a test
	unbound    bool          // set by a test: no server is held to the head of its log
}

// New makes an agent that does nothing until Run. The error names every mistake in
// the catalogues.
func New(o Options) (*Agent, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Rediscover <= 0 {
		o.Rediscover = time.Minute
	}
	if o.AloneAfter <= 0 {
		o.AloneAfter = aloneAfter
	}
	if o.Jitter == nil {
		o.Jitter = mathrand.N[time.Duration]
	}
	if o.Local == nil {
		o.Local = onThisMachine
	}
	if o.Executor != nil {
		o.Machine.Filesystems = askingExecutor{o.Machine.Filesystems, o.Executor}
	}
	name := o.Identity.Name
	if name.Role != pki.RoleAgent || o.Machine.Identity.Host != name.Host() {
		return nil, fmt.Errorf("agent: the machine is %s, and the identity is of %s (join this machine)", o.Machine.Identity.Host, name)
	}
	a := &Agent{o: o, host: name.Host(), fleet: name.Fleet, process: rand.Text(), homeAfter: homeAfter}
	a.identity.Store(o.Identity)
	for _, ad := range o.Adapters {
		a.cats = append(a.cats, ad.Catalogue())
	}
	joined := fettle.Join(append(slices.Clone(a.cats), o.Catalogues...))
	env, err := expr.New(joined)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	judge, err := condition.New(joined, env, fettle.HostScope)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	a.onPurpose = purposes(joined)
	a.began = o.Machine.Clock.Now()
	a.contact = newContact(a.began)
	a.picture = newPicture(o.Machine.Clock, judge)
	a.crew = newCrew(a)
	a.gossip = newGossip(a)
	return a, nil
}

// Run observes, judges, tells and acts until ctx ends. An error is one that no
// waiting mends: a state folder or a journal that cannot be used, a configuration for
// no adapter, an identity that has expired.
func (a *Agent) Run(ctx context.Context) (err error) {
	if err := a.identity.Load().InTime(a.o.Machine.Clock.Wall()); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if err := a.finder().Check(); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if err := os.MkdirAll(a.o.StateDir, 0o700); err != nil {
		return fmt.Errorf("agent: state folder: %w", err)
	}
	if a.hands = a.o.Executor; a.hands == nil {
		own, err := a.own(ctx)
		if err != nil {
			return fmt.Errorf("agent: %w", err)
		}
		// Before its adapters are closed.
		defer func() { err = errors.Join(err, own.Close(ctx), a.crew.close()) }()
		g, err := own.Greet(ctx)
		if err != nil {
			return fmt.Errorf("agent: %w", err)
		}
		a.hands, a.process = own, g.Incarnation
	} else {
		defer func() { err = errors.Join(err, a.crew.close()) }()
	}
	a.servers = recallServers(a.o.StateDir, a.o.Server, a.host.Name())
	kept := recall(a.o.StateDir, a.o.Machine.Identity.BootID, a.o.Machine.Clock, a.o.Log)
	a.picture.remember(kept)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	a.gossip.recall()
	errs := make(chan error, 6) // one for each that runs
	for _, run := range []func(context.Context) error{a.crew.run, a.picture.run, kept.run, a.gossip.run, a.connect, a.alone} {
		wg.Go(func() {
			errs <- run(ctx)
			cancel()
		})
	}
	wg.Wait()
	kept.last()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	return err
}

// finder finds which configurations are to be open.
func (a *Agent) finder() roster.Finder {
	return roster.Finder{Adapters: a.o.Adapters, Machine: a.o.Machine, Dir: a.o.ConfigDir, Kept: filepath.Join(a.o.StateDir, foundDir), Log: a.o.Log}
}

// foundDir is where, under the state folder, what was found is kept.
const foundDir = "found"

// kinds are the kinds of subjects that this agent can look at.
func (a *Agent) kinds() []string {
	set := map[string]bool{}
	for _, c := range a.cats {
		for _, k := range c.Kinds {
			set[string(k.Kind)] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}
