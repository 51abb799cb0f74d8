package linuxmachine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"fettle/internal/machine"
)

// maxStuck is how many calls to one mount point may hang in the kernel, where
// nothing can end them, before no more are made. Each holds a thread.
const maxStuck = 4

// lanes makes system calls that may never return, each on a goroutine of its
// own, and counts by mount point those that were given up on.
type lanes struct {
	mountOf func(path string) string

	mu    sync.Mutex
	stuck map[string]int
}

// call runs f, which touches path, until ctx ends. When f is given up on and
// still returns, discard gets what it returned.
func call[T any](ctx context.Context, l *lanes, op, path string, f func() (T, error), discard func(T)) (T, error) {
	var zero T
	if err := ctx.Err(); err != nil {
		return zero, fmt.Errorf("%s %s: %w", op, path, err)
	}
	if !filepath.IsAbs(path) || strings.IndexByte(path, 0) >= 0 {
		return zero, fmt.Errorf("%s %q: not an absolute path: %w", op, path, syscall.EINVAL)
	}
	mount := l.mountOf(path)
	l.mu.Lock()
	stuck := l.stuck[mount]
	l.mu.Unlock()
	if stuck >= maxStuck {
		return zero, fmt.Errorf("%s %s: %d calls to the mount at %s: %w", op, path, stuck, mount, machine.ErrHung)
	}

	type answer struct {
		value T
		err   error
	}
	got := make(chan answer, 1)
	left := false // guarded by l.mu, as is the choice between got and left
	go func() {
		v, err := f()
		l.mu.Lock()
		defer l.mu.Unlock()
		if !left {
			got <- answer{v, err}
			return
		}
		l.stuck[mount]--
		if err == nil && discard != nil {
			go discard(v) // may hang again: not under the lock
		}
	}()
	var a answer
	select {
	case a = <-got:
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		select {
		case a = <-got: // it was just in time
		default:
			left = true
			if l.stuck == nil {
				l.stuck = map[string]int{}
			}
			l.stuck[mount]++
			return zero, fmt.Errorf("%s %s: no answer from the kernel: %w", op, path, ctx.Err())
		}
	}
	if a.err != nil {
		return zero, fmt.Errorf("%s %s: %w", op, path, bare(a.err))
	}
	return a.value, nil
}

// do is call for what returns only an error.
func do(ctx context.Context, l *lanes, op, path string, f func() error) error {
	_, err := call(ctx, l, op, path, func() (struct{}, error) { return struct{}{}, f() }, nil)
	return err
}

// bare takes off what package os says of operation and path: ours is said once.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) && err == error(p) { //nolint:errorlint // only a bare one: what wraps it says more
		return p.Err
	}
	return err
}
