package whole_test

import (
	"context"
	"encoding/binary"
	"hash/fnv"
	"net"
	"sync"
	"syscall"
	"time"
)

// network is all the links between hosts. A host is reached at its name and any port.
type network struct {
	seed uint64

	mu        sync.Mutex // guards what follows, and every connection
	listeners map[string]*listener
	cut       map[[2]string]int // how many reasons there are that nothing gets from the first to the second
	least     time.Duration     // of every way
	most      time.Duration
	changed   chan struct{} // closed and renewed when something is cut or mended
}

// drift is for how long a link is as fast as it is.
const drift = 50 * time.Millisecond

func newNetwork(seed uint64) *network {
	return &network{
		seed: seed, listeners: map[string]*listener{}, cut: map[[2]string]int{}, changed: make(chan struct{}),
		least: 200 * time.Microsecond, most: 5 * time.Millisecond,
	}
}

// sever adds (by 1) or takes back (by -1) a reason that nothing gets from one to another.
func (n *network) sever(from, to string, by int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]string{from, to}] += by
	close(n.changed)
	n.changed = make(chan struct{})
}

// heal mends everything.
func (n *network) heal() {
	n.mu.Lock()
	clear(n.cut)
	close(n.changed)
	n.changed = make(chan struct{})
	n.mu.Unlock()
	n.pace(200*time.Microsecond, 5*time.Millisecond)
}

// pace sets how long messages take.
func (n *network) pace(least, most time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.least, n.most = least, most
}

func (n *network) reach(from, to string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.open(from, to)
}

// open is reach. mu is held.
func (n *network) open(from, to string) bool { return n.cut[[2]string{from, to}] <= 0 }

// latency of what is sent now. It hangs on the seed, the link and the time, and not on
// how much was sent before: two runs that differ in a message do not differ in all that
// come after it. mu is held.
func (n *network) latency(from, to string) time.Duration {
	h := fnv.New64a()
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], n.seed)
	binary.LittleEndian.PutUint64(b[8:], uint64(time.Now().UnixNano()/int64(drift)))
	_, _ = h.Write(b[:])
	_, _ = h.Write([]byte(from + "\x00" + to))
	return n.least + time.Duration(h.Sum64()>>1)%max(1, n.most-n.least)
}

// address is where something is on the network.
type address string

func (address) Network() string  { return "memory" }
func (a address) String() string { return string(a) }

func hostOf(at string) string {
	host, _, err := net.SplitHostPort(at)
	if err != nil {
		return at
	}
	return host
}

// listener takes connections for a process.
type listener struct {
	n     *network
	at    address
	p     *process
	queue chan *conn
	done  chan struct{}
	once  sync.Once
}

// listen is net.Listen.
func (n *network) listen(p *process, at string) *listener {
	l := &listener{n: n, at: address(at), p: p, queue: make(chan *conn, 1<<14), done: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[at] = l
	p.listeners = append(p.listeners, l)
	return l
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.n.mu.Lock()
		defer l.n.mu.Unlock()
		if l.n.listeners[string(l.at)] == l {
			delete(l.n.listeners, string(l.at))
		}
		close(l.done)
	})
	return nil
}

func (l *listener) Addr() net.Addr { return l.at }

// dial connects a process with an address, as TCP does: who is cut off is called again
// until it is reached or ctx ends, and where nobody listens the kernel refuses.
func (n *network) dial(ctx context.Context, p *process, at string) (net.Conn, error) {
	fail := func(err error) error {
		return &net.OpError{Op: "dial", Net: "memory", Addr: address(at), Err: err}
	}
	to := hostOf(at)
	for {
		n.mu.Lock()
		changed := n.changed
		if p.dead() {
			n.mu.Unlock()
			return nil, fail(net.ErrClosed)
		}
		if n.open(p.host, to) && n.open(to, p.host) {
			trip := n.latency(p.host, to) + n.latency(to, p.host)
			n.mu.Unlock()
			if err := sleep(ctx, trip); err != nil {
				return nil, fail(err)
			}
			n.mu.Lock()
			l := n.listeners[at]
			if l == nil || p.dead() {
				n.mu.Unlock()
				return nil, fail(syscall.ECONNREFUSED)
			}
			c := n.connect(p, l)
			n.mu.Unlock()
			return c, nil
		}
		n.mu.Unlock()
		select {
		case <-changed:
		case <-p.gone:
		case <-ctx.Done():
			return nil, fail(ctx.Err())
		}
	}
}

// dialer is how a process reaches others.
func (n *network) dialer(p *process) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, at string) (net.Conn, error) { return n.dial(ctx, p, at) }
}

// connect makes both ends. mu is held.
func (n *network) connect(p *process, l *listener) *conn {
	there, back := newWay(n, p.host, l.p.host), newWay(n, l.p.host, p.host)
	near := &conn{n: n, p: p, in: back, out: there, local: address(p.host + ":0"), remote: l.at}
	far := &conn{n: n, p: l.p, in: there, out: back, local: l.at, remote: address(p.host + ":0")}
	near.peer, far.peer = far, near
	p.hold(near)
	l.p.hold(far)
	l.queue <- far // it has room for more than there are hosts
	return near
}

var errReset = &net.OpError{Op: "read", Net: "memory", Err: syscall.ECONNRESET}

// sleep waits; the error is of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
