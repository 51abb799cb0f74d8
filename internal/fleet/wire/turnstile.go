package wire

import (
	"context"
	"errors"
	"net"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
)

// When a server is back after an outage all agents call at once, and a handshake is
// mostly arithmetic. Done all at the same time they would each take longer than either
// side waits, so that none would ever end, and meanwhile nothing else got its turn, the
// renewal of the leadership above all. So a few are done at a time.
const (
	// underWay is how many handshakes may be under way: enough to keep the processors
	// busy while the other sides compute.
	underWay = 128
	// turnWait is how long one waits to begin: who calls waits for connectWait, and
	// should have time left for the handshake itself.
	turnWait = connectWait * 3 / 5
	// stallAfter is when a handshake whose other side says nothing is not counted any
	// more: it costs nothing then, and a thousand of them must keep nobody out.
	stallAfter = time.Second
)

const (
	// crowd is how many may wait for their turn. More are left where the kernel keeps
	// them (listen(2)), which costs this process nothing: not even goroutines that all
	// want to run.
	crowd = 256
	// backlog is how many the kernel keeps: no more than are served before they lose
	// patience. Those beyond it knock again, as TCP does, after a second.
	backlog = 512
	// many is how many that wait are a crowd: what one agent after the other does is not.
	many = 32
	// quietAfter is when one that was let in and says nothing does not count as waiting
	// any more.
	quietAfter = 250 * time.Millisecond
)

var errCrowded = errors.New("too many machines connect at once (it is tried again)")

// Turnstile lets connections in and then handshakes have their turn, those under way
// first. Its methods may be called concurrently.
type Turnstile struct {
	most int           // may compute at once
	gap  chan struct{} // poked when fewer wait

	mu           sync.Mutex // guards what follows
	listeners    int
	coming       int // taken, and not let in yet; and one for each listener that waits for one
	working      int
	under        int
	again, fresh []*turn // who waits, in the order in which they came
}

type turn struct {
	ready chan struct{} // closed when it has come; under mu
	left  bool
}

// NewTurnstile lets handshakes take half of the processors.
func NewTurnstile() *Turnstile {
	return &Turnstile{most: max(1, runtime.GOMAXPROCS(0)/2), gap: make(chan struct{}, 1)}
}

// Waiting reports whether somebody waits to be let in.
func (t *Turnstile) Waiting() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.under > 0 || t.coming > t.listeners
}

// Crowded reports whether many wait to be let in.
func (t *Turnstile) Crowded() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.under+t.coming-t.listeners >= many
}

// Listener is l, which takes connections no faster than they get their turn.
func (t *Turnstile) Listener(l net.Listener) net.Listener {
	if sock, ok := l.(syscall.Conn); ok {
		if raw, err := sock.SyscallConn(); err == nil {
			// It is in force with what the kernel has by itself, too.
			_ = raw.Control(func(fd uintptr) { _ = unix.Listen(int(fd), backlog) })
		}
	}
	t.mu.Lock()
	t.listeners++
	t.mu.Unlock()
	return &turned{Listener: l, turnstile: t, closed: make(chan struct{})}
}

type turned struct {
	net.Listener
	turnstile *Turnstile
	once      sync.Once
	closed    chan struct{}
}

// Accept implements net.Listener.
func (l *turned) Accept() (net.Conn, error) {
	for !l.turnstile.takes() {
		select {
		case <-l.turnstile.gap:
		case <-l.closed:
			return l.Listener.Accept() // which says that it is closed
		}
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		l.turnstile.came()
	}
	return conn, err
}

// Close implements net.Listener.
func (l *turned) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

func (t *Turnstile) poke() {
	select {
	case t.gap <- struct{}{}:
	default:
	}
}

// takes reserves a place for one more connection; false: there is none.
func (t *Turnstile) takes() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.coming >= crowd {
		return false
	}
	t.coming++
	if t.coming < crowd {
		t.poke() // there may be other listeners
	}
	return true
}

// came gives that place back.
func (t *Turnstile) came() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.coming--
	t.poke()
}

// enter waits for its turn to compute; false: it did not come in time.
func (t *Turnstile) enter(again bool) bool {
	one := &turn{ready: make(chan struct{})}
	t.mu.Lock()
	if again {
		t.again = append(t.again, one)
	} else {
		t.fresh = append(t.fresh, one)
	}
	t.next()
	t.mu.Unlock()
	timer := time.NewTimer(turnWait)
	defer timer.Stop()
	select {
	case <-one.ready:
		return true
	case <-timer.C:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-one.ready: // in the last moment
		return true
	default:
		one.left = true
		return false
	}
}

// leave lets another one compute.
func (t *Turnstile) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.working--
	t.next()
}

// over says that a handshake that was let in is not under way any more.
func (t *Turnstile) over() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.under--
	t.next()
}

// next lets in whoever may enter. mu is held.
func (t *Turnstile) next() {
	for t.working < t.most && letIn(&t.again) {
		t.working++
	}
	for t.working < t.most && t.under < underWay && letIn(&t.fresh) {
		t.working++
		t.under++
	}
}

// letIn gives the first who still waits its turn; false: nobody waits.
func letIn(list *[]*turn) bool {
	for len(*list) > 0 {
		one := (*list)[0]
		(*list)[0] = nil
		*list = (*list)[1:]
		if !one.left {
			close(one.ready)
			return true
		}
	}
	*list = nil
	return false
}

// paced are a server's credentials whose handshakes wait for their turn.
type paced struct {
	credentials.TransportCredentials
	turnstile *Turnstile
	direct    TakeDirect
}

// TakeDirect takes over a connection on which a session is spoken directly. It does not
// block.
type TakeDirect func(net.Conn, credentials.TLSInfo)

// ServerHandshake implements credentials.TransportCredentials.
func (p *paced) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := p.shake(raw)
	if known, ok := info.(credentials.TLSInfo); err == nil && ok && known.State.NegotiatedProtocol == DirectProtocol {
		p.direct(conn, known)
		return nil, nil, credentials.ErrConnDispatched
	}
	return conn, info, err
}

// shake is the handshake, when its turn has come.
func (p *paced) shake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c := &shaking{Conn: raw, turnstile: p.turnstile, came: sync.OnceFunc(p.turnstile.came)}
	quiet := time.AfterFunc(quietAfter, c.came)
	defer quiet.Stop()
	defer c.end()
	return p.TransportCredentials.ServerHandshake(c)
}

// Clone implements credentials.TransportCredentials.
func (p *paced) Clone() credentials.TransportCredentials {
	return &paced{p.TransportCredentials.Clone(), p.turnstile, p.direct}
}

// shaking is a connection whose handshake is under way. What waits for the other side
// holds up nobody: the turn is given back meanwhile. After the handshake it is the
// connection and nothing else.
type shaking struct {
	net.Conn
	turnstile *Turnstile

	// Of the one goroutine that does the handshake, and then of nobody.
	let, working, ended bool
	came, over          func()
}

// Read implements net.Conn.
func (c *shaking) Read(p []byte) (int, error) {
	if c.ended {
		return c.Conn.Read(p)
	}
	if c.working {
		c.working = false
		c.turnstile.leave()
	}
	var stalled *time.Timer
	if c.let {
		stalled = time.AfterFunc(stallAfter, c.over)
	}
	n, err := c.Conn.Read(p)
	if stalled != nil {
		stalled.Stop()
	}
	if err != nil {
		return n, err
	}
	if !c.turnstile.enter(c.let) {
		return n, errCrowded
	}
	c.working = true
	if !c.let {
		c.let, c.over = true, sync.OnceFunc(c.turnstile.over)
		c.came()
	}
	return n, nil
}

func (c *shaking) end() {
	c.ended = true
	c.came()
	c.came = nil
	if c.working {
		c.working = false
		c.turnstile.leave()
	}
	if c.let {
		c.over()
		c.over = nil
	}
}

// ClientHandshake is not a server's.
func (p *paced) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these are a server's credentials")
}
