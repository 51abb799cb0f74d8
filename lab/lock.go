package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// errLocked says that somebody else holds a lock file.
var errLocked = errors.New("locked by another process")

// lockRetry is how often a wait for a lock looks again: flock(2) has no wait that a context can end.
const lockRetry = 50 * time.Millisecond

// tryLock takes the lock file at path at once, or returns errLocked. The lock ends when the file is closed, or its
// holder dies: the descriptor is not inherited by children.
func tryLock(path string) (*os.File, error) { return lockFileAt(path, os.O_RDWR|os.O_CREATE) }

// tryLockExisting is tryLock for a lock file that must be there already; else the error is fs.ErrNotExist.
func tryLockExisting(path string) (*os.File, error) { return lockFileAt(path, os.O_RDWR) }

func lockFileAt(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// lock takes the lock file at path, in a folder that it makes if need be, and waits for it until ctx ends. It calls
// waiting once, if it has to wait.
func lock(ctx context.Context, path string, waiting func()) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	for first := true; ; first = false {
		f, err := tryLock(path)
		if !errors.Is(err, errLocked) {
			return f, err
		}
		if first && waiting != nil {
			waiting()
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s: %w", path, context.Cause(ctx))
		case <-time.After(lockRetry):
		}
	}
}
