package fanout

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"
)

// phase is how far a host has come.
type phase int

const (
	dialling phase = iota
	reached        // something accepts the connection, and has said nothing yet
	spoke          // it has given a sign of life
	started        // the command was handed over
)

// Sink is where a Runner tells what happens on one host. All methods may be called
// from several goroutines at once.
type Sink struct {
	run  *run
	host string

	mu      sync.Mutex
	phase   phase
	since   time.Time     // when waiting for the first sign of life began
	connect time.Duration // how long that may take
	heard   time.Time     // the last sign of life
	telling int           // calls of emit under way: then it is we who are slow
	quiet   bool          // it was named
	bytes   int64
	clipped bool
	closed  bool          // the Runner has returned; guarded by run.lock
	poke    chan struct{} // something changed that the watch computes with
}

func newSink(r *run, host string, now time.Time) *Sink {
	return &Sink{run: r, host: host, since: now, connect: r.o.Connect, heard: now, poke: make(chan struct{}, 1)}
}

// Hop says that a connection to another machine begins, through which the host is
// reached or, at last, the host itself: waiting begins anew.
func (s *Sink) Hop() {
	s.change(func(now time.Time) {
		if s.phase < spoke {
			s.phase, s.since = dialling, now
		}
	})
}

// Allow gives this host another time until its first sign of life than
// Options.Connect.
func (s *Sink) Allow(d time.Duration) {
	s.change(func(time.Time) { s.connect = d })
}

// Reached says that something at the host's address accepts connections. Kernels
// do that also for a process that hangs.
func (s *Sink) Reached() {
	s.change(func(time.Time) { s.phase = max(s.phase, reached) })
}

// Alive says that the host gave a sign of life.
func (s *Sink) Alive() {
	s.mu.Lock()
	s.heard, s.phase = time.Now(), max(s.phase, spoke)
	again := s.quiet
	s.quiet = false
	s.mu.Unlock()
	if again {
		s.tell(Event{Kind: Answers, Host: s.host})
		s.wake()
	}
}

// Begun says that the command is being handed over: from here on it may run.
func (s *Sink) Begun() {
	s.change(func(now time.Time) { s.phase, s.heard = started, now })
}

// Output passes on what the command wrote. It copies data.
func (s *Sink) Output(stream Stream, data []byte) {
	if len(data) == 0 {
		return
	}
	s.mu.Lock()
	room := min(int64(len(data)), max(0, int64(s.run.o.Limit)-s.bytes))
	s.bytes += int64(len(data))
	clip := room < int64(len(data)) && !s.clipped
	s.clipped = s.clipped || clip
	s.mu.Unlock()
	if room > 0 {
		s.tell(Event{Kind: Output, Host: s.host, Stream: stream, Data: bytes.Clone(data[:room])})
	}
	if clip {
		s.tell(Event{Kind: Clipped, Host: s.host, Why: fmt.Sprintf("more than %d bytes of output: the rest is thrown away", s.run.o.Limit)})
	}
	s.Alive()
}

func (s *Sink) change(do func(now time.Time)) {
	s.mu.Lock()
	do(time.Now())
	s.mu.Unlock()
	s.wake()
}

func (s *Sink) wake() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

func (s *Sink) tell(e Event) {
	s.mu.Lock()
	s.telling++
	s.mu.Unlock()
	s.run.tell(s, e)
	s.mu.Lock()
	s.telling--
	s.mu.Unlock()
}

func (s *Sink) begun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.phase >= started
}

func (s *Sink) written() (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes, s.clipped
}

// watch names a host that is silent, and gives it up when that goes on. It
// returns when the Runner has.
func (s *Sink) watch(ctx context.Context, giveUp context.CancelCauseFunc, over <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-over:
			return
		case <-ctx.Done():
			<-over // the Runner is ending; what it is silent about is our doing
			return
		case <-timer.C:
		case <-s.poke:
		}
		wait, name, verdict := s.look(time.Now())
		switch {
		case verdict != nil:
			giveUp(verdict)
			continue
		case name != "":
			s.run.tell(s, Event{Kind: Quiet, Host: s.host, Why: name})
		}
		timer.Reset(wait)
	}
}

// look says what is to be done now about a host's silence: it is named, or given
// up, or looked at again after wait.
func (s *Sink) look(now time.Time) (wait time.Duration, name string, verdict error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.run.o
	if s.telling > 0 {
		s.heard = now
		return o.Notice, "", nil
	}
	if s.phase < spoke {
		past := now.Sub(s.since)
		switch {
		case past >= s.connect && s.phase == dialling:
			return 0, "", &Failure{Outcome: Unreachable, Err: fmt.Errorf("no connection within %s", s.connect),
				Hint: "is it on, and is the address right? (--connect-timeout gives it longer)"}
		case past >= s.connect:
			return 0, "", &Failure{Outcome: Hung, Err: fmt.Errorf("it accepts connections and says nothing for %s", s.connect),
				Hint: "the host, or what listens there, hangs: look at its console"}
		case past >= o.Notice && !s.quiet:
			s.quiet = true
			name = fmt.Sprintf("no connection for %s", o.Notice)
		}
		wait = s.connect - past
		if !s.quiet {
			wait = min(wait, o.Notice-past)
		}
		return wait, name, nil
	}
	past := now.Sub(s.heard)
	switch {
	case past >= o.Silence:
		f := &Failure{Outcome: Hung, Err: fmt.Errorf("it began the login and says nothing for %s", o.Silence), Hint: "the host, or what it asks about users, hangs"}
		if s.phase == started {
			f.Err = fmt.Errorf("the command had begun, and the host has not answered for %s", o.Silence)
			f.Hint = "the command may have run, or go on with the host: look before you repeat it"
		}
		return 0, "", f
	case past >= o.Notice && !s.quiet:
		s.quiet = true
		name = fmt.Sprintf("no answer for %s", o.Notice)
	}
	wait = o.Silence - past
	if !s.quiet {
		wait = min(wait, o.Notice-past)
	}
	return wait, name, nil
}
