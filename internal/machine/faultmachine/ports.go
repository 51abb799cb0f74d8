package faultmachine

import (
	"context"
	"io"
	"io/fs"
	"strconv"

	"fettle/internal/machine"
)

type files struct {
	m *Machine
	machine.Files
}

func (f files) ReadFile(ctx context.Context, path string, limit int64) ([]byte, error) {
	return get(ctx, f.m, "files.read", path, func() ([]byte, error) { return f.Files.ReadFile(ctx, path, limit) })
}

func (f files) Stat(ctx context.Context, path string) (machine.Stat, error) {
	return get(ctx, f.m, "files.stat", path, func() (machine.Stat, error) { return f.Files.Stat(ctx, path) })
}

func (f files) ReadDir(ctx context.Context, path string) ([]machine.Stat, error) {
	return get(ctx, f.m, "files.readdir", path, func() ([]machine.Stat, error) { return f.Files.ReadDir(ctx, path) })
}

func (f files) WriteFile(ctx context.Context, path string, data []byte, perm fs.FileMode) error {
	return f.m.do(ctx, "files.write", path, func() error { return f.Files.WriteFile(ctx, path, data, perm) })
}

func (f files) Rename(ctx context.Context, from, to string) error {
	return f.m.do(ctx, "files.rename", from, func() error { return f.Files.Rename(ctx, from, to) })
}

func (f files) MkdirAll(ctx context.Context, path string, perm fs.FileMode) error {
	return f.m.do(ctx, "files.mkdir", path, func() error { return f.Files.MkdirAll(ctx, path, perm) })
}

func (f files) Chown(ctx context.Context, path string, uid, gid int, recursive bool) error {
	return f.m.do(ctx, "files.chown", path, func() error { return f.Files.Chown(ctx, path, uid, gid, recursive) })
}

func (f files) Remove(ctx context.Context, path string) error {
	return f.m.do(ctx, "files.remove", path, func() error { return f.Files.Remove(ctx, path) })
}

func (f files) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	r, err := get(ctx, f.m, "files.open", path, func() (io.ReadCloser, error) { return f.Files.Open(ctx, path) })
	if err != nil {
		return nil, closed(r, err)
	}
	return stream{m: f.m, ctx: ctx, path: path, r: r, c: r}, nil
}

func (f files) Create(ctx context.Context, path string, perm fs.FileMode) (machine.Writer, error) {
	w, err := get(ctx, f.m, "files.create", path, func() (machine.Writer, error) { return f.Files.Create(ctx, path, perm) })
	if err != nil {
		return nil, closed(w, err)
	}
	return stream{m: f.m, ctx: ctx, path: path, w: w, c: w}, nil
}

// closed closes what was opened although the answer is an error.
func closed(c io.Closer, err error) error {
	if c != nil {
		c.Close()
	}
	return err
}

// stream is an open file: r or w is set.
type stream struct {
	m    *Machine
	ctx  context.Context
	path string
	r    io.Reader
	w    machine.Writer
	c    io.Closer
}

// Read passes io.EOF on as it is.
func (s stream) Read(p []byte) (int, error) {
	return get(s.ctx, s.m, "file.read", s.path, func() (int, error) { return s.r.Read(p) })
}

func (s stream) Write(p []byte) (int, error) {
	return get(s.ctx, s.m, "file.write", s.path, func() (int, error) { return s.w.Write(p) })
}

func (s stream) Sync() error { return s.m.do(s.ctx, "file.sync", s.path, s.w.Sync) }

// Close always closes.
func (s stream) Close() error {
	err := s.c.Close()
	return s.m.do(s.ctx, "file.close", s.path, func() error { return err })
}

type commands struct {
	m *Machine
	machine.Commands
}

func (c commands) Run(ctx context.Context, cmd machine.Command) (machine.Output, error) {
	return get(ctx, c.m, "commands.run", cmd.Path, func() (machine.Output, error) { return c.Commands.Run(ctx, cmd) })
}

type filesystems struct {
	m *Machine
	machine.Filesystems
}

func (f filesystems) Mounts(ctx context.Context) ([]machine.Mount, error) {
	return get(ctx, f.m, "filesystems.mounts", "", func() ([]machine.Mount, error) { return f.Filesystems.Mounts(ctx) })
}

func (f filesystems) Usage(ctx context.Context, mountpoint string) (machine.Usage, error) {
	return get(ctx, f.m, "filesystems.usage", mountpoint, func() (machine.Usage, error) { return f.Filesystems.Usage(ctx, mountpoint) })
}

func (f filesystems) WatchMounts(ctx context.Context, emit func([]machine.Mount)) error {
	return watch(ctx, f.m, "filesystems.watchmounts", func([]machine.Mount) string { return "" }, emit, f.Filesystems.WatchMounts)
}

func (f filesystems) CheckWrite(ctx context.Context, mountpoint string) error {
	return f.m.do(ctx, "filesystems.checkwrite", mountpoint, func() error { return f.Filesystems.CheckWrite(ctx, mountpoint) })
}

type processes struct {
	m *Machine
	machine.Processes
}

func (p processes) List(ctx context.Context) ([]machine.Process, error) {
	return get(ctx, p.m, "processes.list", "", func() ([]machine.Process, error) { return p.Processes.List(ctx) })
}

func (p processes) DeletedOpen(ctx context.Context, device uint64) ([]machine.OpenFile, error) {
	return get(ctx, p.m, "processes.deletedopen", strconv.FormatUint(device, 10), func() ([]machine.OpenFile, error) {
		return p.Processes.DeletedOpen(ctx, device)
	})
}

func (p processes) Signal(ctx context.Context, pid int, startTicks uint64, signal int) error {
	return p.m.do(ctx, "processes.signal", strconv.Itoa(pid), func() error { return p.Processes.Signal(ctx, pid, startTicks, signal) })
}
