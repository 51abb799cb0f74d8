package memmachine

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"

	"fettle/internal/machine"
)

// Filesystem is a mounted filesystem as a test sets it. What the files of the
// machine need is counted on top of Used.
type Filesystem struct {
	Mount    machine.Mount
	Size     int64 // bytes
	Reserved int64 // of Size, for root: writers through Files do not get it
	Inodes   int64
	Used     int64 // bytes in use by what is not in the tree
	UsedNow  int64 // inodes likewise
	Dead     bool  // shut down after an error: everything answers EIO
	Hung     bool  // nothing answers at all
}

// filesystem is the machine's own copy.
type filesystem struct {
	Filesystem
}

// SetFilesystem mounts a filesystem, or changes the one at its mount point, and
// tells those who watch the mount table.
func (m *Machine) SetFilesystem(f Filesystem) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f.Mount.Options, f.Mount.SuperOptions = slices.Clone(f.Mount.Options), slices.Clone(f.Mount.SuperOptions)
	i := slices.IndexFunc(m.filesystems, func(x *filesystem) bool { return x.Mount.Point == f.Mount.Point })
	if i < 0 {
		m.filesystems = append(m.filesystems, &filesystem{f})
	} else {
		*m.filesystems[i] = filesystem{f}
	}
	m.mountsChanged()
}

// Filesystem returns what is mounted at a point.
func (m *Machine) Filesystem(point string) (Filesystem, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.filesystems {
		if f.Mount.Point == point {
			return f.Filesystem, true
		}
	}
	return Filesystem{}, false
}

// Unmount takes a filesystem away, the root excepted. Its files stay, on the one
// below.
func (m *Machine) Unmount(point string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.filesystems = slices.DeleteFunc(m.filesystems, func(x *filesystem) bool { return x.Mount.Point == point && point != "/" })
	m.mountsChanged()
}

func (m *Machine) mountsChanged() {
	for w := range m.mountWaits {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

// on is the filesystem that p is on. m.mu is held.
func (m *Machine) on(p string) *filesystem {
	p = path.Clean(p) + "/"
	best := m.filesystems[0]
	for _, f := range m.filesystems {
		if strings.HasPrefix(p, strings.TrimSuffix(f.Mount.Point, "/")+"/") && len(f.Mount.Point) >= len(best.Mount.Point) {
			best = f
		}
	}
	return best
}

// reach is the way of every call to the filesystem that p is on: the errno of a
// dead one, no answer of a hung one.
func (m *Machine) reach(ctx context.Context, op, p string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", op, p, err)
	}
	if !path.IsAbs(p) {
		return fmt.Errorf("%s %q: not an absolute path: %w", op, p, syscall.EINVAL)
	}
	m.mu.Lock()
	f := *m.on(p)
	m.mu.Unlock()
	if f.Hung {
		<-ctx.Done()
		return fmt.Errorf("%s %s: %w", op, p, ctx.Err())
	}
	if f.Dead {
		return pathError(op, p, syscall.EIO)
	}
	return nil
}

// reachForWrite is reach for a change that needs this many more bytes and inodes.
func (m *Machine) reachForWrite(ctx context.Context, op, p string, more, inodes int64) error {
	if err := m.reach(ctx, op, p); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.on(p)
	if f.readOnly() {
		return pathError(op, p, syscall.EROFS)
	}
	u := m.usage(f)
	if more > 0 && more > u.Avail || inodes > 0 && inodes > u.InodesFree {
		return pathError(op, p, syscall.ENOSPC)
	}
	return nil
}

func (f *filesystem) readOnly() bool {
	return slices.Contains(f.Mount.Options, "ro") || slices.Contains(f.Mount.SuperOptions, "ro") ||
		slices.Contains(f.Mount.SuperOptions, "emergency_ro")
}

// usage counts the tree. m.mu is held.
func (m *Machine) usage(f *filesystem) machine.Usage {
	used, inodes := f.Used, f.UsedNow
	count := func(n *inode) {
		inodes++
		if !n.mode.IsDir() {
			used += n.allocated()
		}
	}
	var walk func(p string, n *inode)
	walk = func(p string, n *inode) {
		if m.on(p) == f {
			count(n)
		}
		for name, e := range n.entries {
			walk(path.Join(p, name), e)
		}
	}
	walk("/", m.root)
	seen := map[*inode]bool{}
	for _, p := range m.processes {
		for _, o := range p.open {
			if o.node.links == 0 && o.device == f.Mount.Device && !seen[o.node] {
				seen[o.node] = true
				count(o.node)
			}
		}
	}
	free := max(0, f.Size-used)
	return machine.Usage{
		Size: f.Size, Free: free, Avail: max(0, free-f.Reserved),
		Inodes: f.Inodes, InodesFree: max(0, f.Inodes-inodes),
	}
}

// filesystems is the Filesystems port.
type filesystems struct{ m *Machine }

func (s filesystems) Mounts(ctx context.Context) ([]machine.Mount, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("mounts: %w", err)
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	out := make([]machine.Mount, 0, len(s.m.filesystems))
	for _, f := range s.m.filesystems {
		mount := f.Mount
		mount.Options, mount.SuperOptions = slices.Clone(mount.Options), slices.Clone(mount.SuperOptions)
		out = append(out, mount)
	}
	return out, nil
}

func (s filesystems) Usage(ctx context.Context, mountpoint string) (machine.Usage, error) {
	m := s.m
	if err := m.reach(ctx, "statfs", mountpoint); err != nil {
		return machine.Usage{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.on(mountpoint)
	if f.Mount.Point != path.Clean(mountpoint) {
		if _, errno := m.lookup(mountpoint); errno != 0 {
			return machine.Usage{}, pathError("statfs", mountpoint, errno)
		}
	}
	return m.usage(f), nil
}

func (s filesystems) WatchMounts(ctx context.Context, emit func([]machine.Mount)) error {
	wake := make(chan struct{}, 1)
	s.m.mu.Lock()
	s.m.mountWaits[wake] = true
	s.m.mu.Unlock()
	defer func() {
		s.m.mu.Lock()
		delete(s.m.mountWaits, wake)
		s.m.mu.Unlock()
	}()
	for {
		mounts, err := s.Mounts(ctx)
		if err != nil {
			return ctx.Err()
		}
		emit(mounts)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		}
	}
}

func (s filesystems) CheckWrite(ctx context.Context, mountpoint string) error {
	if err := s.m.reachForWrite(ctx, "write check", mountpoint, blockSize, 1); err != nil {
		return err
	}
	return nil
}
