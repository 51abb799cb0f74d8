package member

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// streamsMax is how many connections from others are served at once. A push/pull takes
// milliseconds; a thousand that say nothing are somebody's attack or a broken peer, and
// are closed unserved.
const streamsMax = 128

// transport is memberlist's, with what it lacks: connections end with the node, each
// has a deadline from the start, and no more than streamsMax are served.
type transport struct {
	memberlist.NodeAwareTransport
	dial    func(ctx context.Context, addr string) (net.Conn, error)
	timeout time.Duration
	streams chan net.Conn

	ctx  context.Context // ends with the node
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	conns  map[*trackedConn]struct{}
	served int
	shed   int // connections that were closed unserved
}

// listen binds address and port, for packets and connections.
func listen(bind netip.AddrPort, timeout time.Duration) (*transport, error) {
	inner, err := openSockets(bind)
	if err != nil {
		return nil, fmt.Errorf("gossip on %s: %w (is another agent running here?)", bind, err)
	}
	// From the address that the others know: a host with several must not seem two.
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(bind.Addr(), 0))}
	return newTransport(inner, timeout, func(ctx context.Context, addr string) (net.Conn, error) {
		return dialer.DialContext(ctx, "tcp", addr)
	}), nil
}

// newTransport wraps a transport. Its Shutdown must be called.
func newTransport(inner memberlist.NodeAwareTransport, timeout time.Duration, dial func(context.Context, string) (net.Conn, error)) *transport {
	t := &transport{NodeAwareTransport: inner, dial: dial, timeout: timeout, streams: make(chan net.Conn), conns: map[*trackedConn]struct{}{}}
	t.ctx, t.stop = context.WithCancel(context.Background())
	return t
}

// run hands over connections until the node ends.
func (t *transport) run() {
	for {
		select {
		case conn := <-t.NodeAwareTransport.StreamCh():
			tracked, ok := t.track(conn, true)
			if !ok {
				_ = conn.Close()
				continue
			}
			select {
			case t.streams <- tracked:
			case <-t.ctx.Done():
				_ = tracked.Close()
				return
			}
		case <-t.ctx.Done():
			return
		}
	}
}

// StreamCh is where memberlist takes connections from.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// DialTimeout connects; see DialAddressTimeout.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout connects. What comes back has a deadline already: memberlist sets
// none where it sends to one member, and a host that is frozen takes bytes for ever.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.connect(t.ctx, a.Addr, timeout)
}

func (t *transport) connect(ctx context.Context, addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, min(max(timeout, 0), t.timeout))
	defer cancel()
	conn, err := t.dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	tracked, ok := t.track(conn, false)
	if !ok {
		_ = conn.Close()
		return nil, errors.New("the node is stopping")
	}
	return tracked, nil
}

// track gives a connection its deadline and remembers it. False: there are too many,
// or the node is stopping.
func (t *transport) track(conn net.Conn, served bool) (*trackedConn, bool) {
	if conn.SetDeadline(time.Now().Add(t.timeout)) != nil {
		return nil, false // closed already
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return nil, false
	}
	if served {
		if t.served >= streamsMax {
			t.shed++
			return nil, false
		}
		t.served++
	}
	c := &trackedConn{Conn: conn, of: t, served: served}
	t.conns[c] = struct{}{}
	return c, true
}

// Shutdown ends everything that goes over this transport.
func (t *transport) Shutdown() error {
	t.mu.Lock()
	t.stop()
	var open []*trackedConn
	for c := range t.conns {
		open = append(open, c)
	}
	t.mu.Unlock()
	for _, c := range open {
		_ = c.Close()
	}
	// The inner one waits for its listeners, and those wait for somebody to take what
	// they have.
	done := make(chan struct{})
	t.wg.Go(func() {
		for {
			select {
			case conn := <-t.NodeAwareTransport.StreamCh():
				_ = conn.Close()
			case <-done:
				return
			}
		}
	})
	err := t.NodeAwareTransport.Shutdown()
	close(done)
	t.wg.Wait()
	return err
}

// trackedConn is a connection that ends with the node.
type trackedConn struct {
	net.Conn
	of     *transport
	served bool
	once   sync.Once
}

// Close may be called twice, as memberlist does.
func (c *trackedConn) Close() error {
	var err error
	c.once.Do(func() {
		c.of.mu.Lock()
		delete(c.of.conns, c)
		if c.served {
			c.of.served--
		}
		c.of.mu.Unlock()
		err = c.Conn.Close()
	})
	return err
}

func (t *transport) shedCount() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shed
}
