package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupTop is the lab's subtree in every hierarchy; each lab has one folder in it, each host one in that.
const cgroupTop = "fettle-lab"

// hierarchies are the machine's cgroup mounts. The cgroup2 one carries the power switch (cgroup.kill) and the hang
// (cgroup.freeze); the others, on a machine with the hybrid layout, only need to be joined.
type hierarchies struct {
	v2 string
	v1 []string
}

func findHierarchies(all []mountPoint) (hierarchies, error) {
	var h hierarchies
	for _, m := range all {
		switch {
		case m.root != "/":
		case m.fstype == "cgroup2" && h.v2 == "":
			h.v2 = m.path
		// A new cpuset has no CPUs and takes no process before it is given some; nothing here needs one.
		case m.fstype == "cgroup" && !slices.Contains(m.super, "cpuset") && !slices.Contains(h.v1, m.path):
			h.v1 = append(h.v1, m.path)
		}
	}
	if h.v2 == "" {
		return h, errors.New("lab: no cgroup2 file system is mounted: mount one, for example on /sys/fs/cgroup/unified")
	}
	return h, nil
}

func machineHierarchies() (hierarchies, error) {
	all, err := mounts()
	if err != nil {
		return hierarchies{}, err
	}
	return findHierarchies(all)
}

// cgroup is one folder below cgroupTop, in all hierarchies at once.
type cgroup struct {
	in  hierarchies
	rel string // below the mount points
}

func (h hierarchies) group(names ...string) cgroup {
	return cgroup{in: h, rel: filepath.Join(append([]string{cgroupTop}, names...)...)}
}

func (c cgroup) v2() string { return filepath.Join(c.in.v2, c.rel) }

func (c cgroup) child(name string) cgroup { return cgroup{in: c.in, rel: filepath.Join(c.rel, name)} }

func (c cgroup) dirs() []string {
	dirs := []string{c.v2()}
	for _, h := range c.in.v1 {
		dirs = append(dirs, filepath.Join(h, c.rel))
	}
	return dirs
}

// create makes the folders; one that is there already is fine.
func (c cgroup) create() error {
	for _, dir := range c.dirs() {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(c.v2(), "cgroup.kill")); err != nil {
		return fmt.Errorf("lab: %s has no cgroup.kill: the lab needs Linux 5.14 or later", c.v2())
	}
	return nil
}

// procs are the files to write a process id to in order to move it into the group; that of cgroup2 comes first.
func (c cgroup) procs() []string {
	var files []string
	for _, dir := range c.dirs() {
		files = append(files, filepath.Join(dir, "cgroup.procs"))
	}
	return files
}

// kill sends SIGKILL to every process in the group and below it, frozen ones too, and waits until none is left.
// A group that is not there is empty.
func (c cgroup) kill(ctx context.Context) error {
	err := os.WriteFile(filepath.Join(c.v2(), "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return awaitEvent(ctx, filepath.Join(c.v2(), "cgroup.events"), "populated 0")
}

// remove takes the empty group and all below it away, in all hierarchies.
func (c cgroup) remove(ctx context.Context) error {
	var errs []error
	for _, top := range c.dirs() {
		errs = append(errs, removeCgroup(ctx, top))
	}
	return errors.Join(errs...)
}

func removeCgroup(ctx context.Context, top string) error {
	var dirs []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // went away in the meantime
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	slices.Reverse(dirs) // children before their parents
	for _, dir := range dirs {
		for {
			err := os.Remove(dir)
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				break
			}
			// In the v1 hierarchies a killed process may still be leaving, and they tell nobody when it has.
			if !errors.Is(err, unix.EBUSY) {
				return err
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("remove cgroup %s: still busy: %w", dir, context.Cause(ctx))
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	return nil
}

// awaitEvent waits until a line of a cgroup.events file is want; a file that is gone counts as that. The kernel wakes
// who polls such a file for exceptional conditions (cgroup-v2.rst, "cgroup.events").
func awaitEvent(ctx context.Context, file, want string) error {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 256)
	for {
		n, err := unix.Pread(int(f.Fd()), buf, 0)
		if errors.Is(err, unix.ENODEV) {
			return nil // the group was removed
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		if slices.Contains(strings.Split(string(buf[:n]), "\n"), want) {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for %q in %s: %w", want, file, context.Cause(ctx))
		}
		// Woken by the event; the limit is there to see the end of ctx.
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}, 100); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll %s: %w", file, err)
		}
	}
}

// freeze sets or clears the freezer of the v2 group at dir, and waits until that has taken effect.
func freeze(ctx context.Context, dir string, frozen bool) error {
	flag, want := "0", "frozen 0"
	if frozen {
		flag, want = "1", "frozen 1"
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte(flag), 0); err != nil {
		return err
	}
	return awaitEvent(ctx, filepath.Join(dir, "cgroup.events"), want)
}
