package member

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"
)

// TestSockets: one port for packets and connections, packets that stay what they were when
// the next one comes, and an end that waits and may be asked for twice.
func TestSockets(t *testing.T) {
	s, err := openSockets(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	ip, port, err := s.FinalAdvertiseAddr("", 0)
	if err != nil || len(ip) != net.IPv4len || port == 0 {
		t.Fatalf("it is told as %v:%d, %v", ip, port, err)
	}
	at := net.JoinHostPort(ip.String(), s.udp.LocalAddr().String()[len("127.0.0.1:"):])
	for _, text := range []string{"first", "2nd"} {
		if _, err := s.WriteTo([]byte(text), at); err != nil {
			t.Fatal(err)
		}
	}
	first, second := <-s.PacketCh(), <-s.PacketCh()
	if !bytes.Equal(first.Buf, []byte("first")) || !bytes.Equal(second.Buf, []byte("2nd")) || first.From.String() != at {
		t.Errorf("packets: %q and %q from %v", first.Buf, second.Buf, first.From)
	}
	conn, err := net.DialTimeout("tcp", at, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	taken := <-s.StreamCh()
	if taken.RemoteAddr().String() != conn.LocalAddr().String() {
		t.Errorf("a connection of %v", taken.RemoteAddr())
	}
	if err := taken.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.WriteTo([]byte("x"), "nowhere"); err == nil {
		t.Error("a packet to no address")
	}
	if _, err := openSockets(netip.MustParseAddrPort(at)); err == nil {
		t.Error("the port is bound twice")
	}
	for range 2 {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
	}
}
