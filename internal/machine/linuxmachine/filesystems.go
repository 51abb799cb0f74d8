package linuxmachine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"fettle/internal/machine"
)

// filesystems is the Filesystems port.
type filesystems struct {
	cfg   Config
	lanes *lanes
	table *mountTable
}

func (s *filesystems) Mounts(ctx context.Context) ([]machine.Mount, error) {
	return call(ctx, s.lanes, "read", s.table.path, func() ([]machine.Mount, error) {
		file, err := os.Open(s.table.path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		mounts, err := readMounts(file)
		if err != nil {
			return nil, err
		}
		s.addErrors(mounts)
		return mounts, nil
	}, nil)
}

// addErrors fills in the error counters of ext4 (sysfs, documented in
// Documentation/ABI/testing/sysfs-fs-ext4).
func (s *filesystems) addErrors(mounts []machine.Mount) {
	for i := range mounts {
		if mounts[i].Type != "ext4" {
			continue
		}
		data, err := os.ReadFile(s.errorsFile(mounts[i].Device))
		if err != nil { // not shown in most containers
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64); err == nil {
			mounts[i].Errors = n
		}
	}
}

// errorsFile is where ext4 counts the errors of the filesystem on a device. Its
// name there is the kernel's (dm-0, loop4), not that of the mount's source.
func (s *filesystems) errorsFile(device uint64) string {
	link := filepath.Join(s.cfg.Sys, fmt.Sprintf("dev/block/%d:%d", unix.Major(device), unix.Minor(device)))
	target, err := os.Readlink(link)
	if err != nil {
		return ""
	}
	return filepath.Join(s.cfg.Sys, "fs/ext4", filepath.Base(target), "errors_count")
}

func (s *filesystems) Usage(ctx context.Context, mountpoint string) (machine.Usage, error) {
	return call(ctx, s.lanes, "statfs", mountpoint, func() (machine.Usage, error) {
		var st unix.Statfs_t
		if err := retryEINTR(func() error { return unix.Statfs(mountpoint, &st) }); err != nil {
			return machine.Usage{}, err
		}
		unit := st.Frsize // what the block counts are in, statfs(2)
		if unit == 0 {
			unit = st.Bsize
		}
		return machine.Usage{
			Size: int64(st.Blocks) * unit, Free: int64(st.Bfree) * unit, Avail: int64(st.Bavail) * unit,
			Inodes: int64(st.Files), InodesFree: int64(st.Ffree),
		}, nil
	}, nil)
}

// checkPrefix begins the name of the file that CheckWrite makes.
const checkPrefix = ".fettle-write-check-"

func (s *filesystems) CheckWrite(ctx context.Context, mountpoint string) error {
	var random [8]byte
	rand.Read(random[:]) // never fails, by its documentation
	name := filepath.Join(mountpoint, checkPrefix+hex.EncodeToString(random[:]))
	return do(ctx, s.lanes, "write check", name, func() error {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return err
		}
		// A whole block of what no filesystem compresses away or keeps in the inode.
		block := make([]byte, 4096)
		rand.Read(block)
		_, err = f.Write(block)
		if err == nil {
			err = f.Sync()
		}
		f.Close() // after a sync it has nothing to say
		if rmErr := os.Remove(name); err == nil && !errors.Is(rmErr, fs.ErrNotExist) {
			err = rmErr
		}
		return err
	})
}

// retryEINTR repeats a system call that a signal interrupted: Go's scheduler
// sends them to its own threads.
func retryEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
