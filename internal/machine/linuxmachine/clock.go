package linuxmachine

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// napMaximum is how long a timer sleeps before it looks at the clock again: Go's
// timers stand still while the machine is suspended, and so would a long After.
const napMaximum = 30 * time.Second

// clock is CLOCK_BOOTTIME with the wall clock's name for the time at which the
// program began.
type clock struct {
	wall time.Time     // when it was anchored, without a monotonic reading
	boot time.Duration // CLOCK_BOOTTIME then
	mono time.Duration // CLOCK_MONOTONIC then
}

func newClock() (*clock, error) {
	boot, err := since(unix.CLOCK_BOOTTIME)
	if err != nil {
		return nil, err
	}
	mono, err := since(unix.CLOCK_MONOTONIC)
	if err != nil {
		return nil, err
	}
	return &clock{wall: time.Now().Round(0), boot: boot, mono: mono}, nil
}

// since reads one of the kernel's clocks (clock_gettime(2)).
func since(id int32) (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0, fmt.Errorf("clock_gettime(%d): %w", id, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Now advances even where the kernel would refuse, which it does only for a
// clock that it does not have; newClock has read this one.
func (c *clock) Now() time.Time {
	boot, err := since(unix.CLOCK_BOOTTIME)
	if err != nil {
		return time.Now()
	}
	return c.wall.Add(boot - c.boot)
}

func (c *clock) Wall() time.Time { return time.Now().Round(0) }

// suspendGrain is what the two clocks may differ by because they are not read at
// once: less than that was no suspend.
const suspendGrain = 10 * time.Millisecond

// at is the time on this clock of a reading of CLOCK_MONOTONIC, the same for the
// same reading. CLOCK_MONOTONIC stands still during suspend: what was suspended
// since the clock was anchored counts as before the reading.
func (c *clock) at(monotonic time.Duration) time.Time {
	boot, err1 := since(unix.CLOCK_BOOTTIME)
	mono, err2 := since(unix.CLOCK_MONOTONIC)
	if err1 != nil || err2 != nil {
		return time.Time{}
	}
	suspended := ((boot - c.boot) - (mono - c.mono)).Round(suspendGrain)
	return c.wall.Add(monotonic - c.mono + suspended)
}

func (c *clock) After(d time.Duration) (<-chan time.Time, func()) {
	ch := make(chan time.Time, 1)
	due := c.Now().Add(d)
	var mu sync.Mutex // of t and stopped
	var t *time.Timer
	stopped := false
	nap := func() time.Duration { return min(max(0, due.Sub(c.Now())), napMaximum) }
	mu.Lock()
	defer mu.Unlock()
	t = time.AfterFunc(nap(), func() {
		mu.Lock()
		defer mu.Unlock()
		switch now := c.Now(); {
		case stopped:
		case now.Before(due):
			t.Reset(nap())
		default:
			ch <- now
		}
	})
	return ch, func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		t.Stop()
	}
}
