package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A host's files are reached through a descriptor of its root, and every path is resolved by the kernel as if that root
// were "/" (openat2(2), RESOLVE_IN_ROOT): neither ".." nor an absolute symbolic link leads out of the host.

// root opens the host's root: as its processes see it while they run (with its /run, /tmp and mounted disks), else the
// merged overlay.
func (h *Host) root() (*os.File, error) {
	h.mu.Lock()
	b := h.boot
	h.mu.Unlock()
	if b != nil && b.leader() != 0 {
		return os.Open(filepath.Join("/proc", strconv.Itoa(b.leader()), "root"))
	}
	return os.Open(h.lab.anchor.root(filepath.Join(h.dir, "root")))
}

func openIn(root *os.File, name string, flags int, perm fs.FileMode) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT}
	if flags&unix.O_CREAT != 0 {
		how.Mode = uint64(perm.Perm())
	}
	for {
		fd, err := unix.Openat2(int(root.Fd()), path.Clean("/"+name), &how)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) { // EAGAIN: something was renamed meanwhile
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

// parentIn opens the folder that name is in, and makes it first, with its own parents, where it is missing.
func parentIn(root *os.File, name string) (dir *os.File, base string, err error) {
	name = path.Clean("/" + name)
	if name == "/" {
		return nil, "", errors.New("give the path of a file, not the root")
	}
	const flags = unix.O_PATH | unix.O_DIRECTORY
	if dir, err = openIn(root, path.Dir(name), flags, 0); !errors.Is(err, fs.ErrNotExist) {
		return dir, path.Base(name), err
	}
	up, own, err := parentIn(root, path.Dir(name))
	if err != nil {
		return nil, "", err
	}
	defer up.Close()
	if err := unix.Mkdirat(int(up.Fd()), own, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, "", &fs.PathError{Op: "mkdir", Path: path.Dir(name), Err: err}
	}
	dir, err = openIn(root, path.Dir(name), flags, 0)
	return dir, path.Base(name), err
}

// ReadFile reads a file of the host, whether it is on or off. A missing file is fs.ErrNotExist.
func (h *Host) ReadFile(name string) ([]byte, error) {
	root, err := h.root()
	if err != nil {
		return nil, fmt.Errorf("read %s:%s: %w", h.name, name, err)
	}
	defer root.Close()
	f, err := openIn(root, name, unix.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("on %s: %w", h.name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("read %s:%s: %w", h.name, name, err)
	}
	return data, nil
}

// WriteFile makes or replaces a file of the host, with missing folders above it, whether the host is on or off. The file
// belongs to root and appears at once with all its content; a symbolic link at that place is replaced, not followed.
func (h *Host) WriteFile(name string, data []byte, perm fs.FileMode) error {
	return h.put(name, bytes.NewReader(data), perm)
}

// CopyIn copies a regular file of the machine into the host, with its permissions, as WriteFile does: a program that is
// running there can be replaced too.
func (h *Host) CopyIn(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy to %s: %w", h.name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("copy to %s: %w", h.name, err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("copy %s to %s: not a regular file: copy the files in it one by one", from, h.name)
	}
	return h.put(to, f, info.Mode())
}

func (h *Host) put(name string, from io.Reader, perm fs.FileMode) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s:%s: %w", h.name, name, err)
		}
	}()
	root, err := h.root()
	if err != nil {
		return err
	}
	defer root.Close()
	dir, base, err := parentIn(root, name)
	if err != nil {
		return err
	}
	defer dir.Close()
	h.mu.Lock()
	h.execs++
	temp := ".lab-" + strconv.Itoa(h.execs)
	h.mu.Unlock()
	fd, err := unix.Openat(int(dir.Fd()), temp, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, uint32(perm.Perm()))
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), temp)
	_, err = io.Copy(f, from)
	err = errors.Join(err, unix.Fchmod(fd, uint32(perm.Perm())), f.Close()) // the umask has taken bits away at creation
	if err == nil {
		err = unix.Renameat(int(dir.Fd()), temp, int(dir.Fd()), base)
	}
	if err != nil {
		err = errors.Join(err, unix.Unlinkat(int(dir.Fd()), temp, 0))
	}
	return err
}

// Remove removes a file or an empty folder of the host; one that is not there is no error.
func (h *Host) Remove(name string) error {
	root, err := h.root()
	if err != nil {
		return fmt.Errorf("remove %s:%s: %w", h.name, name, err)
	}
	defer root.Close()
	name = path.Clean("/" + name)
	dir, err := openIn(root, path.Dir(name), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil {
		defer dir.Close()
		err = unix.Unlinkat(int(dir.Fd()), strings.TrimPrefix(path.Base(name), "/"), 0)
		if errors.Is(err, unix.EISDIR) {
			err = unix.Unlinkat(int(dir.Fd()), path.Base(name), unix.AT_REMOVEDIR)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s:%s: %w", h.name, name, err)
	}
	return nil
}
