package linuxmachine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"fettle/internal/machine"
)

// processes is the Processes port.
type processes struct {
	cfg   Config
	lanes *lanes
}

func (s *processes) List(ctx context.Context) ([]machine.Process, error) {
	return call(ctx, s.lanes, "list processes in", s.cfg.Proc, func() ([]machine.Process, error) {
		pids, err := s.pids()
		if err != nil {
			return nil, err
		}
		out := make([]machine.Process, 0, len(pids))
		for _, pid := range pids {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			p, err := s.process(pid)
			if gone(err) {
				continue
			}
			if err != nil {
				return nil, err
			}
			out = append(out, p)
		}
		return out, nil
	}, nil)
}

// gone reports that a process ended while it was looked at.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

func (s *processes) pids() ([]int, error) {
	dir, err := os.Open(s.cfg.Proc)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

func (s *processes) file(pid int, name string) string {
	return filepath.Join(s.cfg.Proc, strconv.Itoa(pid), name)
}

func (s *processes) process(pid int) (machine.Process, error) {
	data, err := os.ReadFile(s.file(pid, "stat"))
	if err != nil {
		return machine.Process{}, err
	}
	st, err := parseProcStat(data)
	if err != nil {
		return machine.Process{}, err
	}
	p := machine.Process{PID: st.pid, StartTicks: st.startTicks, Command: st.command, State: st.state}
	// Readable by everybody, unless /proc is mounted with hidepid.
	args, err := os.ReadFile(s.file(pid, "cmdline"))
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return machine.Process{}, err
	}
	p.Args = parseArgs(args)
	cgroup, err := os.ReadFile(s.file(pid, "cgroup"))
	if err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) {
		return machine.Process{}, err
	}
	p.Cgroup = parseCgroup(cgroup)
	p.UnitName = unitOf(p.Cgroup)
	return p, nil
}

// deletedMark is what the kernel puts behind the name of a removed file.
const deletedMark = " (deleted)"

// DeletedOpen looks at the descriptors of all processes. A file that is only
// mapped, and no longer open, is not found.
func (s *processes) DeletedOpen(ctx context.Context, device uint64) ([]machine.OpenFile, error) {
	type answer struct {
		files  []machine.OpenFile
		denied int
	}
	a, err := call(ctx, s.lanes, "list deleted files in", s.cfg.Proc, func() (answer, error) {
		pids, err := s.pids()
		if err != nil {
			return answer{}, err
		}
		var a answer
		for _, pid := range pids {
			if err := ctx.Err(); err != nil {
				return answer{}, err
			}
			files, err := s.deletedOf(pid, device)
			switch {
			case errors.Is(err, fs.ErrPermission):
				a.denied++
			case err != nil && !gone(err):
				return answer{}, err
			}
			a.files = append(a.files, files...)
		}
		return a, nil
	}, nil)
	if err == nil && a.denied > 0 {
		err = fmt.Errorf("list deleted files: %d processes of other users cannot be looked into (run as root to see them): %w", a.denied, fs.ErrPermission)
	}
	return a.files, err
}

func (s *processes) deletedOf(pid int, device uint64) ([]machine.OpenFile, error) {
	entries, err := os.ReadDir(s.file(pid, "fd"))
	if err != nil {
		return nil, err
	}
	var out []machine.OpenFile
	var owner machine.Process
	for _, e := range entries {
		name := s.file(pid, "fd/"+e.Name())
		target, err := os.Readlink(name)
		if err != nil || !strings.HasSuffix(target, deletedMark) {
			continue // closed meanwhile, or has its name
		}
		info, err := os.Stat(name)
		if err != nil {
			continue
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || st.Dev != device || st.Nlink != 0 {
			continue
		}
		if owner.PID == 0 {
			if owner, err = s.process(pid); err != nil {
				return nil, err
			}
		}
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		fdinfo, _ := os.ReadFile(s.file(pid, "fdinfo/"+e.Name())) // closed meanwhile: not writable
		flags, ok := parseFdFlags(fdinfo)
		out = append(out, machine.OpenFile{
			Process: owner, FD: fd, Path: strings.TrimSuffix(target, deletedMark), Device: st.Dev, Inode: st.Ino,
			Bytes: st.Blocks * 512, Writable: ok && flags&unix.O_ACCMODE != unix.O_RDONLY,
		})
	}
	slices.SortFunc(out, func(a, b machine.OpenFile) int { return cmp.Compare(a.FD, b.FD) })
	return out, nil
}

// Signal holds the process by a descriptor (pidfd_open(2)) while it compares, so
// that its number cannot become another's in between.
func (s *processes) Signal(ctx context.Context, pid int, startTicks uint64, signal int) error {
	wrap := func(err error) error { return fmt.Errorf("signal process %d: %w", pid, err) }
	if err := ctx.Err(); err != nil {
		return wrap(err)
	}
	if pid < 1 || signal < 1 || signal > 64 {
		return wrap(fmt.Errorf("signal %d: %w", signal, syscall.EINVAL))
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return wrap(machine.ErrOtherProcess)
	}
	if err != nil {
		return wrap(err)
	}
	defer unix.Close(fd)
	data, err := os.ReadFile(s.file(pid, "stat"))
	if gone(err) {
		return wrap(machine.ErrOtherProcess)
	}
	if err != nil {
		return wrap(bare(err))
	}
	st, err := parseProcStat(data)
	if err != nil {
		return wrap(err)
	}
	if st.startTicks != startTicks {
		return wrap(machine.ErrOtherProcess)
	}
	err = unix.PidfdSendSignal(fd, unix.Signal(signal), nil, 0)
	if errors.Is(err, unix.ESRCH) {
		err = machine.ErrOtherProcess
	}
	if err != nil {
		return wrap(err)
	}
	return nil
}
