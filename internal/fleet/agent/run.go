package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/warrant"
	"fettle/internal/fleet/wire"
)

const (
	// maxUnderway is how many commands of people one session has under way: more than an
	// executor runs.
	maxUnderway = 64
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

// command hands a command to the executor, or says why not. It is called by serve only.
func (x *session) command(w *wire.Command) {
	why := x.refuses.now()
	id := w.GetId()
	x.mu.Lock()
	fresh := x.commands.fresh(id)
	crowded := len(x.commands.running) >= maxUnderway
	var c *command
	if fresh && !crowded {
		c = &command{id: id, credit: make(chan struct{}, 1)}
		c.credit <- struct{}{}
		within := time.Duration(w.GetWithinNs())
		if within <= 0 || within > executor.MaxCommandTime {
			within = executor.MaxCommandTime
		}
		c.ctx, c.cancel = context.WithTimeout(x.ctx, within)
		x.commands.running[id] = c
	}
	x.mu.Unlock()
	switch {
	case !fresh: // it has its answer, or will have it
		return
	case crowded:
		x.commandEnd(&wire.CommandEnd{Id: id, Refused: fmt.Sprintf("%d commands are under way on this host already", maxUnderway), Hint: "try again when they have ended"})
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

// runCommand has the executor run a command, and waits for its end. Whether this machine
// lets it the executor says; unfollowed is why this server is not obeyed.
func (x *session) runCommand(c *command, w *wire.Command, unfollowed string) *wire.CommandEnd {
	if unfollowed != "" {
		return &wire.CommandEnd{Refused: "this agent does not obey the server: " + unfollowed, Hint: "see `fettle status`"}
	}
	over := make(chan struct{})
	alive := make(chan struct{})
	go func() {
		defer close(alive)
		x.commandAlive(c, time.Duration(w.GetAliveNs()), over)
	}()
	end, err := x.a.hands.Run(c.ctx, executor.Command{Body: w.GetProgram(), Signed: personsWord(w), Limit: w.GetLimit()}, func(ctx context.Context, o executor.Output) error {
		return x.commandOutput(ctx, c, o)
	})
	close(over)
	<-alive
	switch {
	case err == nil:
	case errors.Is(err, executor.ErrAway):
		end = executor.Ending{Refused: err.Error(), Hint: "start fettle-executor.service there"}
	case errors.Is(err, fettle.ErrNotSupported):
		end = executor.Ending{Refused: "the executor of this host is of an older version, and runs no commands of people", Hint: "restart fettle-executor.service there"}
	default:
		end = executor.Ending{Error: err.Error(), Hint: "the command may have run; what is left of it ends with its executor: look before you repeat it"}
	}
	return &wire.CommandEnd{Exit: int32(end.Exit), Signal: end.Signal, Refused: end.Refused, Hint: end.Hint, Error: end.Error}
}

// personsWord is what a person signed of a command; nil: nothing, since the server, or
// the fettle that was called, is of an older version.
func personsWord(w *wire.Command) *warrant.Signed {
	if w.GetSigned() == nil {
		return nil
	}
	return &warrant.Signed{Note: w.GetSigned().GetNote(), Certificate: w.GetSigned().GetCertificate()}
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

// commandOutput tells what a command wrote, no faster than the server takes it.
func (x *session) commandOutput(ctx context.Context, c *command, o executor.Output) error {
	select {
	case <-c.credit:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	}
	data := bytes.Clone(o.Data)
	x.push(func(time.Time) *wire.SessionRequest {
		return &wire.SessionRequest{What: &wire.SessionRequest_CommandOutput{CommandOutput: &wire.CommandOutput{Id: c.id, Data: data, Stderr: o.Stderr}}}
	})
	return nil
}
