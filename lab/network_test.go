//go:build lab

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// reach says whether one ping gets from a to b and back.
func reach(t *testing.T, a, b *Host) bool {
	t.Helper()
	r, err := a.Exec(testContext(t), "ping", "-c", "1", "-W", "1", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return r.Code == 0
}

func TestPartitionAndHeal(t *testing.T) {
	ctx := testContext(t)
	l := startLab(t, 3)
	a, b, c := l.Host(1), l.Host(2), l.Host(3)
	expect := func(when string, ab, bc, ac bool) {
		t.Helper()
		if got := [3]bool{reach(t, a, b), reach(t, b, c), reach(t, a, c)}; got != [3]bool{ab, bc, ac} {
			t.Errorf("%s: ab, bc, ac are %v, want %v; faults %q", when, got, [3]bool{ab, bc, ac}, l.Faults())
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	expect("at first", true, true, true)
	must(l.Partition(ctx, []*Host{a}, []*Host{b}))
	expect("a and b parted", false, true, true)
	must(l.Partition(ctx, []*Host{a}, []*Host{b, c}))
	expect("a parted from b and c", false, true, false)
	must(l.Heal(ctx))
	expect("healed", true, true, true)
	must(l.Isolate(ctx, c))
	expect("c isolated", true, false, false)
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	// A host that can be reached refuses at once: nobody listens there.
	var unheard net.Error
	if conn, err := l.Dial(short, "tcp", c.Addr().String()+":1"); !errors.As(err, &unheard) || !unheard.Timeout() {
		t.Errorf("an isolated host answered the bridge: %v, %v", conn, err)
	}
	must(l.Heal(ctx))
	if conn, err := l.Dial(ctx, "tcp", c.Addr().String()+":1"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("from the bridge to a healed host: %v, %v", conn, err)
	}
	// One way: what b says gets to a, what a says does not get to b.
	must(l.CutOneWay(ctx, []*Host{a}, []*Host{b}))
	heard := listenUDP(t, a, 9)
	output(t, b, "sh", "-c", fmt.Sprintf("ip neigh replace %s lladdr %s dev host0; python3 -c 'import socket; socket.socket(2,2).sendto(b\"hello\",(\"%s\",9))'",
		a.Addr(), mac(t, a), a.Addr()))
	if got := <-heard; got != "hello" {
		t.Errorf("the open direction brought %q", got)
	}
	expect("a to b cut", false, true, true)
	if got := l.Faults(); len(got) != 1 || got[0] != "cut h1 -> h2" {
		t.Errorf("faults are %q", got)
	}
	must(l.Heal(ctx))
	if got := l.Faults(); len(got) != 0 {
		t.Errorf("after healing: %q", got)
	}
	for _, bad := range []error{l.Partition(ctx, []*Host{a}, []*Host{a}), l.Partition(ctx, nil, []*Host{a}),
		l.Loss(ctx, a, a, 1), l.Loss(ctx, a, b, 101), l.Delay(ctx, a, b, -1, 0), l.Delay(ctx, a, b, 1, 2), l.Delay(ctx, nil, nil, 1, 0)} {
		if bad == nil {
			t.Error("a senseless fault was taken")
		}
	}
}

func mac(t *testing.T, h *Host) string {
	return output(t, h, "cat", "/sys/class/net/host0/address")
}

// listenUDP receives one datagram in the host and hands it on. It returns when the socket is bound.
func listenUDP(t *testing.T, h *Host, port int) <-chan string {
	t.Helper()
	const script = `import socket,sys
s=socket.socket(2,2); s.bind(("",int(sys.argv[1]))); s.settimeout(60)
print("bound",flush=True); print(s.recv(99).decode(),flush=True)`
	ready, heard := make(chan struct{}), make(chan string, 1)
	lines := &lineWriter{got: func(line string) {
		if line == "bound" {
			close(ready)
		} else {
			heard <- line
		}
	}}
	ended := make(chan error, 1)
	go func() {
		code, err := h.Stream(testContext(t), nil, lines, io.Discard, "python3", "-c", script, strconv.Itoa(port))
		if err == nil && code != 0 {
			err = fmt.Errorf("exit status %d", code)
		}
		ended <- err
		close(heard)
	}()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("listen on %s: %v", h.Name(), err)
	}
	return heard
}

var statistics = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received(?s:.*)rtt min/avg/max/mdev = ([\d.]+)/([\d.]+)/([\d.]+)/`)

// ping sends count pings and returns how many were answered, and the least and greatest time in ms.
func ping(t *testing.T, from, to *Host, count int) (answered int, least, most float64) {
	t.Helper()
	r, err := from.Exec(testContext(t), "ping", "-q", "-i", "0.005", "-c", strconv.Itoa(count), "-W", "2", to.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	m := statistics.FindStringSubmatch(r.Stdout)
	if m == nil {
		t.Fatalf("cannot read ping's answer: %s%s", r.Stdout, r.Stderr)
	}
	answered, _ = strconv.Atoi(m[2])
	least, _ = strconv.ParseFloat(m[3], 64)
	most, _ = strconv.ParseFloat(m[5], 64)
	return answered, least, most
}

func TestLoss(t *testing.T) {
	ctx := testContext(t)
	l := startLab(t, 3)
	a, b, c := l.Host(1), l.Host(2), l.Host(3)
	if err := l.Loss(ctx, a, b, 30); err != nil {
		t.Fatal(err)
	}
	// Of 300 at 30 % between 150 and 270 arrive, but for a chance of less than 1 in 10^8.
	if got, _, _ := ping(t, a, b, 300); got < 150 || got > 270 {
		t.Errorf("%d of 300 pings answered at 30 %% loss", got)
	}
	if got, _, _ := ping(t, a, c, 100); got != 100 {
		t.Errorf("%d of 100 pings answered beside the loss", got)
	}
	if err := l.Loss(ctx, a, b, 0); err != nil {
		t.Fatal(err)
	}
	if got, _, _ := ping(t, a, b, 100); got != 100 {
		t.Errorf("%d of 100 pings answered after the loss", got)
	}
}

func TestDelay(t *testing.T) {
	ctx := testContext(t)
	l := startLab(t, 3)
	a, b, c := l.Host(1), l.Host(2), l.Host(3)
	if err := l.Delay(ctx, nil, b, 80*time.Millisecond, 0); err != nil {
		t.Fatal(err)
	}
	if err := l.Delay(ctx, a, b, 150*time.Millisecond, 20*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	// Lower bounds only: a busy machine adds to every time.
	if got, least, most := ping(t, a, b, 20); got != 20 || least < 130 || most < 150 {
		t.Errorf("a to b: %d of 20 answered in %g to %g ms, want at least 130", got, least, most)
	}
	if got, least, _ := ping(t, c, b, 20); got != 20 || least < 80 {
		t.Errorf("c to b: %d of 20 answered in at least %g ms, want 80", got, least)
	}
	if got, least, _ := ping(t, a, c, 20); got != 20 || least >= 80 {
		t.Errorf("a to c: %d of 20 answered in at least %g ms, although no delay is there", got, least)
	}
	if err := l.Heal(ctx); err != nil {
		t.Fatal(err)
	}
	if got, least, _ := ping(t, a, b, 20); got != 20 || least >= 80 {
		t.Errorf("after healing: %d of 20 answered in at least %g ms", got, least)
	}
	if n := len(l.net.held); n != 0 {
		t.Errorf("%d queues are still held", n)
	}
}

// lineWriter calls got with each whole line that is written to it.
type lineWriter struct {
	part []byte
	got  func(string)
}

func (w *lineWriter) Write(p []byte) (int, error) {
	for _, c := range p {
		if c == '\n' {
			w.got(string(w.part))
			w.part = w.part[:0]
		} else {
			w.part = append(w.part, c)
		}
	}
	return len(p), nil
}
