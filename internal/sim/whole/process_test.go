package whole_test

import (
	"sync/atomic"
	"time"
)

// process is one life of an agent or a server.
type process struct {
	n         *network
	host      string
	name      string
	ended     atomic.Bool
	gone      chan struct{}  // closed when it is dead
	conns     map[*conn]bool // guarded by network.mu, as listeners is
	listeners []*listener
}

func (n *network) process(host, name string) *process {
	return &process{n: n, host: host, name: name, gone: make(chan struct{}), conns: map[*conn]bool{}}
}

func (p *process) dead() bool { return p.ended.Load() }

// hold and let note whose an end of a connection is. network.mu is held.
func (p *process) hold(c *conn) { p.conns[c] = true }
func (p *process) let(c *conn)  { delete(p.conns, c) }

// kill ends it as SIGKILL does: its kernel closes what it had open. With off the kernel
// goes too, and nobody is told. What it runs is cut off from everything by that.
func (p *process) kill(off bool) {
	if p.ended.Swap(true) {
		return
	}
	close(p.gone)
	p.n.mu.Lock()
	list := p.listeners
	for c := range p.conns { // any order: all at one time
		if off {
			c.vanish()
		} else {
			c.shut()
		}
	}
	p.n.mu.Unlock()
	for _, l := range list {
		_ = l.Close()
	}
}

// reset breaks every connection that it has with another host.
func (p *process) reset() {
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	for c := range p.conns { // any order: all at one time
		c.in.reset, c.out.reset = true, true
		c.in.signal()
		c.out.signal()
	}
}

// clock is a machine's clock, wrong by an offset and a rate. It implements
// machine.Clock.
type clock struct {
	began  time.Time // true
	offset time.Duration
	ppm    int64
}

// Now implements machine.Clock.
func (c *clock) Now() time.Time { return c.at(time.Now()) }

// at is what it says at a true time.
func (c *clock) at(t time.Time) time.Time {
	past := t.Sub(c.began)
	return t.Round(0).Add(c.offset + past/1_000_000*time.Duration(c.ppm))
}

// Wall implements machine.Clock.
func (c *clock) Wall() time.Time { return c.Now() }

// After implements machine.Clock.
func (c *clock) After(d time.Duration) (<-chan time.Time, func()) {
	come := make(chan time.Time, 1)
	t := time.AfterFunc(d-d/1_000_000*time.Duration(c.ppm), func() { come <- c.Now() })
	return come, func() { t.Stop() }
}
