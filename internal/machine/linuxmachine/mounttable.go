package linuxmachine

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"fettle/internal/machine"
)

// mountTable answers which mount a path is on without touching the path. It
// reads the table again only when the kernel says that it has changed.
type mountTable struct {
	path string

	mu     sync.Mutex
	file   *os.File
	points []string
}

// pointOf returns the mount point that path is on by its name, "/" when the
// table cannot be read.
func (t *mountTable) pointOf(path string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == nil || changed(t.file) {
		t.reread()
	}
	best := "/"
	for _, p := range t.points {
		if len(p) > len(best) && (path == p || strings.HasPrefix(path, p+"/")) {
			best = p
		}
	}
	return best
}

func (t *mountTable) reread() {
	if t.file == nil {
		f, err := openWatched(t.path)
		if err != nil {
			return
		}
		t.file = f
	}
	mounts, err := readMounts(t.file)
	if err != nil {
		return
	}
	t.points = t.points[:0]
	for _, m := range mounts {
		t.points = append(t.points, m.Point)
	}
}

func (t *mountTable) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == nil {
		return nil
	}
	err := t.file.Close()
	t.file = nil
	return err
}

// openWatched opens a file of the kernel's that is to be polled. os.Open would
// also register it with Go's own poller, and that takes the change away: the
// kernel tells a change of the mount table once for each open file.
func openWatched(path string) (*os.File, error) {
	var fd int
	err := retryEINTR(func() (err error) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil // of a blocking descriptor: not polled
}

// changed asks without waiting whether the table is another than when file was
// last asked (proc_pid_mountinfo(5): POLLPRI and POLLERR).
func changed(file *os.File) bool {
	fds := []unix.PollFd{{Fd: int32(file.Fd()), Events: unix.POLLPRI}}
	_, err := unix.Poll(fds, 0)
	return err != nil || fds[0].Revents != 0
}

// readMounts reads the table from its beginning.
func readMounts(file *os.File) ([]machine.Mount, error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(file)
	if err != nil {
		return nil, errors.Join(errors.New("read the mount table"), err)
	}
	return parseMountinfo(data)
}
