package executor

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

// Spare is a small text file that is replaced as a whole and durably, and, once it
// was written, needs no new room on the disk for that: what is to be kept above all
// (that a filesystem is full) happens when there is none.
//
// Two files change places (renameat2(2), RENAME_EXCHANGE): the one with the other
// name is overwritten where it stands, up to its length, with blanks behind the
// text. Where a filesystem writes elsewhere instead of in place, or cannot exchange
// names, it does need room.
type Spare struct{ Path string }

func (s Spare) other() string { return s.Path + ".spare" }

// Write puts the text and blanks into the file. When it fails the file is as it was.
func (s Spare) Write(text []byte) error {
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
	switch err := unix.Renameat2(unix.AT_FDCWD, s.other(), unix.AT_FDCWD, s.Path, unix.RENAME_EXCHANGE); {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		// The first time, or a filesystem that cannot.
		fresh = true
		if err := os.Rename(s.other(), s.Path); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("exchange %s and %s: %w", s.other(), s.Path, err)
	}
	if err := SyncDir(filepath.Dir(s.Path)); err != nil || !fresh {
		return err
	}
	// Room for the next time, as far as there is any: without it that one tries anew.
	if os.WriteFile(s.other(), text, 0o600) != nil {
		_ = os.Remove(s.other())
	}
	return nil
}
