package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fettle/internal/fleet/fanout"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
	"fettle/internal/machine"
)

const (
	// maxCommands is how many commands of people run at once on one machine.
	maxCommands = 16
	// maxCommandTime is how long one may run where the server names no end.
	maxCommandTime = 24 * time.Hour
	// leastAlive is how often a sign of life is given at most.
	leastAlive = 100 * time.Millisecond
	// rememberedCommands is how many numbers of commands a session remembers, so
	// that none is run twice; older ones are refused.
	rememberedCommands = 4096
)

// command is one that runs.
type command struct {
	id     uint64
	ctx    context.Context
	cancel context.CancelFunc
	credit chan struct{} // has a value when output may be sent
	left   int64         // bytes of output that are still wanted; whoever has the credit's
}

// commands are those of one session.
type commands struct {
	running map[uint64]*command
	known   map[uint64]bool
	highest uint64
}

// fresh says whether a number is new, and remembers it.
func (c *commands) fresh(id uint64) bool {
	if c.running == nil {
		c.running, c.known = map[uint64]*command{}, map[uint64]bool{}
	}
	if c.known[id] || id+rememberedCommands <= c.highest {
		return false
	}
	c.known[id] = true
	c.highest = max(c.highest, id)
	if len(c.known) > 2*rememberedCommands {
		for n := range c.known {
			if n+rememberedCommands <= c.highest {
				delete(c.known, n)
			}
		}
	}
	return true
}

// command begins a command, or says why not. It is called by serve only.
func (x *session) command(w *wire.Command) {
	x.lookForFreeze() // what is now counts, not what was a second ago
	why := x.refuses
	id := w.GetId()
	x.mu.Lock()
	fresh := x.commands.fresh(id)
	crowded := len(x.commands.running) >= maxCommands
	var c *command
	if fresh && !crowded {
		c = &command{id: id, credit: make(chan struct{}, 1), left: w.GetLimit()}
		c.credit <- struct{}{}
		within := time.Duration(w.GetWithinNs())
		if within <= 0 || within > maxCommandTime {
			within = maxCommandTime
		}
		c.ctx, c.cancel = context.WithTimeout(x.ctx, within)
		x.commands.running[id] = c
	}
	x.mu.Unlock()
	switch {
	case !fresh: // it has its answer, or will have it
		return
	case crowded:
		x.commandEnd(&wire.CommandEnd{Id: id, Refused: fmt.Sprintf("%d commands run on this host already", maxCommands), Hint: "try again when they have ended"})
		return
	}
	x.wg.Go(func() {
		defer func() {
			c.cancel()
			x.mu.Lock()
			delete(x.commands.running, id)
			x.mu.Unlock()
		}()
		end := x.runCommand(c, w, why)
		end.Id = id
		x.commandEnd(end)
	})
}

func (x *session) commandEnd(end *wire.CommandEnd) {
	x.push(func(time.Time) *wire.SessionRequest {
		return &wire.SessionRequest{What: &wire.SessionRequest_CommandEnd{CommandEnd: end}}
	})
}

// commandMore lets a command send on.
func (x *session) commandMore(id uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if c := x.commands.running[id]; c != nil {
		select {
		case c.credit <- struct{}{}:
		default:
		}
	}
}

func (x *session) commandCancel(id uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if c := x.commands.running[id]; c != nil {
		c.cancel()
	}
}

// runCommand runs a command, if this machine lets it, and waits for its end.
// Unfollowed is why this server is not obeyed.
func (x *session) runCommand(c *command, w *wire.Command, unfollowed string) *wire.CommandEnd {
	log := x.a.o.Log.With("by", w.GetBy(), "role", w.GetRole(), "command", fanout.Redact(w.GetArgv()))
	as, err := x.admits(w, unfollowed)
	if err != nil {
		log.Warn("a person's command was refused", "why", err)
		end := &wire.CommandEnd{Refused: err.Error()}
		var f *fanout.Failure
		if errors.As(err, &f) {
			end.Hint = f.Hint
		}
		return end
	}
	log.Info("a person's command begins", "as", as)
	over := make(chan struct{})
	alive := make(chan struct{})
	go func() {
		defer close(alive)
		x.commandAlive(c, time.Duration(w.GetAliveNs()), over)
	}()
	out, err := x.a.o.Machine.Commands.Run(c.ctx, machine.Command{
		Path: w.GetArgv()[0], Args: w.GetArgv()[1:], User: as, Stdout: commandOut{x, c, false}, Stderr: commandOut{x, c, true},
	})
	close(over)
	<-alive
	end := &wire.CommandEnd{}
	switch {
	case err == nil && out.Signal != 0:
		end.Signal = strings.TrimPrefix(unix.SignalName(syscall.Signal(out.Signal)), "SIG")
		if end.Signal == "" {
			end.Signal = fmt.Sprint(out.Signal)
		}
	case err == nil:
		end.Exit = int32(out.Exit)
	case c.ctx.Err() != nil:
		end.Error = "it was ended before its own end: " + err.Error()
	default:
		end.Refused = err.Error() // it could not be started
	}
	log.Info("a person's command ended", "as", as, "exit", end.GetExit(), "signal", end.GetSignal(), "error", end.GetError()+end.GetRefused())
	return end
}

// admits says as which account a command runs, or why it does not.
func (x *session) admits(w *wire.Command, unfollowed string) (string, error) {
	f := x.a.freeze.state()
	switch {
	case len(w.GetArgv()) == 0:
		return "", fanout.Refuse("", "there is no command")
	case unfollowed != "":
		return "", fanout.Refuse("see `fettle status`", "this agent does not obey the server: %s", unfollowed)
	case f.local:
		return "", fanout.Refuse("see its file "+x.a.freeze.path, "this host is frozen: %s", f.why)
	case f.fleet:
		return "", fanout.Refuse("see `fettle thaw`", "the fleet is frozen")
	}
	return mayRun(x.a.o.RunFile, w.GetBy(), pki.Role(w.GetRole()), w.GetArgv())
}

// commandAlive gives signs of life until the command is over.
func (x *session) commandAlive(c *command, every time.Duration, over <-chan struct{}) {
	for {
		due, stop := x.a.o.Machine.Clock.After(max(every, leastAlive))
		select {
		case <-due:
		case <-over:
			stop()
			return
		}
		x.push(func(time.Time) *wire.SessionRequest {
			return &wire.SessionRequest{What: &wire.SessionRequest_CommandOutput{CommandOutput: &wire.CommandOutput{Id: c.id}}}
		})
	}
}

// commandOut is one stream of a command. It takes output no faster than the server
// does, and passes over what is not wanted any more.
type commandOut struct {
	x      *session
	c      *command
	stderr bool
}

// Write implements io.Writer.
func (o commandOut) Write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		select {
		case <-o.c.credit:
		case <-o.c.ctx.Done():
			return 0, context.Cause(o.c.ctx)
		}
		n := min(int64(len(p)), int64(wire.CommandChunk), o.c.left)
		if n <= 0 {
			select {
			case o.c.credit <- struct{}{}: // given back unused
			default:
			}
			return written, nil
		}
		o.c.left -= n
		data := bytes.Clone(p[:n])
		p = p[n:]
		o.x.push(func(time.Time) *wire.SessionRequest {
			return &wire.SessionRequest{What: &wire.SessionRequest_CommandOutput{CommandOutput: &wire.CommandOutput{Id: o.c.id, Data: data, Stderr: o.stderr}}}
		})
	}
	return written, nil
}
