package wire

import "time"

// clockWindow is how long a best sample counts. Two quartz clocks part by some
// 50 parts in a million, up to 500 while one is being corrected: by this window
// half a millisecond to 15.
const clockWindow = 30 * time.Second

// Clocks relates a peer's clock to our own, from the messages that it sends. The
// zero value knows nothing yet: Ours is then when the message came. Not safe for
// concurrent use.
//
// The smallest of (our time of arrival − their time of sending) is the offset
// between the clocks plus the shortest way here, so it is never less than the
// offset; less the smallest round trip it is never more.
type Clocks struct {
	offset least // of arrival − sending
	trip   least // round trips
}

// least is the smallest value of the last one to two windows.
type least struct {
	now, before time.Duration
	has, had    bool
	turned      time.Time
}

func (l *least) add(at time.Time, d time.Duration) {
	if l.turned.IsZero() || at.Sub(l.turned) >= clockWindow {
		l.before, l.had = l.now, l.has && at.Sub(l.turned) < 2*clockWindow
		l.now, l.has, l.turned = d, true, at
	}
	l.now = min(l.now, d)
}

func (l *least) value() (time.Duration, bool) {
	switch {
	case l.has && l.had:
		return min(l.now, l.before), true
	default:
		return l.now, l.has
	}
}

// Heard takes in a message that the peer sent when its clock showed theirs and
// that came here at ours.
func (c *Clocks) Heard(ours time.Time, theirs int64) {
	c.offset.add(ours, time.Duration(ours.UnixNano()-theirs))
}

// Answered takes in how long an answer took that the peer gave at once.
func (c *Clocks) Answered(ours time.Time, took time.Duration) {
	c.trip.add(ours, max(0, took))
}

// RoundTrip returns the shortest round trip of late; 0 while none is known.
func (c *Clocks) RoundTrip() time.Duration {
	d, _ := c.trip.value()
	return d
}

// Ours returns a time on the peer's clock as one on ours, not later than it was.
func (c *Clocks) Ours(theirs int64) time.Time {
	d, _ := c.offset.value()
	return time.Unix(0, theirs).Add(d - c.RoundTrip()).UTC()
}

// Theirs returns a time on our clock as one on the peer's, not later than meant,
// but for what the clocks have parted since the best sample.
func (c *Clocks) Theirs(ours time.Time) time.Time {
	d, _ := c.offset.value()
	return ours.Add(-d).UTC()
}

// Shift moves a time on the peer's clock to ours, like Ours; the zero time, which
// says "never", stays.
func (c *Clocks) Shift(theirs time.Time) time.Time {
	if theirs.IsZero() {
		return theirs
	}
	return c.Ours(theirs.UnixNano())
}
