package whole_test

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// way is one direction of a connection. What is written arrives in order, each part
// after the latency that the link had when it was sent; where the link is cut it
// arrives when that is mended. network.mu guards it.
type way struct {
	n        *network
	from, to string
	parts    []part
	last     time.Time     // when what was sent last arrives
	ended    bool          // the sender has closed it: behind the parts is the end
	endAt    time.Time     // and when that arrives
	reset    bool          // the reader is told so at once
	lost     bool          // the sender's machine is gone without a word: nothing comes
	wake     chan struct{} // closed and renewed with each change
	deadline time.Time     // of reading
}

type part struct {
	at   time.Time
	data []byte
}

func newWay(n *network, from, to string) *way {
	return &way{n: n, from: from, to: to, wake: make(chan struct{})}
}

func (w *way) signal() {
	close(w.wake)
	w.wake = make(chan struct{})
}

// arrival is when what is sent now comes.
func (w *way) arrival() time.Time {
	at := time.Now().Add(w.n.latency(w.from, w.to))
	if at.Before(w.last) {
		at = w.last
	}
	w.last = at
	return at
}

// conn is one end of a connection.
type conn struct {
	n             *network
	p             *process
	peer          *conn
	in, out       *way
	local, remote address
	closed        bool // guarded by network.mu
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	for {
		c.n.mu.Lock()
		now := time.Now()
		w := c.in
		var wait time.Duration // 0: for a change
		open := c.n.open(w.from, w.to)
		switch {
		case c.closed:
			c.n.mu.Unlock()
			return 0, net.ErrClosed
		case w.reset:
			c.n.mu.Unlock()
			return 0, errReset
		case !w.deadline.IsZero() && !now.Before(w.deadline):
			c.n.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case open && len(w.parts) > 0 && !w.parts[0].at.After(now):
			k := copy(b, w.parts[0].data)
			if w.parts[0].data = w.parts[0].data[k:]; len(w.parts[0].data) == 0 {
				w.parts = w.parts[1:]
			}
			c.n.mu.Unlock()
			return k, nil
		case open && len(w.parts) > 0:
			wait = w.parts[0].at.Sub(now)
		case open && w.ended && !w.endAt.After(now):
			c.n.mu.Unlock()
			return 0, io.EOF
		case open && w.ended:
			wait = w.endAt.Sub(now)
		}
		wake, changed := w.wake, c.n.changed
		if !w.deadline.IsZero() {
			if left := w.deadline.Sub(now); wait == 0 || left < wait {
				wait = left
			}
		}
		if open {
			changed = nil // what is under way comes, also when the link is cut meanwhile
		}
		c.n.mu.Unlock()
		if wait == 0 {
			select {
			case <-wake:
			case <-changed:
			}
			continue
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-wake:
		case <-changed:
		}
		t.Stop()
	}
}

// Write implements net.Conn. It never blocks: gRPC bounds what is under way.
func (c *conn) Write(b []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case c.in.reset:
		return 0, &net.OpError{Op: "write", Net: "memory", Err: syscall.EPIPE}
	case c.peer.closed && !c.out.lost && c.n.open(c.out.from, c.out.to) && c.n.open(c.in.from, c.in.to):
		c.in.reset = true // the other kernel answers that it knows nothing of it
		c.in.signal()
		return len(b), nil
	}
	c.out.parts = append(c.out.parts, part{at: c.out.arrival(), data: append([]byte(nil), b...)})
	c.out.signal()
	return len(b), nil
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.shut()
	return nil
}

// shut closes this end, and tells the other one. mu is held.
func (c *conn) shut() {
	if c.closed {
		return
	}
	c.closed = true
	c.p.let(c)
	c.out.ended, c.out.endAt = true, c.out.arrival()
	c.out.signal()
	c.in.signal()
	c.in.parts = nil
}

// vanish closes this end, and tells nobody: its machine is off. mu is held.
func (c *conn) vanish() {
	if c.closed {
		return
	}
	c.closed = true
	c.p.let(c)
	c.out.parts, c.out.lost, c.peer.out.lost = nil, true, true
	c.in.signal()
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.in.deadline = t
	c.in.signal()
	return nil
}

// SetWriteDeadline implements net.Conn: no write takes time.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
