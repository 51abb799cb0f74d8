package executor

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"fettle/internal/fettle"
)

// Over the socket what a command writes is fetched, piece by piece: so it comes no
// faster than the agent takes it, and no answer need wait for another.

const (
	// maxFetched is how many commands one connection may have under way or not yet
	// fetched to their end.
	maxFetched = 2 * maxCommands
	// stopWait is how long the executor may take to say how a command ended that it was
	// told to end: what cannot be killed is given up after two seconds.
	stopWait = 5 * time.Second
)

// starting is the argument of the method run.
type starting struct {
	ID string `json:"id"` // the caller's own; names the command on this connection
	Command
}

// piece is the answer to fetch: one of the two.
type piece struct {
	Output *Output `json:"output,omitempty"`
	End    *Ending `json:"end,omitempty"`
}

// fetched are the commands of one connection. They end with it.
type fetched struct {
	hands Hands
	log   *slog.Logger

	mu   sync.Mutex
	open map[string]*underway
}

// underway is one of them.
type underway struct {
	cancel context.CancelFunc
	pieces chan Output
	over   chan struct{} // closed when end and err are there
	end    Ending
	err    error
}

// begin begins a command, and waits for nothing. It ends with the connection's context;
// all counts what it started.
func (f *fetched) begin(ctx context.Context, all *sync.WaitGroup, s starting) error {
	ctx, cancel := context.WithCancel(ctx)
	u := &underway{cancel: cancel, pieces: make(chan Output), over: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		f.open = map[string]*underway{}
	}
	if f.open[s.ID] != nil || len(f.open) >= maxFetched {
		cancel()
		return fettle.Refuse("run", "", "fetch how the others ended", "%d commands of this agent are under way, or this one is already", len(f.open))
	}
	f.open[s.ID] = u
	all.Go(func() {
		defer close(u.over)
		defer cancel()
		defer func() {
			if v := recover(); v != nil {
				f.log.Error("a person's command panicked", "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
				u.err = errors.New("it failed inside of the executor (this is a defect; its log has more)")
			}
		}()
		u.end, u.err = f.hands.Run(ctx, s.Command, func(ctx context.Context, o Output) error {
			o.Data = bytes.Clone(o.Data)
			select {
			case u.pieces <- o:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	})
	return nil
}

// find returns a command of this connection.
func (f *fetched) find(id string) (*underway, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if u := f.open[id]; u != nil {
		return u, nil
	}
	return nil, &fettle.Error{Op: "fetch", Class: fettle.NoAnswer, Err: errors.New("the executor knows nothing of this command (it started anew, and ended it)")}
}

// next waits for what a command writes next, or for its end, which is told once.
func (f *fetched) next(ctx context.Context, id string) (piece, error) {
	u, err := f.find(id)
	if err != nil {
		return piece{}, err
	}
	select {
	case o := <-u.pieces:
		return piece{Output: &o}, nil
	case <-u.over:
		return f.ended(id, u)
	case <-ctx.Done():
		return piece{}, ctx.Err()
	}
}

// stop ends a command and waits until it has.
func (f *fetched) stop(ctx context.Context, id string) (piece, error) {
	u, err := f.find(id)
	if err != nil {
		return piece{}, err
	}
	u.cancel()
	select {
	case <-u.over:
		return f.ended(id, u)
	case <-ctx.Done():
		return piece{}, ctx.Err()
	}
}

func (f *fetched) ended(id string, u *underway) (piece, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.open, id)
	return piece{End: &u.end}, u.err
}

// Run implements Hands.
func (c *Client) Run(ctx context.Context, cmd Command, out func(context.Context, Output) error) (Ending, error) {
	id := rand.Text()
	_, err := call[any](ctx, c, run, starting{id, cmd})
	for err == nil {
		var p piece
		if p, err = call[piece](ctx, c, fetch, id); err != nil {
			break
		}
		switch {
		case p.End != nil:
			return *p.End, nil
		case p.Output != nil:
			err = out(ctx, *p.Output)
		default:
			err = errors.New("executor: the answer to fetch is empty")
		}
	}
	if ctx.Err() == nil && (errors.Is(err, ErrAway) || fettle.ClassOf(err) == fettle.NoAnswer || fettle.ClassOf(err) == fettle.Unsupported) {
		return Ending{}, err // it was not begun, or ends with the connection
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWait)
	defer cancel()
	p, serr := call[piece](last, c, stop, id)
	if serr == nil && p.End != nil {
		return *p.End, nil
	}
	return Ending{}, errors.Join(err, serr)
}
