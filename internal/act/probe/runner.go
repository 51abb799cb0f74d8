package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

const (
	// defaultInterval and defaultTimeout serve a probe whose spec gives none.
	defaultInterval = 30 * time.Second
	defaultTimeout  = 10 * time.Second

	// DefaultDigest is how long a confirmation may wait to be told together with
	// others. It adds to the age that a receiver sees, so it stays well below the
	// shortest expiry of a condition, tens of seconds.
	DefaultDigest = 5 * time.Second

	// coverInterval bounds the time between polls while the probe's watcher is
	// broken: what would have been told at once is then seen within it.
	coverInterval = 10 * time.Second

	// grace is how long a probe may take to return once its context has ended
	// before it counts as stuck: what a busy machine needs to run its goroutine.
	grace = 250 * time.Millisecond

	// shutdown is how long Run waits for stuck probes at the end.
	shutdown = 2 * time.Second
)

// Options are what a Runner works with. Clock and Host must be set.
type Options struct {
	Instances []fettle.Instance
	Clock     machine.Clock
	Host      fettle.Subject
	Seed      uint64        // of the polls' jitter; 0: made from Host, so that hosts do not poll in step
	Digest    time.Duration // 0: DefaultDigest
	// Emit is called from one goroutine at a time, in order. While it blocks
	// nothing is lost: looking goes on, and the next batch is larger. nil: nothing
	// is passed on, and only Look, Once and Present answer.
	Emit func(Batch)
}

// Batch is what there is to tell.
type Batch struct {
	Changed []fettle.Observation // in the order in which they were seen
	Alive   []Alive              // sorted by subject and probe
}

// Alive says that an observation told before was made again with the same content.
type Alive struct {
	Subject fettle.Subject `json:"subject"`
	Probe   string         `json:"probe"`
	Asked   time.Time      `json:"asked"`
}

// Runner runs probes and watchers of one agent. All methods may be called
// concurrently; Run once.
type Runner struct {
	o        Options
	askers   []*asker
	watchers []*watch
	sink     *sink
	tasks    *tasks

	selfTurn sync.Mutex // one at a time tells about the runner, so that the last one knows most
	mu       sync.Mutex
	ran      bool
	broken   map[string]int // watchers, by their probe's name
	defects  map[any]string // who broke its own spec, an asker or watch, and its name
}

// watch is a watcher with the probe that covers for it, nil when there is none.
type watch struct {
	watcher fettle.Watcher
	spec    fettle.ProbeSpec
	cover   *asker
	random  *rand.Rand
}

// New makes a runner. It calls nothing but Spec and starts nothing.
func New(o Options) (*Runner, error) {
	if o.Clock == nil || o.Host.Kind() != fettle.KindHost {
		return nil, fmt.Errorf("probe runner: clock and host must be set; host is %q", o.Host)
	}
	if o.Digest <= 0 {
		o.Digest = DefaultDigest
	}
	if o.Seed == 0 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(o.Host))
		o.Seed = h.Sum64()
	}
	r := &Runner{o: o, sink: newSink(o.Emit != nil), tasks: newTasks(), broken: map[string]int{}, defects: map[any]string{}}
	for _, in := range o.Instances {
		own := map[string]*asker{}
		for _, p := range in.Probes() {
			spec := p.Spec()
			if spec.Name == "" || spec.Name == SelfProbe {
				return nil, fmt.Errorf("probe runner: a probe is named %q", spec.Name)
			}
			if own[spec.Name] != nil {
				return nil, fmt.Errorf("probe runner: an instance has two probes named %s", spec.Name)
			}
			a := newAsker(r, p, spec, r.random(spec.Name, len(r.askers)))
			own[spec.Name] = a
			r.askers = append(r.askers, a)
		}
		for _, w := range in.Watchers() {
			spec := w.Spec()
			r.watchers = append(r.watchers, &watch{watcher: w, spec: spec, cover: own[spec.Name], random: r.random(spec.Name, -1-len(r.watchers))})
		}
	}
	return r, nil
}

// random makes one probe's own source of jitter.
func (r *Runner) random(name string, index int) *rand.Rand {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%s %d", name, index)
	return rand.New(rand.NewPCG(r.o.Seed, h.Sum64()))
}

// jitter spreads d by a tenth to both sides.
func jitter(random *rand.Rand, d time.Duration) time.Duration {
	return d - d/10 + time.Duration(random.Int64N(int64(d/5)+1))
}

// Run watches and polls until ctx ends, then waits for all that it started. A
// probe or watcher that does not return although its context has ended is named
// in the error.
func (r *Runner) Run(ctx context.Context) error {
	r.mu.Lock()
	ran := r.ran
	r.ran = true
	r.mu.Unlock()
	if ran {
		return errors.New("probe runner: Run was called before")
	}
	for _, w := range r.watchers {
		r.tasks.start("watcher "+w.spec.Name, func() { r.keepWatching(ctx, w) })
	}
	for _, a := range r.askers {
		r.tasks.start("polls of "+a.spec.Name, func() { a.poll(ctx) })
	}
	r.tasks.start("its own facts", func() { r.keepTelling(ctx) })
	r.tell(ctx)
	if left := r.tasks.wait(r.o.Clock, shutdown); len(left) > 0 {
		return fmt.Errorf("probe runner: these do not return: %s", strings.Join(left, ", "))
	}
	return nil
}

// tell passes on what there is until ctx ends.
func (r *Runner) tell(ctx context.Context) {
	for {
		// Only while there is something to confirm is there a timer.
		due, stop := r.sink.due(r.o.Clock, r.o.Digest)
		full := false
		select {
		case <-ctx.Done():
			stop()
			return
		case <-due:
			full = true
		case <-r.sink.wake:
		}
		stop()
		if b := r.sink.take(full, r.o.Clock.Now()); len(b.Changed)+len(b.Alive) > 0 && r.o.Emit != nil {
			r.o.Emit(b)
		}
	}
}

// Present returns all that is seen at present, sorted by subject and probe:
// what a new receiver begins with.
func (r *Runner) Present() []fettle.Observation { return r.sink.present() }

// Specs lists the specs of all probes, sorted by name.
func (r *Runner) Specs() []fettle.ProbeSpec {
	out := []fettle.ProbeSpec{SelfSpec()}
	for _, a := range r.askers {
		if !slices.ContainsFunc(out, func(s fettle.ProbeSpec) bool { return s.Name == a.spec.Name }) {
			out = append(out, a.spec)
		}
	}
	slices.SortFunc(out, func(a, b fettle.ProbeSpec) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// inOrder sorts observations by subject and probe.
func inOrder(list []fettle.Observation) []fettle.Observation {
	slices.SortStableFunc(list, func(a, b fettle.Observation) int {
		return cmp.Or(strings.Compare(string(a.Subject), string(b.Subject)), strings.Compare(a.Probe, b.Probe))
	})
	return list
}
