package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// file is what a journal needs of the file that it is in. Tests put a disk that
// fills up, breaks or loses power behind it.
type file interface {
	io.ReaderAt
	io.WriterAt
	Size() (int64, error)
	// Extend makes the file n bytes longer. The new bytes read as zeros and have
	// their blocks, as far as the file system can promise that.
	Extend(n int64) error
	Sync() error   // fdatasync(2)
	InPlace() bool // writing again over written bytes needs no new blocks
	Close() error
}

// diskFile is the real one.
type diskFile struct{ f *os.File }

// openDisk opens or makes the file and takes the writer's lock.
func openDisk(path string, readOnly bool) (*diskFile, error) {
	if readOnly {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		return &diskFile{f}, regular(f)
	}
	// Only the writer may read it: it names what runs on the machine.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if err := regular(f); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("journal %s: %w (stop the other one; `fuser` on the file names it)", path, ErrLocked)
		}
		return nil, fmt.Errorf("journal %s: lock: %w", path, err)
	}
	if err := syncFolder(filepath.Dir(path)); err != nil {
		_ = f.Close()
		return nil, err
	}
	return &diskFile{f}, nil
}

// regular closes f and says why, unless it is an ordinary file.
func regular(f *os.File) error {
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not an ordinary file but %s", f.Name(), info.Mode().Type())
	}
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// syncFolder makes the file's name durable.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("journal: folder: %w", err)
	}
	err = errors.Join(d.Sync(), d.Close())
	if err != nil {
		return fmt.Errorf("journal: folder %s: %w", path, err)
	}
	return nil
}

func (d *diskFile) ReadAt(p []byte, off int64) (int, error)  { return d.f.ReadAt(p, off) }
func (d *diskFile) WriteAt(p []byte, off int64) (int, error) { return d.f.WriteAt(p, off) }
func (d *diskFile) Close() error                             { return d.f.Close() }

func (d *diskFile) Size() (int64, error) {
	info, err := d.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (d *diskFile) Sync() error {
	return retry(func() error { return unix.Fdatasync(int(d.f.Fd())) })
}

// Extend allocates, and where writing happens in place then writes zeros: a
// write into allocated, unwritten blocks still changes the extent tree, and so
// makes every fdatasync wait for the file system's own journal.
func (d *diskFile) Extend(n int64) error {
	size, err := d.Size()
	if err != nil {
		return err
	}
	err = retry(func() error { return unix.Fallocate(int(d.f.Fd()), 0, size, n) })
	unsupported := errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL)
	if err == nil && d.InPlace() || unsupported {
		err = d.zero(size, n)
	}
	if err == nil {
		err = d.Sync()
	}
	if err != nil {
		// ext4 keeps what it could allocate; a full disk needs it more than we do.
		return errors.Join(err, retry(func() error { return unix.Ftruncate(int(d.f.Fd()), size) }))
	}
	return nil
}

func (d *diskFile) zero(off, n int64) error {
	zeros := make([]byte, min(n, 256<<10))
	for n > 0 {
		k, err := d.f.WriteAt(zeros[:min(n, int64(len(zeros)))], off)
		if err != nil {
			return err
		}
		off, n = off+int64(k), n-int64(k)
	}
	return nil
}

// elsewhere lists the file systems that write changed blocks to another place
// (statfs(2), f_type).
var elsewhere = []int64{
	unix.BTRFS_SUPER_MAGIC,
	unix.F2FS_SUPER_MAGIC,
	unix.NILFS_SUPER_MAGIC,
	0x2fc12fc1, // ZFS
	0xca451a4e, // bcachefs
}

func (d *diskFile) InPlace() bool {
	var s unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(int(d.f.Fd()), &s) }); err != nil {
		return false
	}
	return !slices.Contains(elsewhere, int64(s.Type))
}

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
