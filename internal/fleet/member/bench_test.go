package member

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// wire is what goes wrong between the hosts of a benchmark, on real sockets.
type wire struct {
	mu   sync.Mutex
	off  map[string]bool // addresses that nothing comes from or gets to
	loss int             // per mille of packets, each way
}

func (w *wire) drops(a, b string, packet bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.off[a] || w.off[b] || packet && rand.IntN(1000) < w.loss
}

func (w *wire) set(addr string, off bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.off[addr] = off
}

// wired is a host on it.
type wired struct {
	*memberlist.NetTransport
	wire *wire
	self string
}

func (h *wired) WriteTo(b []byte, addr string) (time.Time, error) {
	return h.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (h *wired) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if h.wire.drops(h.self, a.Addr, true) {
		return time.Now(), nil
	}
	return h.NetTransport.WriteToAddress(b, a)
}

// dial: to a host that is off there is no answer, and none that says so. Connections are
// not slowed by loss here: that flatters nobody, since their answer is not waited for.
func (h *wired) dial(ctx context.Context, addr string) (net.Conn, error) {
	if h.wire.drops(h.self, addr, false) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

// ringOn starts size nodes on a wire and returns them when all know all.
func ringOn(b *testing.B, w *wire, size int, set Settings) []*Node {
	b.Helper()
	var nodes []*Node
	var first netip.AddrPort
	for i := range size {
		keys, err := NewKeys(simKey)
		if err != nil {
			b.Fatal(err)
		}
		node, err := New(Options{
			Self: Label{Host: fmt.Sprintf("h%03d", i), Zone: "z", Rack: fmt.Sprint("r", i%8)}, Ring: "ring",
			Bind: netip.MustParseAddrPort("127.0.0.1:0"), Keys: keys, Settings: set,
			Seeds: func() []netip.AddrPort { return []netip.AddrPort{first} },
			open: func(l *logs, s Settings) (*transport, error) {
				inner, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{"127.0.0.1"}, Logger: l.logger()})
				if err != nil {
					return nil, err
				}
				h := &wired{NetTransport: inner, wire: w, self: fmt.Sprint("127.0.0.1:", inner.GetAutoBindPort())}
				return newTransport(h, s.Stream, h.dial), nil
			},
		})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- node.Run(ctx) }()
		b.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				b.Error(err)
			}
		})
		<-node.Ready()
		if i == 0 {
			first = node.Addr()
		}
		nodes = append(nodes, node)
	}
	await(b, "all know all", func() bool {
		return !slices.ContainsFunc(nodes, func(n *Node) bool { return len(n.table.here()) != size-1 })
	})
	return nodes
}

func await(b *testing.B, what string, done func() bool) {
	b.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(2 * time.Minute)
	for !done() {
		select {
		case <-ticker.C:
		case <-deadline:
			b.Fatalf("not in two minutes: %s", what)
		}
	}
}

// busy keeps every core busy twice, until the benchmark ends.
func busy(b *testing.B) {
	ctx, cancel := context.WithCancel(context.Background())
	b.Cleanup(cancel)
	for range 2 * runtime.NumCPU() {
		cmd := exec.CommandContext(ctx, "sh", "-c", "while :; do :; done")
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { cancel(); _ = cmd.Wait() })
	}
}

// BenchmarkGone switches off one member after the other, in real time on real sockets,
// all nodes in this process, and prints how long it takes until all others have found
// out for themselves. It asserts nothing about time. A member that was lost and lives is
// counted as false.
//
//	go test ./internal/fleet/member -run '^$' -bench Gone -benchtime 100x
func BenchmarkGone(b *testing.B) {
	for _, c := range []struct {
		name  string
		size  int
		probe time.Duration
		loss  int
		busy  bool
	}{
		{name: "5", size: 5},
		{name: "5,loss=25%", size: 5, loss: 250},
		{name: "5,loss=25%,busy", size: 5, loss: 250, busy: true},
		// The nodes of one process share its cores: each probes a third as often. 200 of
		// them are too much for two cores; the tests have them in pretend time.
		{name: "50,probe=300ms", size: 50, probe: 300 * time.Millisecond},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := &wire{off: map[string]bool{}}
			nodes := ringOn(b, w, c.size, Settings{Probe: c.probe, Events: 4096})
			if c.busy {
				busy(b)
			}
			w.mu.Lock()
			w.loss = c.loss
			w.mu.Unlock()
			var last []time.Duration // of the last observer in each trial
			var each []time.Duration // of every observer
			wrong := 0
			for b.Loop() {
				victim := rand.IntN(c.size)
				name := nodes[victim].o.Self.Host
				for _, n := range nodes {
					for len(n.Events()) > 0 {
						if e := <-n.Events(); e.Kind == Lost {
							wrong++
						}
					}
				}
				began := time.Now()
				w.set(nodes[victim].Addr().String(), true)
				var worst time.Duration
				for i, n := range nodes {
					if i == victim {
						continue
					}
					patience := time.After(time.Minute)
					for found := false; !found; {
						select {
						case e := <-n.Events():
							if found = e.Kind == Lost && e.Member.Label.Host == name; found {
								worst = max(worst, e.At.Sub(began))
								each = append(each, e.At.Sub(began))
							} else if e.Kind == Lost {
								wrong++
							}
						case <-patience:
							b.Fatalf("%s has not lost %s in a minute", n.o.Self.Host, name)
						}
					}
				}
				last = append(last, worst)
				b.StopTimer()
				w.set(nodes[victim].Addr().String(), false)
				await(b, "all are together again", func() bool {
					return !slices.ContainsFunc(nodes, func(n *Node) bool { return len(n.table.here()) != c.size-1 })
				})
				for len(nodes[victim].Events()) > 0 { // it lost everybody, rightly
					<-nodes[victim].Events()
				}
				b.StartTimer()
			}
			slices.Sort(last)
			slices.Sort(each)
			ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
			b.ReportMetric(ms(quantile(each, 500)), "p50-ms")
			b.ReportMetric(ms(quantile(last, 500)), "all-p50-ms")
			b.ReportMetric(ms(quantile(last, 990)), "all-p99-ms")
			b.ReportMetric(ms(quantile(last, 1000)), "all-worst-ms")
			b.ReportMetric(float64(wrong), "false")
			b.ReportMetric(0, "ns/op")
			h := nodes[0].Health()
			b.Logf("%d trials; probe %s; delay %s, round trip %s, loss %d per mille, silence %s, news to %d of %d in %s",
				len(last), nodes[0].o.Settings.Probe, h.OwnDelay, h.RoundTrip, h.Loss, h.Silence, h.Spread.Heard, h.Spread.Members, h.Spread.Worst)
		})
	}
}
