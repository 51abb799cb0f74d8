package executor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fettle/internal/fettle"
	"fettle/internal/fleet/fanout"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/warrant"
	"fettle/internal/fleet/wire"
	"fettle/internal/machine"
)

const (
	// maxCommands is how many commands of people run at once on one host.
	maxCommands = 16
	// MaxCommandTime is how long one may run where nobody names an end.
	MaxCommandTime = 24 * time.Hour
	// maxRuns is how many runs are remembered, each as long as what was signed for it
	// could come again.
	maxRuns = 4096
)

// Command is a person's command on its way to the executor. The body is what was
// signed, byte by byte (warrant.Program).
type Command struct {
	Body   []byte          `json:"body"`
	Signed *warrant.Signed `json:"signed,omitempty"` // a warrant.Run; nil: nobody signed it, so it is refused
	Limit  int64           `json:"limit"`            // bytes of output that are wanted, of both streams together; the rest is thrown away
}

// Output is a piece of what a command wrote, of wire.CommandChunk bytes at most.
type Output struct {
	Data   []byte `json:"data"`
	Stderr bool   `json:"stderr,omitempty"`
}

// Ending is how a command ended.
type Ending struct {
	Exit    int    `json:"exit"`
	Signal  string `json:"signal,omitempty"`  // without "SIG"
	Refused string `json:"refused,omitempty"` // not empty: it was not run, and why
	Hint    string `json:"hint,omitempty"`
	Error   string `json:"error,omitempty"` // not empty: how it ended is not known, and why
}

func refusedCommand(err error) Ending {
	end := Ending{Refused: err.Error()}
	var f *fanout.Failure
	if errors.As(err, &f) {
		end.Hint = f.Hint
	}
	return end
}

// peoples are the commands of people on this host. The zero peoples is ready for use.
type peoples struct {
	mu      sync.Mutex
	running int
	done    map[string]time.Time // run to when the nonce of what was signed was made
}

// begin takes a run up, once. What was signed for it is not believed any more once its
// nonce is too old, nor by the next start of the executor: so long, and no longer, it
// need be remembered.
func (p *peoples) begin(run string, made, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		p.done = map[string]time.Time{}
	}
	for id, at := range p.done {
		if now.Sub(at) > maxNonceAge {
			delete(p.done, id)
		}
	}
	_, again := p.done[run]
	switch {
	case again:
		return fanout.Refuse("find out who repeats it; it runs once", "this command was run on this host already")
	case p.running >= maxCommands:
		return fanout.Refuse("try again when they have ended", "%d commands run on this host already", p.running)
	case len(p.done) >= maxRuns:
		return fanout.Refuse("try again in a minute", "more than %d commands came to this host within %v", maxRuns, maxNonceAge)
	}
	p.done[run] = made
	p.running++
	return nil
}

func (p *peoples) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running--
}

// Run implements Hands.
func (e *Executor) Run(ctx context.Context, c Command, out func(context.Context, Output) error) (Ending, error) {
	program, run, by, made, err := e.signedBy(c)
	log := e.o.Log.With("by", by.ID, "role", string(by.Role), "run", run.Run, "command", fanout.Redact(program.Argv))
	as := ""
	if err == nil {
		as, err = e.admits(by, program.Argv)
	}
	if err == nil {
		err = e.peoples.begin(run.Run, made, e.o.Clock.Now())
	}
	if err != nil {
		end := refusedCommand(err)
		log.Warn("a person's command was refused", "why", end.Refused)
		return end, nil
	}
	defer e.peoples.end()
	log.Info("a person's command begins", "as", as)
	end := e.run(ctx, program, as, c.Limit, out)
	log.Info("a person's command ended", "as", as, "exit", end.Exit, "signal", end.Signal, "error", end.Error+end.Refused)
	return end, nil
}

// signedBy is what a person has signed for this host, a moment ago, and who that is.
// made is when this executor made the nonce in it.
func (e *Executor) signedBy(c Command) (program warrant.Program, run warrant.Run, by pki.Name, made time.Time, err error) {
	program, perr := warrant.ParseProgram(c.Body)
	if c.Signed == nil {
		return program, run, by, made, fanout.Refuse("upgrade the server, and `fettle` where you call it", "no person has signed this command (is the server, or the fettle that was called, of an older version?)")
	}
	if run, by, err = warrant.OpenRun(*c.Signed, e.o.Trust(), e.o.Clock.Wall()); err == nil {
		err = e.isFor(run, c.Body)
	}
	if err == nil {
		now := e.o.Clock.Now()
		made, err = e.nonces.made(run.Nonce, now)
		if age := now.Sub(made); err == nil && age > run.Within {
			err = fmt.Errorf("its deadline passed %s ago", (age - run.Within).Round(time.Millisecond))
		}
		if err != nil {
			err = fmt.Errorf("the command is not from now: %w", err)
		}
	}
	if err == nil {
		err = perr
	}
	if err != nil {
		err = fanout.Refuse("find out who speaks for that person; nothing was run", "%w", err)
	}
	return program, run, by, made, err
}

// isFor refuses what a person signed for somewhere or something else.
func (e *Executor) isFor(run warrant.Run, body []byte) error {
	switch {
	case run.Host != e.o.Host:
		return fmt.Errorf("what was signed is for %s, and this is %s", run.Host, e.o.Host)
	case e.o.Name != "" && run.Name != e.o.Name && run.Name != string(e.o.Host):
		return fmt.Errorf("the person was shown %.80q for this host, and it is called %.80q (was it renamed? restart its agent)", run.Name, e.o.Name)
	case run.Body != warrant.HashOf(body):
		return errors.New("what came is not what was signed")
	}
	return nil
}

// admits says as which account a person's command runs here, or why it does not.
func (e *Executor) admits(by pki.Name, argv []string) (string, error) {
	if e.o.Commands == nil {
		return "", fanout.Refuse("", "this host runs no commands of people")
	}
	if frozen, why := e.freeze.look(); frozen {
		return "", fanout.Refuse("thaw it there", "this host is frozen: %s", why)
	}
	if e.freeze.fleetFrozen() {
		return "", fanout.Refuse("see `fettle thaw`", "the fleet is frozen")
	}
	return mayRun(e.o.RunFile, by.ID, by.Role, argv)
}

// run runs a program and waits for its end.
func (e *Executor) run(ctx context.Context, p warrant.Program, as string, limit int64, out func(context.Context, Output) error) Ending {
	within := p.Timeout
	if within <= 0 || within > MaxCommandTime {
		within = MaxCommandTime
	}
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("its %v are over", within))
	defer cancel()
	s := &streamed{ctx: ctx, out: out, left: limit}
	done, err := e.o.Commands.Run(ctx, machine.Command{
		Path: p.Argv[0], Args: p.Argv[1:], User: as, Stdout: side{s, false}, Stderr: side{s, true},
	})
	end := Ending{}
	switch {
	case err == nil && done.Signal != 0:
		if end.Signal = strings.TrimPrefix(unix.SignalName(syscall.Signal(done.Signal)), "SIG"); end.Signal == "" {
			end.Signal = fmt.Sprint(done.Signal)
		}
	case err == nil:
		end.Exit = done.Exit
	case ctx.Err() != nil:
		end.Error = fmt.Sprintf("it was ended before its own end: %v (%v)", err, context.Cause(ctx))
	default:
		end.Refused = err.Error() // it could not be started
		var f *fettle.Error
		if errors.As(err, &f) {
			end.Hint = f.Hint
		}
	}
	return end
}

// streamed hands on what a command writes, in the order in which it comes, no faster
// than it is taken, and no more than is wanted.
type streamed struct {
	ctx context.Context
	out func(context.Context, Output) error

	mu   sync.Mutex
	left int64
}

// side is one of its two streams.
type side struct {
	*streamed
	stderr bool
}

// Write implements io.Writer.
func (s side) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	written := len(p)
	for len(p) > 0 && s.left > 0 {
		n := min(int64(len(p)), int64(wire.CommandChunk), s.left)
		if err := s.out(s.ctx, Output{Data: p[:n], Stderr: s.stderr}); err != nil {
			return 0, err
		}
		s.left -= n
		p = p[n:]
	}
	return written, nil
}
