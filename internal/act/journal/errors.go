package journal

import (
	"errors"
	"fmt"
	"syscall"
)

// ErrFull is wrapped by the error of an Append that found neither reserve nor
// space on the disk. Nothing was written; the journal goes on when there is
// space.
var ErrFull = errors.New("no room left in the journal")

// ErrClosed is wrapped by the error of an Append after Close.
var ErrClosed = errors.New("journal is closed")

// ErrReadOnly is wrapped by the error of an Append to a journal that was opened
// read-only.
var ErrReadOnly = errors.New("journal is open for reading only")

// ErrLocked is wrapped by the error of Open when another process writes to the
// file.
var ErrLocked = errors.New("another process has the journal open for writing")

// ErrTooLarge is wrapped by the error of an Append of a record beyond MaxRecord.
var ErrTooLarge = errors.New("record is too large")

// Damaged says that something that had been durable is not whole any more. The
// file can then be read up to there, with Options.ReadOnly, and no more be
// written.
type Damaged struct {
	Path    string
	Offset  int64 // of the first byte that cannot be read as it was written
	Records int64 // that are whole before it
	Why     string
}

// Error names file, offset and what to do next.
func (d *Damaged) Error() string {
	return fmt.Sprintf("journal %s: damaged at byte %d, after %d whole records: %s (move the file aside, keep it as evidence, and begin a new one; it can still be read up to there)",
		d.Path, d.Offset, d.Records, d.Why)
}

// Forked says that a head seen earlier is not a part of this journal's history.
type Forked struct {
	Path string
	Seen Head // what was seen earlier
	Have Head // what the journal has now
	Why  string
}

// Error says what differs and what to do next.
func (f *Forked) Error() string {
	return fmt.Sprintf("journal %s: not the one seen before: %s (somebody restored an old copy or rewrote it; a person must decide which one holds)", f.Path, f.Why)
}

// isFull reports whether an error says that the file system, a quota or a limit
// has no more space for the file.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
