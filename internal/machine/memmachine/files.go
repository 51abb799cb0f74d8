package memmachine

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"fettle/internal/machine"
)

// files is the Files port. Every method locks the machine only between two of
// its steps, so that a test can look in between.
type files struct{ m *Machine }

func (f files) ReadFile(ctx context.Context, p string, limit int64) ([]byte, error) {
	m := f.m
	if err := m.reach(ctx, "read", p); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, errno := m.lookup(p)
	switch {
	case errno != 0:
		return nil, pathError("read", p, errno)
	case n.mode.IsDir():
		return nil, pathError("read", p, syscall.EISDIR)
	case n.size() > limit:
		return nil, fmt.Errorf("read %s: %d bytes are more than the limit of %d: %w", p, n.size(), limit, syscall.EFBIG)
	}
	return append(append([]byte{}, n.data...), make([]byte, n.pad)...), nil
}

func (f files) Stat(ctx context.Context, p string) (machine.Stat, error) {
	m := f.m
	if err := m.reach(ctx, "stat", p); err != nil {
		return machine.Stat{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, errno := m.lookup(p)
	if errno != 0 {
		return machine.Stat{}, pathError("stat", p, errno)
	}
	return n.stat(path.Base(path.Clean(p)), m.on(p).Mount.Device), nil
}

func (f files) ReadDir(ctx context.Context, p string) ([]machine.Stat, error) {
	m := f.m
	if err := m.reach(ctx, "read directory", p); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, errno := m.lookup(p)
	if errno == 0 && !n.mode.IsDir() {
		errno = syscall.ENOTDIR
	}
	if errno != 0 {
		return nil, pathError("read directory", p, errno)
	}
	out := []machine.Stat{}
	for name, e := range n.entries {
		out = append(out, e.stat(name, m.on(path.Join(p, name)).Mount.Device))
	}
	slices.SortFunc(out, func(a, b machine.Stat) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

func (f files) WriteFile(ctx context.Context, p string, data []byte, perm fs.FileMode) error {
	m := f.m
	temp := path.Join(path.Dir(p), "."+path.Base(p)+".new")
	w, err := f.Create(ctx, temp, perm)
	if err != nil {
		return fmt.Errorf("write %s: %w", p, err)
	}
	defer w.Close()
	undo := func(err error) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if dir, name, errno := m.parent(temp); errno == 0 && dir.entries[name] != nil {
			m.do(change{{dir, name, nil}})
			m.syncDir(dir)
		}
		return fmt.Errorf("write %s: %w", p, err)
	}
	if _, err := w.Write(data); err != nil {
		return undo(err)
	}
	m.mu.Lock()
	node, _ := m.lookup(temp)
	if old, errno := m.lookup(p); errno == 0 {
		if old.mode.IsDir() {
			m.mu.Unlock()
			return undo(syscall.EISDIR)
		}
		node.mode, node.uid, node.gid = old.mode, old.uid, old.gid
	}
	node.syncData()
	m.mu.Unlock()
	m.step("fsync", temp)

	m.mu.Lock()
	from, fromName, _ := m.parent(temp)
	to, toName, errno := m.parent(p)
	if errno != 0 {
		m.mu.Unlock()
		return undo(errno)
	}
	m.do(change{{from, fromName, nil}, {to, toName, node}})
	node.links = 1
	m.mu.Unlock()
	m.step("rename", p)
	return m.fsyncDir("write", path.Dir(p))
}

func (f files) Rename(ctx context.Context, from, to string) error {
	m := f.m
	if err := m.reachForWrite(ctx, "rename", from, 0, 0); err != nil {
		return err
	}
	if !path.IsAbs(to) {
		return pathError("rename to", to, syscall.EINVAL)
	}
	m.mu.Lock()
	node, errno := m.lookup(from)
	fromDir, fromName, e2 := m.parent(from)
	toDir, toName, e3 := m.parent(to)
	switch errno = cmp.Or(errno, e2, e3); {
	case errno != 0:
	case m.on(from) != m.on(to):
		errno = syscall.EXDEV
	case toDir.entries[toName] != nil:
		errno = syscall.EEXIST
	case node.mode.IsDir() && strings.HasPrefix(path.Clean(to)+"/", path.Clean(from)+"/"):
		errno = syscall.EINVAL
	}
	if errno != 0 {
		m.mu.Unlock()
		return fmt.Errorf("rename %s to %s: %w", from, to, errno)
	}
	m.do(change{{fromDir, fromName, nil}, {toDir, toName, node}})
	node.links = 1
	m.mu.Unlock()
	m.step("rename", to)
	if err := m.fsyncDir("rename", path.Dir(to)); err != nil {
		return err
	}
	return m.fsyncDir("rename", path.Dir(from))
}

func (f files) MkdirAll(ctx context.Context, p string, perm fs.FileMode) error {
	m := f.m
	p = path.Clean(p)
	m.mu.Lock()
	n, errno := m.lookup(p)
	m.mu.Unlock()
	if errno == 0 {
		if !n.mode.IsDir() {
			return pathError("mkdir", p, syscall.ENOTDIR)
		}
		return m.reach(ctx, "mkdir", p)
	}
	if errno != syscall.ENOENT {
		return pathError("mkdir", p, errno)
	}
	if err := f.MkdirAll(ctx, path.Dir(p), perm); err != nil {
		return err
	}
	if err := m.reachForWrite(ctx, "mkdir", p, blockSize, 1); err != nil {
		return err
	}
	m.mu.Lock()
	dir, name, errno := m.parent(p)
	if errno != 0 {
		m.mu.Unlock()
		return pathError("mkdir", p, errno)
	}
	m.do(change{{dir, name, m.newInode(perm.Perm()|modeDir, time.Now())}})
	m.mu.Unlock()
	m.step("mkdir", p)
	return m.fsyncDir("mkdir", path.Dir(p))
}

func (f files) Chown(ctx context.Context, p string, uid, gid int, recursive bool) error {
	m := f.m
	if err := m.reachForWrite(ctx, "chown", p, 0, 0); err != nil {
		return err
	}
	m.mu.Lock()
	n, errno := m.lookup(p)
	if errno != 0 {
		m.mu.Unlock()
		return pathError("chown", p, errno)
	}
	n.chown(uid, gid, recursive)
	m.mu.Unlock()
	m.step("chown", p)
	return nil
}

func (n *inode) chown(uid, gid int, recursive bool) {
	n.uid, n.gid = uid, gid
	if recursive {
		for _, e := range n.entries {
			e.chown(uid, gid, true)
		}
	}
}

func (f files) Remove(ctx context.Context, p string) error {
	m := f.m
	if err := m.reachForWrite(ctx, "remove", p, 0, 0); err != nil {
		return err
	}
	m.mu.Lock()
	n, errno := m.lookup(p)
	dir, name, e2 := m.parent(p)
	if errno = cmp.Or(errno, e2); errno == 0 && n.mode.IsDir() && len(n.entries) > 0 {
		errno = syscall.ENOTEMPTY
	}
	if errno != 0 {
		m.mu.Unlock()
		return pathError("remove", p, errno)
	}
	m.do(change{{dir, name, nil}})
	m.mu.Unlock()
	m.step("remove", p)
	return m.fsyncDir("remove", path.Dir(p))
}

func (m *Machine) fsyncDir(op, p string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, errno := m.lookup(p)
	if errno != 0 {
		return pathError(op+": sync directory", p, errno)
	}
	m.syncDir(dir)
	return nil
}
