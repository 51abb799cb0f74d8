package member

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

// fate is what has become of a pretend host.
type fate int

const (
	up     fate = iota
	off         // nothing comes from it or gets to it
	killed      // its kernel refuses connections
	frozen      // its kernel takes connections and packets; nobody reads them
)

// simNet is a network in memory, to run in a synctest bubble: with loss, latency,
// stalls of single hosts, cuts, and hosts that are off, killed or frozen. Packets over
// it cost no time but the latency that it is told.
type simNet struct {
	mu      sync.Mutex
	rng     *rand.Rand
	hosts   map[string]*simHost // by address
	loss    int                 // per mille of packets, each way
	latency time.Duration       // of every packet, each way, give or take half
	// late is the scheduling delay of a host, drawn anew for every packet that it gets.
	late func(rng *rand.Rand, host string) time.Duration
	cut  func(a, b string) bool // hosts that do not reach each other
}

type simHost struct {
	net     *simNet
	name    string
	addr    netip.AddrPort
	fate    fate
	packets chan *memberlist.Packet
	streams chan net.Conn
}

func newSimNet(seed uint64) *simNet {
	return &simNet{rng: rand.New(rand.NewPCG(seed, seed)), hosts: map[string]*simHost{}, latency: 300 * time.Microsecond}
}

func (s *simNet) host(name string) *simHost {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.hosts)
	h := &simHost{net: s, name: name, addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 7946),
		packets: make(chan *memberlist.Packet, 1024), streams: make(chan net.Conn)}
	s.hosts[h.addr.String()] = h
	return h
}

func (s *simNet) set(h *simHost, f fate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.fate = f
}

func (h *simHost) now() fate {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	return h.fate
}

func (s *simNet) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// FinalAdvertiseAddr is the host's own address.
func (h *simHost) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IP(h.addr.Addr().AsSlice()), int(h.addr.Port()), nil
}

func (h *simHost) PacketCh() <-chan *memberlist.Packet { return h.packets }
func (h *simHost) StreamCh() <-chan net.Conn           { return h.streams }
func (h *simHost) Shutdown() error                     { h.net.set(h, killed); return nil }

func (h *simHost) WriteTo(b []byte, addr string) (time.Time, error) {
	return h.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (h *simHost) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return h.dial(ctx, addr)
}

func (h *simHost) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return h.DialTimeout(a.Addr, timeout)
}

// reach finds the host at an address, nil if nothing gets there.
func (h *simHost) reach(addr string) (*simHost, time.Duration) {
	s := h.net
	s.mu.Lock()
	defer s.mu.Unlock()
	to := s.hosts[addr]
	if to == nil || h.fate == off || h.fate == frozen || to.fate == off || s.cut != nil && s.cut(h.name, to.name) {
		return nil, 0
	}
	delay := s.latency/2 + rand.N(s.latency+1)
	if s.late != nil {
		delay += s.late(s.rng, to.name)
	}
	return to, delay
}

func (h *simHost) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	to, delay := h.reach(a.Addr)
	if to == nil || h.net.lost() {
		return time.Now(), nil
	}
	packet := &memberlist.Packet{Buf: b, From: net.UDPAddrFromAddrPort(h.addr)}
	time.AfterFunc(delay, func() {
		if to.now() != up {
			return
		}
		packet.Timestamp = time.Now()
		select {
		case to.packets <- packet:
		default:
		}
	})
	return time.Now(), nil
}

func (s *simNet) lost() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.IntN(1000) < s.loss
}

// dial connects as TCP does: with loss it takes another second now and then.
func (h *simHost) dial(ctx context.Context, addr string) (net.Conn, error) {
	timeout := func() error { return &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded} }
	to, delay := h.reach(addr)
	if to == nil {
		<-ctx.Done()
		return nil, timeout()
	}
	for h.net.lost() || h.net.lost() {
		delay += time.Second // the first retransmission of a SYN (RFC 6298)
	}
	if !wait(ctx, 2*delay) {
		return nil, timeout()
	}
	near, far := net.Pipe()
	switch to.now() {
	case up:
		select {
		case to.streams <- far:
			return near, nil
		case <-ctx.Done():
			near.Close()
			far.Close()
			return nil, timeout()
		}
	case frozen:
		go io.Copy(io.Discard, far) // the kernel's buffer; ends when near is closed
		return near, nil
	case killed:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	case off:
	}
	<-ctx.Done()
	return nil, timeout()
}

// simRing is some nodes on a simNet.
type simRing struct {
	t     *testing.T
	net   *simNet
	hosts []*simHost
	nodes []*Node
	stops []context.CancelFunc
	wg    sync.WaitGroup
	set   Settings
}

var simKey = []byte("0123456789abcdef0123456789abcdef")

// newSimRing starts size nodes and waits until all know all.
func newSimRing(t *testing.T, size int, set Settings, seed uint64) *simRing {
	t.Helper()
	r := &simRing{t: t, net: newSimNet(seed), set: set}
	for range size {
		r.add()
	}
	r.together()
	return r
}

// add starts one more node.
func (r *simRing) add() int {
	r.t.Helper()
	i := len(r.nodes)
	name := fmt.Sprintf("h%03d", i)
	host := r.net.host(name)
	r.hosts, r.nodes, r.stops = append(r.hosts, host), append(r.nodes, nil), append(r.stops, nil)
	r.start(i, "1")
	return i
}

// start starts, or starts again, the node of a host.
func (r *simRing) start(i int, incarnation string) {
	r.t.Helper()
	host := r.hosts[i]
	r.net.set(host, up)
	keys, err := NewKeys(simKey)
	if err != nil {
		r.t.Fatal(err)
	}
	first := r.hosts[0].addr
	node, err := New(Options{
		Self: Label{Host: host.name, Zone: "z", Rack: fmt.Sprintf("r%d", i%8), Incarnation: incarnation, BootID: "b"},
		Ring: "ring", Bind: host.addr, Keys: keys, Settings: r.set,
		Seeds: func() []netip.AddrPort { return []netip.AddrPort{first} },
		open: func(_ *logs, s Settings) (*transport, error) {
			return newTransport(host, s.Stream, host.dial), nil
		},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.nodes[i], r.stops[i] = node, stop
	r.wg.Go(func() {
		if err := node.Run(ctx); err != nil {
			r.t.Errorf("%s: %v", host.name, err)
		}
	})
}

// together waits until every running node has every other one here.
func (r *simRing) together() {
	r.t.Helper()
	r.until("all know all", time.Minute, func() bool {
		living := r.running()
		for i := range r.nodes {
			if r.hosts[i].now() == up && r.count(i, Here) != living-1 {
				return false
			}
		}
		return true
	})
}

func (r *simRing) running() int {
	n := 0
	for _, h := range r.hosts {
		if h.now() == up {
			n++
		}
	}
	return n
}

func (r *simRing) count(i int, s State) int {
	t := r.nodes[i].table
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, e := range t.members {
		if e.State == s {
			n++
		}
	}
	return n
}

// until waits in pretend time.
func (r *simRing) until(what string, patience time.Duration, done func() bool) time.Duration {
	r.t.Helper()
	begin := time.Now()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		if time.Since(begin) > patience {
			r.t.Fatalf("not after %s: %s", patience, what)
		}
		<-ticker.C
	}
	return time.Since(begin)
}

// sees returns what node i thinks of host j.
func (r *simRing) sees(i, j int) Member {
	e, _ := r.nodes[i].table.find(r.hosts[j].name)
	return e.Member
}

// everyone says whether all other running nodes see j so.
func (r *simRing) everyone(j int, is func(Member) bool) bool {
	for i := range r.nodes {
		if i != j && r.hosts[i].now() == up && !is(r.sees(i, j)) {
			return false
		}
	}
	return true
}

// bad returns every event so far that says that a member is lost, and how many said
// that the ring held one for dead.
func (r *simRing) bad() (lost []string, suspected int) {
	for i, n := range r.nodes {
		for len(n.Events()) > 0 {
			switch e := <-n.Events(); {
			case e.Kind == Lost || e.Missed > 0:
				lost = append(lost, fmt.Sprintf("%s: %s %s %s, missed %d", r.hosts[i].name, e.Kind, e.Member.Label.Host, e.Member.Saw, e.Missed))
			case e.Kind == Suspected:
				suspected++
			}
		}
	}
	return lost, suspected
}

// stop ends all nodes, without leave: that is another test's.
func (r *simRing) stop() {
	for i, stop := range r.stops {
		r.net.set(r.hosts[i], off)
		stop()
	}
	r.wg.Wait()
	// Time stands still in a bubble when its test returns, and memberlist's last probes
	// have a few intervals to go.
	<-time.After(10 * time.Second)
}

// bubble runs a test in pretend time.
func bubble(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }
