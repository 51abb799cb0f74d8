package executor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/warrant"
)

const (
	// maxPeers is how many connections there may be: one agent, and one that has just
	// died.
	maxPeers = 4
	// maxCalls is how many calls of one connection may be under way; more wait to be read.
	// One for each command is fetching what that writes.
	maxCalls = 64 + maxFetched
	// callWait bounds a call that names no end of its own, but for Do, which lasts as
	// long as the step, and what a command writes, for which its agent waits.
	callWait = 2 * time.Minute
	// writeWait is how long a peer may take to read an answer.
	writeWait = 10 * time.Second
)

// Serve answers those on a unix socket whose account is root's or one of these, as the
// kernel says it (SO_PEERCRED, unix(7)), until ctx ends. It closes the listener, and
// returns when all that it started has returned; a step that has begun goes on.
func Serve(ctx context.Context, l net.Listener, h Hands, accounts []int, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // Accept says so
	defer stop()
	var peers sync.WaitGroup
	defer peers.Wait()
	defer cancel()
	room := make(chan struct{}, maxPeers)
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("serve on %s: %w", l.Addr(), err)
		}
		if err := admitted(c, accounts); err != nil {
			log.Error("somebody was turned away", "error", err)
			_ = c.Close()
			continue
		}
		select {
		case room <- struct{}{}:
		default:
			log.Error("an agent was turned away: there are too many connections", "limit", maxPeers)
			_ = c.Close()
			continue
		}
		peers.Go(func() {
			defer func() { <-room }()
			if err := answer(ctx, c, h, log); err != nil && ctx.Err() == nil {
				log.Warn("the connection with an agent ended", "error", err)
			}
		})
	}
}

// admitted asks the kernel who is at the other end.
func admitted(c net.Conn, accounts []int) error {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("%T is no unix socket", c)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return err
	}
	if cerr != nil {
		return fmt.Errorf("who calls is not known: %w", cerr)
	}
	if uid := int(cred.Uid); uid != 0 && !slices.Contains(accounts, uid) {
		return fmt.Errorf("account %d (process %d) may not call the executor", uid, cred.Pid)
	}
	return nil
}

// answer answers one connection until one of the ends closes it.
func answer(ctx context.Context, c net.Conn, h Hands, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	var calls sync.WaitGroup
	defer func() {
		cancel()
		stop()
		_ = c.Close()
		calls.Wait()
	}()
	var mu sync.Mutex // of what is written
	room := make(chan struct{}, maxCalls)
	commands := &fetched{hands: h, log: log}
	in := bufio.NewReader(c)
	for {
		var r request
		if err := readFrame(in, &r); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		if r.Schema != frameSchema {
			return fmt.Errorf("the agent speaks schema %d, this executor schema %d (they are of different versions: restart both)", r.Schema, frameSchema)
		}
		each := func() {
			var result any
			var err error
			if r.Method == run {
				result, err = with(r, func(s starting) (any, error) { return nil, commands.begin(ctx, &calls, s) })
			} else {
				result, err = called(ctx, h, commands, r, log)
			}
			out := response{Schema: frameSchema, ID: r.ID, Error: failed(err)}
			if err == nil {
				if out.Result, err = json.Marshal(result); err != nil {
					out.Error = failed(err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			_ = c.SetWriteDeadline(time.Now().Add(writeWait))
			if err := writeFrame(c, out); err != nil {
				cancel() // the reader ends with the connection
			}
		}
		if r.Method == follow || r.Method == run { // before what was handed over after it; they wait for nothing
			each()
			continue
		}
		room <- struct{}{} // calls end: each has a bound
		calls.Go(func() {
			defer func() { <-room }()
			each()
		})
	}
}

// called makes one call. A panic is an error of it.
func called(ctx context.Context, h Hands, commands *fetched, r request, log *slog.Logger) (result any, err error) {
	defer func() {
		if v := recover(); v != nil {
			log.Error("a call panicked", "method", r.Method, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			result, err = nil, fmt.Errorf("%s failed inside of the executor (this is a defect; its log has more)", r.Method)
		}
	}()
	within := time.Duration(r.Within)
	if within <= 0 && r.Method != do && r.Method != fetch {
		within = callWait
	}
	if within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, within)
		defer cancel()
	}
	switch r.Method {
	case greet:
		return h.Greet(ctx)
	case pulse:
		return h.Pulse(ctx)
	case meet:
		return with(r, func(in Introduction) (string, error) { return h.Meet(ctx, in) })
	case follow:
		return with(r, func(head warrant.Signed) (string, error) { return h.Follow(ctx, head) })
	case told:
		return with(r, func(w Word) (any, error) { return nil, h.Told(ctx, w) })
	case believe:
		return with(r, func(words []pki.SignedWord) (int64, error) { return h.Believe(ctx, words) })
	case standing:
		return h.Permit(ctx)
	case arming:
		return h.Armed(ctx)
	case confirm:
		return with(r, func(c confirmation) (any, error) { return nil, h.Confirm(ctx, c.ID, c.Since) })
	case do:
		return with(r, func(o Order) (fettle.Outcome, error) { return h.Do(ctx, o) })
	case recovering:
		return with(r, func(o Order) (fettle.Outcome, error) { return h.Recover(ctx, o) })
	case preview:
		return with(r, func(o Order) (fettle.Preview, error) { return h.Preview(ctx, o) })
	case checkWrite:
		return with(r, func(mountpoint string) (any, error) { return nil, h.CheckWrite(ctx, mountpoint) })
	case look:
		return with(r, func(l looking) ([]fettle.Observation, error) { return h.Look(ctx, l.From, l.Subjects...) })
	case changed:
		return with(r, func(l looking) (uint64, error) { return h.Changed(ctx, l.From, l.Known) })
	case fetch:
		return with(r, func(id string) (piece, error) { return commands.next(ctx, id) })
	case stop:
		return with(r, func(id string) (piece, error) { return commands.stop(ctx, id) })
	}
	return nil, fmt.Errorf("method %.40q: %w", r.Method, fettle.ErrNotSupported)
}

// with reads a call's argument.
func with[A, R any](r request, f func(A) (R, error)) (any, error) {
	var a A
	if err := json.Unmarshal(r.Arg, &a); err != nil {
		return nil, fmt.Errorf("the argument of %s: %w", r.Method, err)
	}
	return f(a)
}
