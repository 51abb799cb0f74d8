package journal

import (
	"fmt"
	"time"
)

// refillPause is how long a refused refill is not tried again: on a full disk
// every append would otherwise ask the file system in vain.
const refillPause = time.Second

// Room is what a journal may still write.
type Room struct {
	Left   int64 // bytes that can be appended without new blocks, framing included
	Wanted int64 // the reserve it was opened with; Left below it: the disk was full when it was last refilled
	Firm   bool  // false: this file system writes elsewhere, so a full disk may refuse in spite of Left
}

// Short reports whether the reserve is being used up.
func (r Room) Short() bool { return r.Left < r.Wanted }

// Room returns how much reserve is left. It waits for a commit under way.
func (j *Journal) Room() Room {
	j.commits.Lock()
	defer j.commits.Unlock()
	return Room{Left: max(0, j.size-j.end), Wanted: j.opts.Reserve, Firm: j.firm}
}

// Refill tries at once to bring the reserve back to what is wanted, and returns
// what there is. An agent calls it when a disk has room again; every Append tries
// too, at most once a second.
func (j *Journal) Refill() Room {
	j.commits.Lock()
	if !j.opts.ReadOnly && j.fault() == nil && !j.isClosed() {
		j.retryAt = time.Time{}
		j.refill()
	}
	j.commits.Unlock()
	return j.Room()
}

// refill extends the file when less than the reserve is left, by half a reserve
// more than is missing, so that it happens seldom. That there is no space is no
// error now. Commits must be held, or nobody else have the journal yet.
func (j *Journal) refill() {
	left := j.size - j.end
	now := j.opts.Clock.Now()
	if left >= j.opts.Reserve || now.Before(j.retryAt) {
		return
	}
	more := j.opts.Reserve - left + j.opts.Reserve/2
	if err := j.grow(more); err != nil {
		j.retryAt = now.Add(refillPause)
	}
}

// grow makes the file longer, by the least that is wanted where not more is to
// be had.
func (j *Journal) grow(n int64) error {
	if err := j.file.Extend(n); err != nil {
		if isFull(err) {
			return fmt.Errorf("journal %s: %w: %w (free some space on its file system)", j.path, ErrFull, err)
		}
		return fmt.Errorf("journal %s: extend by %d bytes: %w", j.path, n, err)
	}
	j.size += n
	return nil
}
