package agent

import (
	"sync"
	"time"
)

// contact knows whether there is a session with a server, and since when there is
// none.
type contact struct {
	mu      sync.Mutex
	session *session // that was welcomed; nil: none
	lost    time.Time
	changed chan struct{} // closed and renewed with each change
}

// newContact is that of an agent that begins: it was never in contact.
func newContact(now time.Time) *contact {
	return &contact{lost: now, changed: make(chan struct{})}
}

// begin notes that a server welcomed this agent, and returns how to note the end.
func (c *contact) begin(x *session, now func() time.Time) func() {
	c.set(x, time.Time{})
	return func() { c.set(nil, now()) }
}

func (c *contact) set(x *session, lost time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session, c.lost = x, lost
	close(c.changed)
	c.changed = make(chan struct{})
}

// now returns the session, nil where there is none, since when there is none, and a
// channel that is closed when that changes.
func (c *contact) now() (x *session, lost time.Time, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session, c.lost, c.changed
}
