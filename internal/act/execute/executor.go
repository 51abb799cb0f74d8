package execute

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"fettle/internal/act/journal"
	"fettle/internal/act/moment"
	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// defaultTimeout bounds an action whose catalogue gives none: as long as a
// service manager's own default for a job that hangs (90 s, systemd-system.conf(5)),
// rounded up.
const defaultTimeout = 2 * time.Minute

// grace is how long an action may take to return once its context has ended
// before it counts as stuck.
const grace = 2 * time.Second

// Options are what an Executor works with. Journal, Clock, Host and Fleet must
// be set. Ports that are nil refuse: no action is allowed, no new epoch taken.
// Frozen, Allow, NewEpoch, Permit and Paused are asked under a lock: they answer from
// memory and do not call the Executor.
type Options struct {
	Journal    *journal.Journal
	Actions    map[string]fettle.Action // by ActionSpec.Name
	Catalogues []fettle.Catalogue       // have the spec of every action
	Clock      machine.Clock
	Host       fettle.Subject
	Fleet      string

	// Incarnation of this start, new each time; "" makes a random one, which is
	// what everybody but a test wants.
	Incarnation string

	// Frozen reports whether a person has frozen this host. nil: it is not.
	Frozen func() bool
	// Allow is the host's own allow-list of actions, by name. nil allows none.
	Allow func(action string) bool
	// Arms arms a revert before what can cut this machine off. nil: that is refused.
	Arms Arms
	// NewEpoch is asked whether an administrator has signed the change from the
	// epoch of the highest token seen to that of a new one. nil: nobody has.
	NewEpoch func(highest, offered fettle.Token) error
	// Permit returns the standing permit that this host keeps; its signature has been
	// verified, and nothing else of it. nil: there is none.
	Permit func() (Kept, error)
	// Paused says why nothing may be done under a permit at present: the fleet was
	// frozen when it was last heard of. "": nothing is known to stand against it. nil:
	// that is not known, so nothing is done.
	Paused func() string
	// Approved is asked whether a person's approval stands behind a step that is new
	// here, where it needs one: an error says why not, with a hint behind the last
	// colon. nil: none needs one. It may take as long as verifying a signature.
	Approved func(d fettle.Dispatch, spec fettle.ActionSpec, past Past) error
}

// Past is what was begun here of the plan of a dispatch, ever.
type Past struct {
	Plan bool // some step of it
	Step bool // this very step, with these parameters
	Done bool // and it was done, and not taken back since
}

// Executor does dispatches. All methods may be called concurrently.
type Executor struct {
	o     Options
	specs map[string]fettle.ActionSpec
	point func(string) // crash tests stop the process at named points; does nothing otherwise

	mu           sync.Mutex
	keys         map[string]*key
	targets      map[fettle.Subject]string // the key that works on each target
	begun        map[string]bool           // plans, and steps of plans, that were begun here
	done         map[string]bool           // steps of plans that were done, and not taken back
	highest      fettle.Token
	durable      fettle.Token // the highest that the journal holds
	head         LogHead      // the last that was taken; zero: none
	headDurable  LogHead      // the last that the journal holds
	headAt       time.Time    // when it was last made durable, or this executor began
	doubt        *refusal     // why no dispatch of the server that was met is done
	incarnations map[string]bool
	acts         []act     // that were begun, in order, as far as the rate of a permit may count them
	lastAlone    time.Time // wall clock at the last that was begun under a permit,
	lastPermit   string    // and that permit's serial
	closed       bool
	running      sync.WaitGroup
}

// key is what is known of one key.
type key struct {
	begun       bool // an intent stands in the journal
	intent      journal.Seq
	incarnation string
	digest      string
	step        string // stepOf what it is for
	undo        bool
	ended       bool // a final outcome is known
	outcome     journal.Seq
	unwritten   *fettle.Outcome // a final outcome that the journal could not take
	answered    fettle.Fate     // last recorded answer that was not final
	fenced      bool            // durably
	alone       bool            // it was begun under a standing permit
	refused     bool            // by this incarnation: as good as fenced while it lives
	run         *run            // while Apply or Undo is under way here
}

// run is a step under way in this process.
type run struct {
	key      string
	done     chan struct{}
	outcome  fettle.Outcome // once done is closed
	touching bool           // guarded by the executor's mu: no fence stops it any more
	cancel   context.CancelFunc
	overdue  <-chan struct{} // closed when it should have returned and did not
}

// New replays the journal and begins a new incarnation in it. It refuses a
// journal of another host or fleet: a machine that was cloned must not answer for
// the first one's keys.
func New(o Options) (*Executor, error) {
	switch {
	case o.Journal == nil || o.Clock == nil:
		return nil, errors.New("executor: it needs a journal and a clock")
	case o.Host.Kind() != fettle.KindHost || o.Fleet == "":
		return nil, fmt.Errorf("executor: host %q, fleet %q: both must be known (join the fleet first)", o.Host, o.Fleet)
	}
	if o.Incarnation == "" {
		o.Incarnation = rand.Text()
	}
	if o.Frozen == nil {
		o.Frozen = func() bool { return false }
	}
	if o.Allow == nil {
		o.Allow = func(string) bool { return false }
	}
	if o.NewEpoch == nil {
		o.NewEpoch = func(highest, offered fettle.Token) error {
			return fmt.Errorf("epoch %d is new, and no administrator has signed the change from epoch %d", offered.Epoch, highest.Epoch)
		}
	}
	o.permitPorts()
	e := &Executor{
		o:            o,
		specs:        map[string]fettle.ActionSpec{},
		point:        func(p string) { moment.Reached("agent", func() string { return strings.ReplaceAll(p, " ", "-") }) },
		keys:         map[string]*key{},
		targets:      map[fettle.Subject]string{},
		begun:        map[string]bool{},
		done:         map[string]bool{},
		incarnations: map[string]bool{},
		headAt:       o.Clock.Now(),
	}
	if e.o.Approved == nil {
		e.o.Approved = func(fettle.Dispatch, fettle.ActionSpec, Past) error { return nil }
	}
	for _, name := range slices.Sorted(maps.Keys(o.Actions)) {
		spec, err := specOf(o.Catalogues, name)
		if err != nil {
			return nil, err
		}
		e.specs[name] = spec
	}
	if err := e.replay(); err != nil {
		return nil, err
	}
	if e.incarnations[o.Incarnation] {
		return nil, fmt.Errorf("executor: incarnation %s has been before; every start needs a new one", o.Incarnation)
	}
	if _, err := o.Journal.Append(KindIncarnation, incarnationRecord{o.Incarnation, o.Host, o.Fleet}); err != nil {
		return nil, fmt.Errorf("executor: begin: %w", err)
	}
	e.incarnations[o.Incarnation] = true
	return e, nil
}

func specOf(catalogues []fettle.Catalogue, action string) (fettle.ActionSpec, error) {
	for i := range catalogues {
		if spec, ok := catalogues[i].FindAction(action); ok {
			return *spec, nil
		}
	}
	return fettle.ActionSpec{}, fmt.Errorf("executor: action %s is in no catalogue", action)
}

// Incarnation is of this start. A dispatch names it.
func (e *Executor) Incarnation() string { return e.o.Incarnation }

// Highest is the highest token seen, the zero Token before the first.
func (e *Executor) Highest() fettle.Token {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.highest
}

// Able lists the actions that this agent can do and is allowed to, with their
// versions: what it tells a server.
func (e *Executor) Able() map[string]int {
	out := map[string]int{}
	for name, spec := range e.specs {
		if e.o.Allow(name) && (e.o.Arms != nil || !cutsOff(spec, fettle.Step{})) {
			out[name] = spec.Version
		}
	}
	return out
}

// Unfinished is a key that was begun and whose end is not known here.
type Unfinished struct {
	Key         string
	Incarnation string      // that began it
	Fate        fettle.Fate // Running while it runs in this process, else as last answered
}

// Unfinished lists the keys without a final outcome, sorted: what an agent tells
// a new leader, who asks Recover.
func (e *Executor) Unfinished() []Unfinished {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []Unfinished
	for name, k := range e.keys {
		switch {
		case k.run != nil:
			out = append(out, Unfinished{name, e.o.Incarnation, fettle.Running})
		case k.begun && !k.ended:
			fate := k.answered
			if fate == "" {
				fate = fettle.UnknownFate
			}
			out = append(out, Unfinished{name, k.incarnation, fate})
		}
	}
	slices.SortFunc(out, func(a, b Unfinished) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// Close takes no new step and waits for those under way. When ctx ends it
// cancels them, and after a grace names those that still have not returned. It
// does not close the journal.
func (e *Executor) Close(ctx context.Context) error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	all := make(chan struct{})
	go func() { e.running.Wait(); close(all) }()
	select {
	case <-all:
		return nil
	case <-ctx.Done():
	}
	e.mu.Lock()
	var left []string
	for name, k := range e.keys {
		if k.run != nil {
			k.run.cancel()
			left = append(left, name)
		}
	}
	e.mu.Unlock()
	late, stop := e.o.Clock.After(grace)
	defer stop()
	select {
	case <-all:
		return nil
	case <-late:
	}
	slices.Sort(left)
	return fmt.Errorf("executor: close: %d steps do not return: %s: %w", len(left), strings.Join(left, ", "), ctx.Err())
}

// keyOf returns what is known of a key, making an entry for a new one. mu is held.
func (e *Executor) keyOf(name string) *key {
	k := e.keys[name]
	if k == nil {
		k = &key{}
		e.keys[name] = k
	}
	return k
}
