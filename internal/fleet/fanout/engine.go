package fanout

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Runner reaches hosts.
type Runner interface {
	// Run runs the command on one host and returns how it ended. It tells the sink
	// what happens meanwhile, and nothing any more once it has returned. It returns
	// promptly when ctx ends, having tried to end the command too. Calls come from
	// many goroutines at once.
	Run(ctx context.Context, h Host, c Command, s *Sink) (Status, error)
}

// Command is a program and its arguments. No shell is involved.
type Command struct {
	Argv []string
}

// The defaults of Options.
const (
	DefaultParallel = 64
	DefaultConnect  = time.Second
	DefaultNotice   = time.Second
	DefaultSilence  = 10 * time.Second
	DefaultLimit    = 1 << 20
)

// Options say how a run goes on. The zero value is usable.
type Options struct {
	Parallel  int           // hosts at once; 0: DefaultParallel
	Batch     Batch         // hosts that must have ended before more begin; zero: all at once
	StopAfter int           // begin no more once so many did not succeed, for whatever reason; 0: never. What runs is let finish
	Connect   time.Duration // until a host's first sign of life; 0: DefaultConnect
	Notice    time.Duration // a host that is silent for so long is named; 0: DefaultNotice
	Silence   time.Duration // and for so long, given up; 0: DefaultSilence
	Timeout   time.Duration // of the whole run; 0: none
	Limit     int           // bytes of output that are passed on from one host; 0: DefaultLimit
}

func (o Options) filled() Options {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&o.Connect, DefaultConnect)
	set(&o.Notice, DefaultNotice)
	set(&o.Silence, DefaultSilence)
	if o.Parallel <= 0 {
		o.Parallel = DefaultParallel
	}
	if o.Limit <= 0 {
		o.Limit = DefaultLimit
	}
	return o
}

// Kind is what an Event tells.
type Kind string

// The kinds of events.
const (
	Output  Kind = "output"  // Data, of Stream
	Clipped Kind = "clipped" // the output grew past the limit: the rest is thrown away
	Quiet   Kind = "quiet"   // no sign of life for Options.Notice; Why says what is waited for
	Answers Kind = "answers" // it was quiet and is not any more
	Ended   Kind = "ended"   // Result; the last event of a host
)

// Stream is which of its two outputs a command wrote to.
type Stream string

// The streams.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// Event is what happens in a run.
type Event struct {
	Kind   Kind
	Host   string
	Stream Stream
	Data   []byte // the receiver's to keep
	Why    string
	Result Result
}

var (
	errTimeout = errors.New("out of time")
	errStopped = errors.New("interrupted")
)

// Run runs a command on hosts and tells emit what happens, in order of arrival:
// calls of emit never overlap, and one that blocks holds the hosts back. It
// returns when every host has its result; when ctx ends, that is soon.
func Run(ctx context.Context, hosts []Host, c Command, o Options, r Runner, emit func(Event)) Summary {
	o = o.filled()
	begin := time.Now()
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.Timeout, fmt.Errorf("%w: the run may take %s", errTimeout, o.Timeout))
		defer cancel()
	}
	run := &run{turn: make(chan struct{}, 1), o: o, runner: r, command: c, emit: emit, sum: Summary{Hosts: len(hosts), Counts: map[Outcome]int{}}}
	for left := hosts; len(left) > 0; {
		n := min(o.Batch.Of(len(hosts)), len(left))
		run.batch(ctx, left[:n])
		left = left[n:]
	}
	run.sum.Took = time.Since(begin)
	return run.sum
}

// run is one call of Run.
type run struct {
	o       Options
	runner  Runner
	command Command

	turn chan struct{} // holds a token while somebody has emit and what follows
	emit func(Event)
	sum  Summary
}

func (r *run) lock()   { r.turn <- struct{}{} }
func (r *run) unlock() { <-r.turn }

// batch runs the command on hosts and returns when all have ended.
func (r *run) batch(ctx context.Context, hosts []Host) {
	var all sync.WaitGroup
	defer all.Wait()
	places := make(chan struct{}, r.o.Parallel)
	for _, h := range hosts {
		placed := false
		if r.stopped(ctx) == "" {
			select {
			case places <- struct{}{}:
				placed = true
			case <-ctx.Done():
			}
		}
		leave := func() {
			if placed {
				<-places
			}
		}
		if why := r.stopped(ctx); why != "" { // also by what ended meanwhile
			leave()
			r.end(Result{Host: h.Name, Outcome: Skipped, Why: why})
			continue
		}
		all.Go(func() {
			defer leave()
			r.end(r.one(ctx, h))
		})
	}
}

// stopped says why no more hosts are begun, "" when they are.
func (r *run) stopped(ctx context.Context) string {
	r.lock()
	defer r.unlock()
	if ctx.Err() != nil && r.sum.Stopped == "" {
		r.sum.Stopped = whyEnded(ctx).Error()
	}
	return r.sum.Stopped
}

func (r *run) end(result Result) {
	r.lock()
	defer r.unlock()
	r.sum.Counts[result.Outcome]++
	bad := 0
	for outcome, n := range r.sum.Counts {
		if outcome != Succeeded && outcome != Skipped {
			bad += n
		}
	}
	if r.o.StopAfter > 0 && bad >= r.o.StopAfter && r.sum.Stopped == "" {
		r.sum.Stopped = fmt.Sprintf("%d did not succeed", bad)
	}
	r.emit(Event{Kind: Ended, Host: result.Host, Result: result})
}

// tell passes on what happens on a host, unless that has its result.
func (r *run) tell(s *Sink, e Event) {
	r.lock()
	defer r.unlock()
	if !s.closed {
		r.emit(e)
	}
}

func (r *run) close(s *Sink) {
	r.lock()
	defer r.unlock()
	s.closed = true
}

// one runs the command on one host.
func (r *run) one(ctx context.Context, h Host) Result {
	begin := time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := newSink(r, h.Name, begin)
	watched := make(chan struct{})
	over := make(chan struct{})
	go func() {
		defer close(watched)
		s.watch(ctx, cancel, over)
	}()
	status, err := r.runner.Run(ctx, h, r.command, s)
	close(over)
	<-watched
	r.close(s)
	var cause error
	if ctx.Err() != nil {
		cause = whyEnded(ctx)
	}
	result := Result{Host: h.Name, Began: s.begun(), Took: time.Since(begin)}
	result.Bytes, result.Clipped = s.written()
	judge(&result, status, err, cause)
	return result
}

// whyEnded is why a context has ended, in words for people.
func whyEnded(ctx context.Context) error {
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errTimeout
	}
	return errStopped
}
