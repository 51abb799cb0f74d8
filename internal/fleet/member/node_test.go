package member

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// loopback is a ring on this machine's loopback, in real time.
type loopback struct {
	t     *testing.T
	mu    sync.Mutex
	addrs []netip.AddrPort
	nodes []*Node
	stops []func()
}

func (l *loopback) seeds() []netip.AddrPort {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.addrs)
}

// add starts a node and waits until it is bound. It ends with the test.
func (l *loopback) add(change func(*Options)) *Node {
	l.t.Helper()
	keys, err := NewKeys(simKey)
	if err != nil {
		l.t.Fatal(err)
	}
	i := len(l.nodes)
	o := Options{
		Self: Label{Host: fmt.Sprintf("h%d", i), Zone: "z", Rack: fmt.Sprint("r", i), Incarnation: "1", BootID: "b"},
		Ring: "ring", Bind: netip.MustParseAddrPort("127.0.0.1:0"), Keys: keys, Seeds: l.seeds,
	}
	if change != nil {
		change(&o)
	}
	node, err := New(o)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Errorf("%s: %v", o.Self.Host, err)
		}
	})
	l.t.Cleanup(stop)
	<-node.Ready()
	l.mu.Lock()
	l.addrs = append(l.addrs, node.Addr())
	l.mu.Unlock()
	l.nodes, l.stops = append(l.nodes, node), append(l.stops, stop)
	return node
}

func (l *loopback) until(what string, done func() bool) {
	l.t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(time.Minute)
	for !done() {
		select {
		case <-ticker.C:
		case <-deadline:
			for _, n := range l.nodes {
				l.t.Logf("%s: %+v %+v", n.o.Self.Host, n.Health(), n.Members())
			}
			l.t.Fatalf("not in a minute: %s", what)
		}
	}
}

// together waits until the nodes given know each other and nobody else is there.
func (l *loopback) together(nodes ...*Node) {
	l.t.Helper()
	l.until("all know all", func() bool {
		for _, n := range nodes {
			if len(n.table.here()) != len(nodes)-1 {
				return false
			}
		}
		return true
	})
}

// sees is a host as a node has it, the zero Member where it does not know it.
func (l *loopback) sees(n *Node, host string) Member {
	for _, m := range n.Members() {
		if m.Label.Host == host {
			return m
		}
	}
	return Member{}
}

// departed reports whether one that took its leave is known to be gone. Its word is gossip:
// once in a hundred times one of the others has not heard it, and finds that nobody answers
// there.
func departed(m Member) bool {
	return m.State == Left || m.State == Gone && m.Saw == SawRefusal
}

func TestLoopback(t *testing.T) {
	l := &loopback{t: t}
	for range 5 {
		l.add(nil)
	}
	l.together(l.nodes...)
	l.until("round trips between any two are known", func() bool {
		for _, a := range l.nodes {
			for _, b := range l.nodes {
				if rtt, ok := l.nodes[0].RoundTrip(a.o.Self.Host, b.o.Self.Host); !ok || rtt < 0 || rtt > time.Minute {
					return false
				}
			}
		}
		return true
	})
	if _, ok := l.nodes[0].RoundTrip("h0", "nobody"); ok {
		t.Error("the round trip to nobody is known")
	}
	// The loopback loses nothing, but a busy machine may drop a packet.
	l.until("news reaches all", func() bool { return l.nodes[1].Beat(t.Context()).Heard == 4 })
	if s := l.nodes[1].Health().Spread; s.Members != 4 || s.Worst <= 0 || s.P50 > s.P99 || s.P99 > s.Worst {
		t.Errorf("spread: %+v", s)
	}
	l.until("delays and round trips are measured", func() bool {
		h := l.nodes[2].Health()
		return h.OwnDelay > 0 && h.RoundTrip > 0 && h.Silence >= 175*time.Millisecond
	})
	if got := l.nodes[0].Members()[0]; got.Label.Rack != "r1" || got.Addr != l.nodes[1].Addr() || got.Label.BootID != "b" {
		t.Errorf("h1 as h0 knows it: %+v", got)
	}
	l.stops[4]()
	l.until("all know that h4 has left, or one of them finds nobody there", func() bool {
		missed := 0
		for _, n := range l.nodes[:4] {
			m := l.sees(n, "h4")
			if !departed(m) {
				return false
			}
			if m.State != Left {
				missed++
			}
		}
		return missed <= 1
	})
	if err := l.nodes[4].Run(t.Context()); err == nil {
		t.Error("a node runs twice")
	}
}

// TestKeyRotation: three rounds, each while everything goes on. Nobody is lost, and
// who has the old key only is not let in afterwards.
func TestKeyRotation(t *testing.T) {
	l := &loopback{t: t}
	for range 4 {
		l.add(nil)
	}
	l.together(l.nodes...)
	next := bytes.Repeat([]byte{7}, 32)
	// After each round all have been heard from since, so the round held.
	round := func(what string, turn func(*Keys) error) {
		t.Helper()
		for _, n := range l.nodes {
			if err := turn(n.o.Keys); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		began := time.Now()
		l.until("all have heard all since: "+what, func() bool {
			for _, n := range l.nodes {
				for _, m := range n.Members() {
					if m.Heard.Before(began) {
						return false
					}
				}
			}
			return true
		})
	}
	old := IDOf(simKey)
	if err := l.nodes[0].o.Keys.Use(IDOf(next)); err == nil {
		t.Error("a key is used that is not installed")
	}
	round("install", func(k *Keys) error { return k.Install(next) })
	if err := l.nodes[0].o.Keys.Remove(old); err == nil {
		t.Error("the key in use is removed")
	}
	round("use", func(k *Keys) error { return k.Use(IDOf(next)) })
	round("remove", func(k *Keys) error { return k.Remove(old) })
	if got := l.nodes[0].o.Keys.List(); len(got) != 1 || got[0] != IDOf(next) {
		t.Errorf("keys after rotation: %v", got)
	}
	for _, n := range l.nodes {
		if h := n.Health(); h.Undecrypted != 0 {
			t.Errorf("%s: %d packets that no key opened while it was rotated", n.o.Self.Host, h.Undecrypted)
		}
		for len(n.Events()) > 0 {
			if e := <-n.Events(); e.Kind == Lost {
				t.Errorf("%s lost %s while the key was rotated", n.o.Self.Host, e.Member.Label.Host)
			}
		}
	}
	late := l.add(nil) // with the old key
	l.until("it is refused", func() bool { return l.nodes[0].Health().Undecrypted > 0 || l.nodes[1].Health().Undecrypted > 0 })
	if len(late.Members()) != 0 {
		t.Errorf("with the old key it knows %+v", late.Members())
	}
}

func TestKeysKeepOrder(t *testing.T) {
	a, b, c, d := bytes.Repeat([]byte{1}, 16), bytes.Repeat([]byte{2}, 24), bytes.Repeat([]byte{3}, 32), bytes.Repeat([]byte{4}, 32)
	keys, err := NewKeys(a, b, c, d)
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Remove(IDOf(b)); err != nil {
		t.Fatal(err)
	}
	if got, want := keys.List(), []KeyID{IDOf(a), IDOf(c), IDOf(d)}; !slices.Equal(got, want) {
		t.Errorf("keys %v, want %v", got, want)
	}
	if err := keys.Remove(IDOf(b)); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
	for _, bad := range [][]byte{nil, []byte("short")} {
		if _, err := NewKeys(bad); err == nil {
			t.Errorf("a key of %d bytes is taken", len(bad))
		}
	}
	if strings.Contains(fmt.Sprint(keys.List()), string(a)) {
		t.Error("a key is printed")
	}
}

// syncBuffer is a log that several write to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestWrongKey: refused, logged once, no secret told, still serving.
func TestWrongKey(t *testing.T) {
	l := &loopback{t: t}
	var warned, everything syncBuffer
	a := l.add(func(o *Options) {
		o.Log = slog.New(slog.NewTextHandler(&warned, nil))
	})
	b := l.add(func(o *Options) {
		o.Log = slog.New(slog.NewTextHandler(&everything, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	l.together(a, b)
	wrong := bytes.Repeat([]byte("W"), 32)
	stranger := l.add(func(o *Options) {
		o.Keys, _ = NewKeys(wrong)
		o.Settings.Rejoin = 100 * time.Millisecond // it tries often
	})
	l.until("it was refused five times by each", func() bool {
		return a.Health().Undecrypted >= 5 && b.Health().Undecrypted >= 5
	})
	if n := len(stranger.Members()); n != 0 {
		t.Errorf("the stranger knows %d members", n)
	}
	// Still serving: a third member with the right key is let in.
	c := l.add(nil)
	l.together(a, b, c)
	if n := strings.Count(warned.String(), "no installed key opens"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, warned.String())
	}
	for _, secret := range [][]byte{simKey, wrong} {
		if strings.Contains(everything.String(), string(secret)) || strings.Contains(everything.String(), fmt.Sprint(secret)) {
			t.Error("a key is in the log")
		}
	}
}

// TestOtherRing: the same key in another ring is a stranger too.
func TestOtherRing(t *testing.T) {
	l := &loopback{t: t}
	a, b := l.add(nil), l.add(nil)
	other := l.add(func(o *Options) { o.Ring, o.Settings.Rejoin = "other", 50*time.Millisecond })
	l.together(a, b)
	asked := time.Now()
	l.until("the two go on", func() bool {
		for _, n := range []*Node{a, b} {
			if m := n.Members(); len(m) != 1 || m[0].Heard.Sub(asked) < 500*time.Millisecond {
				return false
			}
		}
		return true
	})
	if n := len(other.Members()); n != 0 {
		t.Errorf("a member of another ring knows %d of this one", n)
	}
}

// TestHalfOpen: connections that say nothing are bounded, and the ring goes on.
func TestHalfOpen(t *testing.T) {
	l := &loopback{t: t}
	a, b := l.add(nil), l.add(nil)
	l.together(a, b)
	for range 3 * streamsMax {
		conn, err := net.Dial("tcp", a.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	l.until("some are closed unserved", func() bool { return a.Health().Shed >= streamsMax })
	c := l.add(nil)
	l.together(a, b, c)
}

// TestFullOfEvents: nobody reads. What is missed is told with the next one.
func TestFullOfEvents(t *testing.T) {
	l := &loopback{t: t}
	a := l.add(func(o *Options) { o.Settings.Events = 1 })
	l.add(nil)
	l.add(nil)
	l.together(l.nodes...)
	if first := <-a.Events(); first.Kind != Joined || first.Missed != 0 {
		t.Errorf("first event: %+v", first)
	}
	l.stops[2]()
	l.until("the departure is told", func() bool { return departed(l.sees(a, "h2")) })
	if next := <-a.Events(); next.Missed == 0 || a.Health().Missed == 0 {
		t.Errorf("the event after those that were missed says nothing of them: %+v, %+v", next, a.Health())
	}
}

func TestNewRefuses(t *testing.T) {
	keys, err := NewKeys(simKey)
	if err != nil {
		t.Fatal(err)
	}
	good := Options{Self: Label{Host: "h"}, Ring: "r", Keys: keys, Bind: netip.MustParseAddrPort("127.0.0.1:0")}
	if _, err := New(good); err != nil {
		t.Fatalf("good options: %v", err)
	}
	for _, c := range []struct {
		change func(*Options)
		want   string
	}{
		{func(o *Options) { o.Keys = nil }, "without a key"},
		{func(o *Options) { o.Ring = "" }, "ring's name"},
		{func(o *Options) { o.Bind = netip.MustParseAddrPort("0.0.0.0:7946") }, "one address"},
		{func(o *Options) { o.Bind = netip.AddrPort{} }, "one address"},
		{func(o *Options) { o.Self.Host = "" }, "identity"},
		{func(o *Options) { o.Self.Host = "a/b" }, "slash"},
		{func(o *Options) { o.Self.Rack = "rack\n7" }, "printable"},
		{func(o *Options) {
			o.Self.Zone, o.Self.Rack, o.Self.BootID, o.Self.Incarnation = strings.Repeat("z", 128), strings.Repeat("r", 128), strings.Repeat("b", 128), strings.Repeat("i", 128)
		}, "shorten"},
		{func(o *Options) { o.Settings.Probe = time.Microsecond }, "less than a millisecond"},
		{func(o *Options) { o.Settings.Direct = time.Hour }, "less than probe"},
		{func(o *Options) { o.Settings.Windows = Windows{Floor: second, Ceiling: second} }, "DefaultWindows"},
	} {
		o := good
		c.change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

// TestAddressTaken: Run says why it could not begin, and leaves nothing behind.
func TestAddressTaken(t *testing.T) {
	l := &loopback{t: t}
	a := l.add(nil)
	keys, err := NewKeys(simKey)
	if err != nil {
		t.Fatal(err)
	}
	n, err := New(Options{Self: Label{Host: "b"}, Ring: "r", Keys: keys, Bind: a.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("%v", err)
	}
}

// TestAliases: a member cannot be called what another one says that it is.
func TestAliases(t *testing.T) {
	keys, err := NewKeys(simKey)
	if err != nil {
		t.Fatal(err)
	}
	n, err := New(Options{Self: Label{Host: "a"}, Ring: "r", Keys: keys, Bind: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	meta, err := Label{Host: "b"}.wire().write()
	if err != nil {
		t.Fatal(err)
	}
	d := delegate{n}
	if err := d.NotifyAlive(&memberlist.Node{Name: "b", Meta: meta}); err != nil {
		t.Errorf("b as b: %v", err)
	}
	for name, m := range map[string][]byte{"c": meta, "d": nil, "e": []byte(`{"v":1}`)} {
		if err := d.NotifyAlive(&memberlist.Node{Name: name, Meta: m}); err == nil {
			t.Errorf("%s with label %s is let in", name, m)
		}
	}
	// Messages of others, or of nobody, change nothing.
	for _, data := range [][]byte{nil, []byte("nonsense"), message{kind: hereMessage, number: 5, from: "b"}.write(), message{kind: askMessage, from: "b"}.write(), message{kind: heardMessage, number: 1, from: "b"}.write()} {
		d.NotifyMsg(data)
	}
	d.NotifyLeave(&memberlist.Node{Name: "b"})
	d.NotifyUpdate(&memberlist.Node{Name: "b", Meta: meta})
	if m := n.Members(); len(m) != 0 {
		t.Errorf("members: %+v", m)
	}
}
