package linuxmachine

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Chown gives a file, or a directory with all below it, to somebody. Whoever owns
// the directory may be changing it meanwhile, so every step goes from an open
// directory to a name in it and follows no symbolic link; other filesystems
// mounted below are left alone; a file with several names is refused, since one
// of them may be outside (the trap of chown -R as root).
func (f *files) Chown(ctx context.Context, path string, uid, gid int, recursive bool) error {
	return do(ctx, f.lanes, "chown", path, func() error {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		c := chowner{ctx: ctx, uid: uid, gid: gid, device: st.Dev, recursive: recursive}
		return c.one(fd, &st)
	})
}

type chowner struct {
	ctx       context.Context
	uid, gid  int
	device    uint64
	recursive bool
}

// one changes what the O_PATH descriptor fd stands for, and what is below it.
func (c chowner) one(fd int, st *unix.Stat_t) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	if int(st.Uid) != c.uid || int(st.Gid) != c.gid {
		if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink > 1 {
			return fmt.Errorf("it has %d names, one may be elsewhere: %w", st.Nlink, unix.EMLINK)
		}
		if err := unix.Fchownat(fd, "", c.uid, c.gid, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if !c.recursive || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	// Through /proc/self/fd: an O_PATH descriptor cannot be read itself.
	dir, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.below(fd, name); err != nil && !errors.Is(err, unix.ENOENT) { // removed meanwhile
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (c chowner) below(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Dev != c.device {
		return nil
	}
	return c.one(fd, &st)
}
