package linuxmachine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"fettle/internal/machine"
)

// WatchMounts is told by the kernel: of changes of the mount table, and of errors
// that an ext4 filesystem counts, which change no line of the table (when a
// filesystem stops at an error it shows emergency_ro, and says so only there).
func (s *filesystems) WatchMounts(ctx context.Context, emit func([]machine.Mount)) error {
	// poll(2) cannot wait for a context: closing the pipe wakes it.
	wake, closer, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("watch mounts: %w", err)
	}
	defer wake.Close()
	stop := context.AfterFunc(ctx, func() { closer.Close() })
	defer func() {
		if stop() {
			closer.Close()
		}
	}()

	table, err := openWatched(s.table.path)
	if err != nil {
		return fmt.Errorf("watch mounts: %w", err)
	}
	defer table.Close()
	counters := map[string]*os.File{}
	defer func() {
		for _, f := range counters {
			f.Close()
		}
	}()
	for {
		mounts, err := readMounts(table)
		if err != nil {
			return fmt.Errorf("watch mounts: %w", err)
		}
		s.follow(counters, mounts)
		s.addErrors(mounts)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		emit(mounts)

		fds := []unix.PollFd{
			{Fd: int32(wake.Fd()), Events: unix.POLLIN},
			{Fd: int32(table.Fd()), Events: unix.POLLPRI},
		}
		for _, f := range counters {
			fds = append(fds, unix.PollFd{Fd: int32(f.Fd()), Events: unix.POLLPRI})
		}
		if err := retryEINTR(func() error { _, err := unix.Poll(fds, -1); return err }); err != nil {
			return fmt.Errorf("watch mounts: poll: %w", err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// follow opens the error counters of what is mounted now, reads each, which is
// what arms poll on a sysfs file, and closes those of what is not.
func (s *filesystems) follow(counters map[string]*os.File, mounts []machine.Mount) {
	wanted := map[string]bool{}
	for _, m := range mounts {
		if m.Type == "ext4" {
			if name := s.errorsFile(m.Device); name != "" {
				wanted[name] = true
			}
		}
	}
	for name, f := range counters {
		if !wanted[name] {
			f.Close()
			delete(counters, name)
		}
	}
	for name := range wanted {
		f := counters[name]
		if f == nil {
			var err error
			if f, err = openWatched(name); err != nil {
				continue
			}
			counters[name] = f
		}
		if _, err := f.ReadAt(make([]byte, 32), 0); err != nil && !errors.Is(err, io.EOF) {
			f.Close() // gone with its filesystem
			delete(counters, name)
		}
	}
}
