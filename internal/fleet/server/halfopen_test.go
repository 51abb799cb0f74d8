package server_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// TestHalfOpen: a thousand connections on which nobody says anything, or only the
// beginning of a handshake, and a hundred sessions of an agent without a first word, keep
// nobody else from being served, and are closed.
func TestHalfOpen(t *testing.T) {
	t.Parallel() // it waits for the end of a handshake's time
	f := newFleet(t)
	b := f.box("one")
	b.seen(0, "the first look", true)
	hello := []byte{0x16, 0x03, 0x01, 0x02, 0x00, 0x01} // a TLS record of 512 bytes, and the first of them
	var open []net.Conn
	for i := range 1000 {
		c, err := net.Dial("tcp", f.address)
		if err != nil {
			t.Fatalf("after %d connections: %v", i, err)
		}
		defer c.Close()
		if i%2 == 0 {
			if _, err := c.Write(hello); err != nil {
				t.Fatal(err)
			}
		}
		open = append(open, c)
	}
	id, _ := f.join("mute")
	for i := range 100 {
		c, err := tls.Dial("tcp", f.address, direct(id))
		if err != nil {
			t.Fatalf("after %d sessions: %v", i, err)
		}
		defer c.Close()
		if i%2 == 0 {
			if _, err := c.Write([]byte{0, 0}); err != nil {
				t.Fatal(err)
			}
		}
		open = append(open, c)
	}
	from := f.brain.mark()
	b.toy.setUp(false)
	b.seen(from, "the agent's next word", false)
	two := f.box("two") // and a new one gets in
	two.seen(from, "the first look of a new one", true)

	var closed sync.WaitGroup
	for _, c := range open {
		closed.Go(func() {
			if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Error(err)
			}
			_, err := io.Copy(io.Discard, c)
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				t.Error("a connection on which nobody speaks is not closed")
			}
		})
	}
	closed.Wait()
}
