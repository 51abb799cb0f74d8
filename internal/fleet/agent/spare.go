package agent

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// spareRoom is what a file of this kind is filled up to a multiple of, in bytes:
// some tens of raised conditions with their evidence.
const spareRoom = 16 << 10

// spare is a small text file that is replaced as a whole and durably, and, once it
// was written, needs no new room on the disk for that: what is to be kept above all
// (that a filesystem is full) happens when there is none.
//
// Two files change places (renameat2(2), RENAME_EXCHANGE): the one with the other
// name is overwritten where it stands, up to its length, with blanks behind the
// text. Where a filesystem writes elsewhere instead of in place, or cannot exchange
// names, it does need room.
type spare struct{ path string }

func (s spare) other() string { return s.path + ".spare" }

// write puts the text and blanks into the file. When it fails the file is as it was.
func (s spare) write(text []byte) error {
	f, err := os.OpenFile(s.other(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	// Never shorter than it is: blocks that are given back may be gone.
	size := max(info.Size(), (int64(len(text))/spareRoom+1)*spareRoom)
	text = append(text, bytes.Repeat([]byte{' '}, int(size)-len(text))...)
	_, err = f.WriteAt(text, 0)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	fresh := false
	switch err := unix.Renameat2(unix.AT_FDCWD, s.other(), unix.AT_FDCWD, s.path, unix.RENAME_EXCHANGE); {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		// The first time, or a filesystem that cannot.
		fresh = true
		if err := os.Rename(s.other(), s.path); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("exchange %s and %s: %w", s.other(), s.path, err)
	}
	if err := syncDir(filepath.Dir(s.path)); err != nil || !fresh {
		return err
	}
	// Room for the next time, as far as there is any: without it that one tries anew.
	if os.WriteFile(s.other(), text, 0o600) != nil {
		_ = os.Remove(s.other())
	}
	return nil
}
