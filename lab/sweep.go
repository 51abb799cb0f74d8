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

// Sweep removes what is left of labs under dir (empty: as [Config] has it) whose owner is gone, and returns their names.
// A lab that is alive, in whatever process, is not touched. Start sweeps by itself.
func Sweep(ctx context.Context, dir string) ([]string, error) {
	dir = labDir(dir)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	all, err := lock(ctx, filepath.Join(dir, globalLock), nil)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	return sweep(ctx, dir)
}

// sweep does that while the caller holds the global lock: no lab is half made then.
func sweep(ctx context.Context, dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	var errs []error
	for _, e := range entries {
		if !e.IsDir() || checkName(e.Name()) != nil {
			continue
		}
		gone, err := sweepOne(ctx, filepath.Join(dir, e.Name()))
		if err != nil {
			errs = append(errs, fmt.Errorf("lab: sweep %s: %w", e.Name(), err))
		} else if gone {
			names = append(names, e.Name())
		}
	}
	return names, errors.Join(errs...)
}

func sweepOne(ctx context.Context, dir string) (gone bool, err error) {
	held, err := tryLockExisting(filepath.Join(dir, lockFile))
	switch {
	case errors.Is(err, errLocked):
		return false, nil
	case errors.Is(err, fs.ErrNotExist):
		// The lock goes last: of a lab there can only be the empty folder. Anything else is not the lab's.
		return os.Remove(dir) == nil, nil
	case err != nil:
		return false, err
	}
	defer held.Close()
	s, err := readState(dir)
	if errors.Is(err, fs.ErrNotExist) {
		// Its owner died before the first thing was made, or after the last was removed.
		return true, errors.Join(os.Remove(filepath.Join(dir, lockFile)), os.Remove(dir))
	}
	if err != nil {
		return false, err
	}
	boot, err := machineBootID()
	if err != nil {
		return false, err
	}
	if s.BootID != boot {
		// All but the files went when the machine restarted, and the number may be another lab's now.
		return true, errors.Join(removeContents(dir), removeIdentity(dir))
	}
	return true, teardown(ctx, dir, s.Number)
}

// teardown removes all that a lab may have left, each thing as far as it can be, whatever became of the others. Until
// everything else is gone the state stays, for the next sweep; until the state is gone the number stays taken, lest that
// sweep should hit another lab; until all is gone the lock stays.
func teardown(ctx context.Context, dir string, number int) error {
	ctx, cancel := context.WithTimeout(ctx, closeDeadline)
	defer cancel()
	h, err := machineHierarchies()
	if err != nil {
		return err
	}
	group := h.group(numberName(number))
	err = errors.Join(group.kill(ctx), unmountUnder(dir), clearLoops(ctx, dir), removeRoute(ctx, number), removeContents(dir))
	if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, stateFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(group.remove(ctx), removeIdentity(dir))
}

// removeContents removes what is in a lab's folder, but for its state and its lock.
func removeContents(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.Name() != stateFile && e.Name() != lockFile {
			errs = append(errs, removeDir(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// removeIdentity removes the rest of a lab's folder, the lock last.
func removeIdentity(dir string) error {
	for _, path := range []string{filepath.Join(dir, stateFile), filepath.Join(dir, lockFile), dir} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// unmountUnder unmounts what is mounted in dir in the machine's own namespace. The lab mounts nothing there; a copy can
// get there through a mount namespace that somebody else made from the lab's.
func unmountUnder(dir string) error {
	all, err := mounts()
	if err != nil {
		return err
	}
	under := mountsUnder(all, dir)
	slices.Reverse(under)
	var errs []error
	for _, m := range under {
		if err := unix.Unmount(m.path, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m.path, err))
		}
	}
	return errors.Join(errs...)
}

// clearLoops detaches the loop devices over files in dir. The kernel detaches one that is still mounted in a dying
// namespace a moment later, and tells nobody.
func clearLoops(ctx context.Context, dir string) error {
	for {
		loops, err := loopsUnder(dir)
		if err != nil || len(loops) == 0 {
			return err
		}
		var errs []error
		for _, dev := range loops {
			errs = append(errs, clearLoop(dev))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("detach %v: still in use: %w", loops, context.Cause(ctx))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func clearLoop(dev string) error {
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("detach %s: %w", dev, err)
	}
	return nil
}

// removeRoute removes the blackhole route of the lab's prefix, and no other route to it.
func removeRoute(ctx context.Context, number int) error {
	p := prefix(number).String()
	out, err := run(ctx, nil, "ip", "-o", "route", "show", "type", "blackhole", "exact", p)
	if err != nil || strings.TrimSpace(out) == "" {
		return err
	}
	_, err = run(ctx, nil, "ip", "route", "del", "blackhole", p)
	return err
}
