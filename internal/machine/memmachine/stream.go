package memmachine

import (
	"context"
	"io"
	"io/fs"
	"path"
	"syscall"
	"time"

	"fettle/internal/machine"
)

func (f files) Open(ctx context.Context, p string) (io.ReadCloser, error) {
	m := f.m
	if err := m.reach(ctx, "open", p); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, errno := m.lookup(p)
	if errno == 0 && n.mode.IsDir() {
		errno = syscall.EISDIR
	}
	if errno != 0 {
		return nil, pathError("open", p, errno)
	}
	return &reader{m: m, ctx: ctx, node: n, path: p}, nil
}

// reader reads a file as it grows.
type reader struct {
	m    *Machine
	ctx  context.Context
	node *inode
	path string
	at   int64
	done bool
}

func (r *reader) Read(b []byte) (int, error) {
	if err := r.m.reach(r.ctx, "read", r.path); err != nil {
		return 0, err
	}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	switch {
	case r.done:
		return 0, fs.ErrClosed
	case len(b) == 0:
		return 0, nil
	case r.at >= r.node.size():
		return 0, io.EOF
	}
	n := 0
	if r.at < int64(len(r.node.data)) {
		n = copy(b, r.node.data[r.at:])
	} else {
		n = int(min(int64(len(b)), r.node.size()-r.at))
		clear(b[:n])
	}
	r.at += int64(n)
	return n, nil
}

func (r *reader) Close() error {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	if r.done {
		return fs.ErrClosed
	}
	r.done = true
	return nil
}

func (f files) Create(ctx context.Context, p string, perm fs.FileMode) (machine.Writer, error) {
	m := f.m
	if err := m.reachForWrite(ctx, "create", p, 0, 1); err != nil {
		return nil, err
	}
	m.mu.Lock()
	dir, name, errno := m.parent(p)
	if errno == 0 && dir.entries[name] != nil {
		errno = syscall.EEXIST
	}
	if errno != 0 {
		m.mu.Unlock()
		return nil, pathError("create", p, errno)
	}
	n := m.newInode(perm.Perm(), time.Now())
	m.do(change{{dir, name, n}})
	w := &writer{m: m, ctx: ctx, node: n, dir: dir, path: p, fd: m.openOwn(n, p)}
	m.mu.Unlock()
	m.step("create", p)
	return w, nil
}

// ownPID is the process of whoever uses the ports: it holds what they have open
// for writing. Above all numbers that are handed out.
const ownPID = 4_000_000

// openOwn gives the ports' own process a descriptor. m.mu is held.
func (m *Machine) openOwn(n *inode, p string) int {
	own, ok := m.processes[ownPID]
	if !ok {
		m.addProcess(machine.Process{PID: ownPID, Command: "fettle"}, nil)
		own = m.processes[ownPID]
	}
	fd := 3
	for _, used := own.open[fd]; used; _, used = own.open[fd] {
		fd++
	}
	n.opens++
	own.open[fd] = open{node: n, path: path.Clean(p), device: m.on(p).Mount.Device, writable: true}
	return fd
}

// writer appends to a new file.
type writer struct {
	m    *Machine
	ctx  context.Context
	node *inode
	dir  *inode
	path string
	fd   int
	done bool
}

func (w *writer) Write(b []byte) (int, error) {
	m := w.m
	m.mu.Lock()
	more := (w.node.size()+int64(len(b))+blockSize-1)/blockSize*blockSize - w.node.allocated()
	done := w.done
	m.mu.Unlock()
	if done {
		return 0, fs.ErrClosed
	}
	if err := m.reachForWrite(w.ctx, "write", w.path, more, 0); err != nil {
		return 0, err
	}
	m.mu.Lock()
	w.node.data = append(w.node.data, b...)
	w.node.modified = time.Now()
	m.mu.Unlock()
	m.step("write", w.path)
	return len(b), nil
}

func (w *writer) Sync() error {
	m := w.m
	if err := m.reachForWrite(w.ctx, "sync", w.path, 0, 0); err != nil {
		return err
	}
	m.mu.Lock()
	if w.done {
		m.mu.Unlock()
		return fs.ErrClosed
	}
	w.node.syncData()
	m.mu.Unlock()
	m.step("fsync", w.path)
	return m.fsyncDir("sync", path.Dir(w.path))
}

func (w *writer) Close() error {
	w.m.mu.Lock()
	if w.done {
		w.m.mu.Unlock()
		return fs.ErrClosed
	}
	w.done = true
	w.m.mu.Unlock()
	w.m.CloseFile(ownPID, w.fd)
	return nil
}
