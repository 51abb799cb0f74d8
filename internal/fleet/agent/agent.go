package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"fettle/internal/act/execute"
	"fettle/internal/act/journal"
	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/judge/condition"
	"fettle/internal/judge/expr"
	"fettle/internal/machine"
)

// closeWait is how long steps that are under way may go on when the agent stops.
const closeWait = 10 * time.Second

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
	// Allow is this machine's own allow-list of actions. nil: everything that its
	// adapters can do.
	Allow func(action string) bool
	// RunFile is this machine's own list of who may run commands on it ("fettle run"),
	// which ParseRunPolicy reads. "", or a file that is not there or of no use: nobody.
	RunFile string
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
}

// Agent runs on one machine. Use it once.
type Agent struct {
	o        Options
	host     fettle.Subject
	fleet    string
	identity atomic.Pointer[pki.Identity]
	cats     []fettle.Catalogue
	picture  *picture
	crew     *crew
	freeze   *freeze
	servers  *servers // set by Run, as executor is
	executor *execute.Executor
	epochs   epochs
	refuses  string // why the server is not obeyed, as the log was told last; connect's own
	unbound  bool   // set by a test: no server is held to the head of its log
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
	if o.Allow == nil {
		o.Allow = func(string) bool { return true }
	}
	name := o.Identity.Name
	if name.Role != pki.RoleAgent || o.Machine.Identity.Host != name.Host() {
		return nil, fmt.Errorf("agent: the machine is %s, and the identity is of %s (join this machine)", o.Machine.Identity.Host, name)
	}
	a := &Agent{o: o, host: name.Host(), fleet: name.Fleet}
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
	a.picture = newPicture(o.Machine.Clock, judge)
	a.crew = newCrew(a)
	a.freeze = newFreeze(filepath.Join(o.StateDir, freezeName))
	return a, nil
}

// Run observes, judges, tells and acts until ctx ends. An error is one that no
// waiting mends: a state folder or a journal that cannot be used, a configuration for
// no adapter, an identity that has expired.
func (a *Agent) Run(ctx context.Context) (err error) {
	if err := a.identity.Load().InTime(a.o.Machine.Clock.Wall()); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if err := a.checkConfig(); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if err := os.MkdirAll(a.o.StateDir, 0o700); err != nil {
		return fmt.Errorf("agent: state folder: %w", err)
	}
	j, err := journal.Open(ctx, filepath.Join(a.o.StateDir, "journal"), journal.Options{Clock: a.o.Machine.Clock, OnDurable: a.o.OnDurable})
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	a.freeze.look()
	a.servers = recallServers(a.o.StateDir, a.o.Server)
	kept := recall(a.o.StateDir, a.o.Machine.Identity.BootID, a.o.Machine.Clock, a.o.Log)
	a.picture.remember(kept)
	a.executor, err = execute.New(execute.Options{
		Journal: j, Actions: a.actions(), Catalogues: a.cats, Clock: a.o.Machine.Clock, Host: a.host, Fleet: a.fleet,
		Frozen: a.freeze.here, Allow: a.o.Allow, NewEpoch: a.epochs.allow,
	})
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	errs := make(chan error, 4) // one for each that runs
	for _, run := range []func(context.Context) error{a.crew.run, a.picture.run, kept.run, a.connect} {
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
	// The caller's context has ended; steps that are under way still may.
	last, done := context.WithTimeout(context.WithoutCancel(ctx), closeWait)
	defer done()
	err = errors.Join(err, a.executor.Close(last), a.crew.close())
	if kerr := a.executor.KeepHead(); kerr != nil {
		a.o.Log.Warn("the next start will know an earlier head of the server's log", "error", kerr)
	}
	return err
}

// actions are all that the adapters' catalogues name; each finds, when it is
// called, who does it.
func (a *Agent) actions() map[string]fettle.Action {
	out := map[string]fettle.Action{}
	for _, c := range a.cats {
		for _, spec := range c.Actions {
			out[spec.Name] = &routed{name: spec.Name, crew: a.crew}
		}
	}
	return out
}

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
