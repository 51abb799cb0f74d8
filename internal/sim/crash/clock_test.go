package crash

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// speed is how many times as fast as outside time runs in the pretended fleet. A
// process that is started again takes about a tenth of a second, which is then as
// many seconds as a slow restart takes outside.
const speed = 10

// fastClock is a machine.Clock that runs speed times as fast as the kernel's,
// from an anchor that all processes of a run share: what one of them kept before
// it died is understood by the next.
type fastClock struct {
	Wall0 time.Time     `json:"wall"`
	Boot0 time.Duration `json:"boot"`
}

func newFastClock() fastClock {
	return fastClock{Wall0: time.Now().Round(0).UTC(), Boot0: boottime()}
}

// boottime reads CLOCK_BOOTTIME. It panics where the kernel has none, which no
// Linux that Go supports does.
func boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("clock_gettime: %v", err))
	}
	return time.Duration(ts.Nano())
}

// Now implements machine.Clock.
func (c fastClock) Now() time.Time { return c.Wall0.Add(speed * (boottime() - c.Boot0)) }

// Wall implements machine.Clock: certificates are of the real world.
func (c fastClock) Wall() time.Time { return time.Now() }

// After implements machine.Clock.
func (c fastClock) After(d time.Duration) (<-chan time.Time, func()) {
	ch := make(chan time.Time, 1)
	// Rounded up: a timer that comes early asks again and again.
	t := time.AfterFunc(max(0, d+speed-1)/speed, func() { ch <- c.Now() })
	return ch, func() { t.Stop() }
}
