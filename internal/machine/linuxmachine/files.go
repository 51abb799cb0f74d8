package linuxmachine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"fettle/internal/machine"
)

// files is the Files port. Stat and the readers follow symbolic links; ReadDir
// describes the entries themselves; nothing that writes follows one.
type files struct{ lanes *lanes }

func (f *files) ReadFile(ctx context.Context, path string, limit int64) ([]byte, error) {
	return call(ctx, f.lanes, "read", path, func() ([]byte, error) {
		file, err := openRegular(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		data, err := io.ReadAll(io.LimitReader(file, limit+1))
		if err != nil {
			return nil, err
		}
		if int64(len(data)) > limit {
			return nil, fmt.Errorf("more than the limit of %d bytes: %w", limit, syscall.EFBIG)
		}
		return data, nil
	}, nil)
}

// openRegular opens a regular file for reading. Anything else could block
// (pipes), act (devices) or confuse.
func openRegular(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = syscall.EINVAL
		if info.IsDir() {
			err = syscall.EISDIR
		}
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func (f *files) Stat(ctx context.Context, path string) (machine.Stat, error) {
	return call(ctx, f.lanes, "stat", path, func() (machine.Stat, error) {
		info, err := os.Stat(path)
		if err != nil {
			return machine.Stat{}, err
		}
		return statOf(filepath.Base(path), info), nil
	}, nil)
}

func statOf(name string, info fs.FileInfo) machine.Stat {
	s := machine.Stat{Name: name, Mode: info.Mode(), Bytes: info.Size(), Modified: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.Allocated = st.Blocks * 512 // in this unit whatever the filesystem, stat(2)
		s.UID, s.GID, s.Inode, s.Device, s.Links = int(st.Uid), int(st.Gid), st.Ino, st.Dev, uint64(st.Nlink)
		s.Modified = time.Unix(st.Mtim.Unix())
	}
	return s
}

func (f *files) ReadDir(ctx context.Context, path string) ([]machine.Stat, error) {
	return call(ctx, f.lanes, "read directory", path, func() ([]machine.Stat, error) {
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, err
		}
		out := make([]machine.Stat, 0, len(entries))
		for _, e := range entries {
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed meanwhile
			}
			if err != nil {
				return nil, err
			}
			out = append(out, statOf(e.Name(), info))
		}
		slices.SortFunc(out, func(a, b machine.Stat) int { return cmp.Compare(a.Name, b.Name) })
		return out, nil
	}, nil)
}

func (f *files) WriteFile(ctx context.Context, path string, data []byte, perm fs.FileMode) error {
	data = slices.Clone(data) // given up on, it may still be read
	return do(ctx, f.lanes, "write", path, func() error {
		old, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case old.IsDir():
			return syscall.EISDIR
		case old.Mode()&fs.ModeSymlink != 0:
			return fmt.Errorf("it is a symbolic link; write to what it points to: %w", syscall.ELOOP)
		case !old.Mode().IsRegular():
			return fmt.Errorf("it is no regular file: %w", syscall.EINVAL)
		default:
			perm = old.Mode().Perm()
		}
		dir := filepath.Dir(path)
		t, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir))
		if err != nil {
			return err
		}
		defer func() { _ = t.Cleanup() }() // nothing is left to do with what was not renamed
		if old != nil {
			if st, ok := old.Sys().(*syscall.Stat_t); ok && (int(st.Uid) != os.Geteuid() || int(st.Gid) != os.Getegid()) {
				if err := t.Chown(int(st.Uid), int(st.Gid)); err != nil {
					return fmt.Errorf("keep its owner: %w", err)
				}
			}
		}
		if err := t.Chmod(perm.Perm()); err != nil {
			return err
		}
		if _, err := t.Write(data); err != nil {
			return err
		}
		if err := t.CloseAtomicallyReplace(); err != nil {
			return err
		}
		return syncDir(dir)
	})
}

// syncDir makes the names in a directory durable. Filesystems that cannot sync a
// directory answer EINVAL; they promise nothing that could be waited for.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

func (f *files) Rename(ctx context.Context, from, to string) error {
	if !filepath.IsAbs(to) {
		return fmt.Errorf("rename %s to %q: not an absolute path: %w", from, to, syscall.EINVAL)
	}
	return do(ctx, f.lanes, "rename", from, func() error {
		if err := rename(from, to); err != nil {
			return fmt.Errorf("to %s: %w", to, err)
		}
		if err := syncDir(filepath.Dir(to)); err != nil {
			return err
		}
		return syncDir(filepath.Dir(from))
	})
}

func rename(from, to string) error {
	err := retryEINTR(func() error {
		return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return renameByHand(from, to)
	}
	return err
}

// renameByHand is for filesystems without RENAME_NOREPLACE. A file gets its new
// name before it loses the old one; a directory can at worst replace an empty one
// that appears at this very moment.
func renameByHand(from, to string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(to); err == nil {
		return syscall.EEXIST
	}
	if info.IsDir() {
		return unix.Rename(from, to)
	}
	if err := unix.Link(from, to); err != nil {
		return err
	}
	return unix.Unlink(from)
}

func (f *files) MkdirAll(ctx context.Context, path string, perm fs.FileMode) error {
	return do(ctx, f.lanes, "mkdir", path, func() error { return mkdirAll(filepath.Clean(path), perm.Perm()) })
}

func mkdirAll(path string, perm fs.FileMode) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return syscall.ENOTDIR
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := mkdirAll(filepath.Dir(path), perm); err != nil {
		return err
	}
	if err := os.Mkdir(path, perm); err != nil {
		return err
	}
	if err := os.Chmod(path, perm); err != nil { // past the umask
		return err
	}
	return syncDir(filepath.Dir(path))
}

func (f *files) Remove(ctx context.Context, path string) error {
	return do(ctx, f.lanes, "remove", path, func() error {
		if err := os.Remove(path); err != nil {
			return err
		}
		return syncDir(filepath.Dir(path))
	})
}
