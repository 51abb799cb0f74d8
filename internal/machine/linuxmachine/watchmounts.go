package linuxmachine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"time"

	"golang.org/x/sys/unix"

	"fettle/internal/machine"
)

// The kernel tells of a filesystem's error before it has stopped the filesystem
// and counted the error: the table is read again so long after it.
var afterError = []time.Duration{5 * time.Millisecond, 50 * time.Millisecond, time.Second}

// WatchMounts is told by the kernel: of changes of the mount table, and of errors
// of a filesystem, which change no line of it (when ext4 stops at an error it
// shows emergency_ro, and says so only there). Errors are told to root, through
// fanotify(7); to others only those after which ext4 goes on.
func (s *filesystems) WatchMounts(ctx context.Context, emit func([]machine.Mount)) error {
	w, err := s.watchMounts(ctx)
	if err != nil {
		return fmt.Errorf("watch mounts: %w", err)
	}
	defer w.close()
	var told []machine.Mount
	var again []time.Duration
	for {
		mounts, err := readMounts(w.table)
		if err != nil {
			return fmt.Errorf("watch mounts: %w", err)
		}
		w.follow(mounts)
		s.addErrors(mounts)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if told == nil || !reflect.DeepEqual(told, mounts) {
			told = mounts
			emit(mounts)
		}
		nap := -1
		if len(again) > 0 {
			nap = int(again[0].Milliseconds())
			again = again[1:]
		}
		failed, err := w.wait(nap)
		if err != nil {
			return fmt.Errorf("watch mounts: %w", err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if failed {
			again = afterError
		}
	}
}

// mountWatch is what WatchMounts polls.
type mountWatch struct {
	s        *filesystems
	wake     *os.File // end of file once the context has ended
	table    *os.File
	counters map[string]*os.File
	errors   int             // fanotify; -1: not permitted
	marked   map[uint64]bool // devices whose errors are told
	closers  []func()
}

func (s *filesystems) watchMounts(ctx context.Context) (*mountWatch, error) {
	w := &mountWatch{s: s, counters: map[string]*os.File{}, marked: map[uint64]bool{}, errors: -1}
	// poll(2) cannot wait for a context: closing the pipe wakes it.
	var end *os.File
	var err error
	if w.wake, end, err = os.Pipe(); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { end.Close() })
	w.closers = append(w.closers, func() { w.wake.Close() }, func() {
		if stop() {
			end.Close()
		}
	})
	if w.table, err = openWatched(s.table.path); err != nil {
		w.close()
		return nil, err
	}
	w.closers = append(w.closers, func() { w.table.Close() })
	if fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_FID|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY); err == nil {
		w.errors = fd
		w.closers = append(w.closers, func() { unix.Close(fd) })
	}
	return w, nil
}

func (w *mountWatch) close() {
	for _, f := range w.counters {
		f.Close()
	}
	for _, c := range w.closers {
		c()
	}
}

// wait returns when something has happened, or after nap milliseconds unless
// that is negative. failed: a filesystem had an error.
func (w *mountWatch) wait(nap int) (failed bool, err error) {
	fds := []unix.PollFd{
		{Fd: int32(w.wake.Fd()), Events: unix.POLLIN},
		{Fd: int32(w.table.Fd()), Events: unix.POLLPRI},
		{Fd: int32(w.errors), Events: unix.POLLIN}, // poll(2) passes over a negative one
	}
	for _, f := range w.counters {
		fds = append(fds, unix.PollFd{Fd: int32(f.Fd()), Events: unix.POLLPRI})
	}
	if err := retryEINTR(func() error { _, err := unix.Poll(fds, nap); return err }); err != nil {
		return false, fmt.Errorf("poll: %w", err)
	}
	if fds[2].Revents == 0 {
		return false, nil
	}
	// Which one it was the table says. The events only have to be taken away.
	buffer := make([]byte, 16<<10)
	for {
		if _, err := unix.Read(w.errors, buffer); err != nil && !errors.Is(err, unix.EINTR) {
			return true, nil
		}
	}
}

// follow watches what is mounted now, and no longer what is not.
func (w *mountWatch) follow(mounts []machine.Mount) {
	wanted := map[string]bool{}
	for _, m := range mounts {
		if w.errors >= 0 && !w.marked[m.Device] && (m.Type == "ext4" || m.Type == "xfs") {
			// Refused where the filesystem has no such events: then it is not asked
			// again. The mark goes with the filesystem.
			w.marked[m.Device] = true
			_ = unix.FanotifyMark(w.errors, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_FS_ERROR, unix.AT_FDCWD, m.Point)
		}
		if name := w.s.errorsFile(m.Device); m.Type == "ext4" && name != "" {
			wanted[name] = true
		}
	}
	w.forget(mounts)
	for name, f := range w.counters {
		if !wanted[name] {
			f.Close()
			delete(w.counters, name)
		}
	}
	for name := range wanted {
		f := w.counters[name]
		if f == nil {
			var err error
			if f, err = openWatched(name); err != nil {
				continue
			}
			w.counters[name] = f
		}
		// Reading arms poll on a file of sysfs.
		if _, err := f.ReadAt(make([]byte, 32), 0); err != nil && !errors.Is(err, io.EOF) {
			f.Close() // gone with its filesystem
			delete(w.counters, name)
		}
	}
}

// forget lets a device be marked again when something is mounted from it later.
func (w *mountWatch) forget(mounts []machine.Mount) {
	present := map[uint64]bool{}
	for _, m := range mounts {
		present[m.Device] = true
	}
	for device := range w.marked {
		if !present[device] {
			delete(w.marked, device)
		}
	}
}
