// Package loopback gives tests addresses that stay theirs while nobody listens there.
//
// A port that the kernel chooses, as for "127.0.0.1:0", is one of those that it gives to
// callers too. While a test's server is down, whoever calls it over and over may be given
// that very port to call from, and is then connected with itself: the server cannot come
// back.
package loopback

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The ports, which are below those that Linux gives to callers (ip_local_port_range).
const first, ports = 10_000, 20_000

// taken is where the next port is looked for: tests of one process that run side by side,
// and whose servers come and go, never get one that another had.
var taken = func() *atomic.Int64 {
	var n atomic.Int64
	n.Store(rand.Int64N(ports)) // other processes look for ports too
	return &n
}()

// Open listens on an address, for some seconds if need be until whoever has it lets it go;
// on a new one where address is empty.
func Open(address string) (net.Listener, error) {
	var conf net.ListenConfig
	for end := time.Now().Add(10 * time.Second); ; {
		at := address
		if at == "" {
			at = net.JoinHostPort("127.0.0.1", strconv.FormatInt(first+taken.Add(1)%ports, 10))
		}
		l, err := conf.Listen(context.Background(), "tcp", at)
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(end) {
			return l, err
		}
		<-time.After(10 * time.Millisecond)
	}
}

// Listen is Open for a test, which ends where that fails.
func Listen(t testing.TB, address string) net.Listener {
	t.Helper()
	l, err := Open(address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Address is one at which nobody listens.
func Address(t testing.TB) string {
	t.Helper()
	l := Listen(t, "")
	defer l.Close()
	return l.Addr().String()
}

// Ports are those of so many addresses at which nobody listens.
func Ports(t testing.TB, n int) []int {
	t.Helper()
	var list []int
	for range n {
		l := Listen(t, "")
		defer l.Close()
		list = append(list, l.Addr().(*net.TCPAddr).Port)
	}
	return list
}
