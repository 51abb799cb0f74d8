package memmachine

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"syscall"

	"fettle/internal/machine"
	"fettle/internal/machine/units"
)

// process is one process with its open files.
type process struct {
	machine.Process
	open     map[int]open
	onSignal func(signal int) (handled bool)
}

type open struct {
	node     *inode
	path     string
	device   uint64
	writable bool
}

// AddProcess starts a process that belongs to no service. PID 0 takes the next
// number. onSignal, which may be nil, is called with each signal and says whether
// the process caught it; an uncaught one ends it. SIGKILL is never asked about.
func (m *Machine) AddProcess(p machine.Process, onSignal func(signal int) (handled bool)) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.addProcess(p, onSignal)
}

func (m *Machine) addProcess(p machine.Process, onSignal func(signal int) bool) int {
	if p.PID == 0 {
		m.lastPID++
		p.PID = m.lastPID
	}
	if p.StartTicks == 0 {
		p.StartTicks = uint64(p.PID) * 100
	}
	p.State = cmp.Or(p.State, "S")
	m.processes[p.PID] = &process{Process: p, open: map[int]open{}, onSignal: onSignal}
	return p.PID
}

// OpenFile gives a process an open descriptor of the file at p. Removing the
// file afterwards leaves it deleted but open.
func (m *Machine) OpenFile(pid, fd int, p string, writable bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	proc, ok := m.processes[pid]
	if !ok {
		return fmt.Errorf("open %s in process %d: %w", p, pid, syscall.ESRCH)
	}
	n, errno := m.lookup(p)
	if errno != 0 {
		return pathError("open", p, errno)
	}
	n.opens++
	proc.open[fd] = open{node: n, path: path.Clean(p), device: m.on(p).Mount.Device, writable: writable}
	return nil
}

// CloseFile closes a descriptor, as a process does that reopens its log.
func (m *Machine) CloseFile(pid, fd int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if proc, ok := m.processes[pid]; ok {
		if o, ok := proc.open[fd]; ok {
			o.node.opens--
			delete(proc.open, fd)
		}
	}
}

// EndProcess takes a process away as if it had ended by itself (code CLDExited)
// or by a signal. The unit whose main process it was is told.
func (m *Machine) EndProcess(pid, code, status int) {
	if unit, invocation := m.removeProcess(pid); unit != "" {
		m.engine.Tell(units.Event{What: units.Exited, Unit: unit, Invocation: invocation, Code: code, Status: status})
	}
}

// removeProcess takes a process away and returns the unit whose main process it
// was. Its Behaviour's OnStop has been called.
func (m *Machine) removeProcess(pid int) (unit, invocation string) {
	m.mu.Lock()
	proc, ok := m.processes[pid]
	if !ok {
		m.mu.Unlock()
		return "", ""
	}
	for _, o := range proc.open {
		o.node.opens--
	}
	delete(m.processes, pid)
	b := m.services[proc.UnitName]
	if b == nil || b.pid != pid {
		m.mu.Unlock()
		return "", ""
	}
	b.pid = 0
	unit, invocation = proc.UnitName, b.invocation
	onStop := b.OnStop
	m.mu.Unlock()
	if onStop != nil {
		onStop()
	}
	return unit, invocation
}

// processes is the Processes port.
type processes struct{ m *Machine }

func (s processes) List(ctx context.Context) ([]machine.Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	out := []machine.Process{}
	for _, pid := range slices.Sorted(maps.Keys(s.m.processes)) {
		out = append(out, s.m.processes[pid].Process)
	}
	return out, nil
}

func (s processes) DeletedOpen(ctx context.Context, device uint64) ([]machine.OpenFile, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list deleted files: %w", err)
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	var out []machine.OpenFile
	for _, pid := range slices.Sorted(maps.Keys(s.m.processes)) {
		p := s.m.processes[pid]
		for _, fd := range slices.Sorted(maps.Keys(p.open)) {
			if o := p.open[fd]; o.node.links == 0 && o.device == device {
				out = append(out, machine.OpenFile{
					Process: p.Process, FD: fd, Path: o.path, Device: device, Inode: o.node.id,
					Bytes: o.node.allocated(), Writable: o.writable,
				})
			}
		}
	}
	return out, nil
}

func (s processes) Signal(ctx context.Context, pid int, startTicks uint64, signal int) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("signal process %d: %w", pid, err)
	}
	m := s.m
	m.mu.Lock()
	p, ok := m.processes[pid]
	m.mu.Unlock()
	switch {
	case !ok || p.StartTicks != startTicks:
		return fmt.Errorf("signal process %d: %w", pid, machine.ErrOtherProcess)
	case signal < 1 || signal > 64:
		return fmt.Errorf("signal process %d: signal %d: %w", pid, signal, syscall.EINVAL)
	case syscall.Signal(signal) != syscall.SIGKILL && p.onSignal != nil && p.onSignal(signal):
		return nil
	case slices.Contains([]syscall.Signal{syscall.SIGCHLD, syscall.SIGCONT, syscall.SIGURG, syscall.SIGWINCH, syscall.SIGSTOP}, syscall.Signal(signal)):
		return nil
	}
	m.EndProcess(pid, units.CLDKilled, signal)
	return nil
}

// Put makes a file with its directories, durable, over what is there. For tests.
func (m *Machine) Put(p string, data []byte, perm fs.FileMode) {
	m.put(p, data, 0, perm)
}

// Fill makes a durable file of this many bytes, all zeros, without the memory
// for them. It may overfill its filesystem.
func (m *Machine) Fill(p string, bytes int64) {
	m.put(p, nil, bytes, 0o644)
}

func (m *Machine) put(p string, data []byte, pad int64, perm fs.FileMode) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir := m.putDir(path.Dir(path.Clean(p)))
	n := m.newInode(perm.Perm(), dir.modified)
	n.data, n.pad = append([]byte(nil), data...), pad
	n.syncData()
	m.do(change{{dir, path.Base(p), n}})
	m.syncDir(dir)
}

func (m *Machine) putDir(p string) *inode {
	n, errno := m.lookup(p)
	if errno == 0 && n.mode.IsDir() {
		return n
	}
	dir := m.putDir(path.Dir(p))
	n = m.newInode(0o755|modeDir, dir.modified)
	m.do(change{{dir, path.Base(p), n}})
	m.syncDir(dir)
	return n
}
