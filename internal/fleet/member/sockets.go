package member

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// packetMost is the largest datagram that there is.
	packetMost = 64 << 10
	// packetRoom is how much may wait in the kernel while this process does not run: a
	// second of a ring's storm. The kernel gives less where it is set so (socket(7)).
	packetRoom = 2 << 20
	// acceptAgain is the pause after a connection that could not be taken: most often
	// there are no descriptors left.
	acceptAgain = 100 * time.Millisecond
)

// sockets are one UDP and one TCP socket at one address. memberlist's own transport
// makes 64 KiB of garbage for each packet, which is most of what an idle agent collects.
type sockets struct {
	udp     *net.UDPConn
	tcp     *net.TCPListener
	packets chan *memberlist.Packet
	conns   chan net.Conn
	ctx     context.Context // ends with Shutdown
	stop    context.CancelFunc
	wg      sync.WaitGroup
}

// openSockets binds both at one address; port 0 takes one that is free for both.
func openSockets(bind netip.AddrPort) (*sockets, error) {
	const tries = 10 // that a port is free for one and not for the other is rare
	for try := 1; ; try++ {
		tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(bind))
		if err != nil {
			return nil, err
		}
		at := netip.AddrPortFrom(bind.Addr(), uint16(tcp.Addr().(*net.TCPAddr).Port))
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			err = errors.Join(err, tcp.Close())
			if bind.Port() == 0 && try < tries {
				continue
			}
			return nil, err
		}
		_ = udp.SetReadBuffer(packetRoom) // less is slower, not wrong
		s := &sockets{udp: udp, tcp: tcp, packets: make(chan *memberlist.Packet), conns: make(chan net.Conn)}
		s.ctx, s.stop = context.WithCancel(context.Background())
		s.wg.Go(s.receive)
		s.wg.Go(s.accept)
		return s, nil
	}
}

// receive takes packets until the socket is closed.
func (s *sockets) receive() {
	buf := make([]byte, packetMost)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(buf)
		at := time.Now()
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an error of an earlier packet that was sent (udp(7))
		}
		if n == 0 {
			continue
		}
		p := &memberlist.Packet{Buf: bytes.Clone(buf[:n]), From: net.UDPAddrFromAddrPort(from), Timestamp: at}
		select {
		case s.packets <- p:
		case <-s.ctx.Done():
			return
		}
	}
}

// accept takes connections until the socket is closed.
func (s *sockets) accept() {
	for {
		conn, err := s.tcp.AcceptTCP()
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) || !wait(s.ctx, acceptAgain) {
				return
			}
			continue
		}
		select {
		case s.conns <- conn:
		case <-s.ctx.Done():
			_ = conn.Close()
			return
		}
	}
}

// FinalAdvertiseAddr is what the others are told: where it is bound.
func (s *sockets) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	at := s.udp.LocalAddr().(*net.UDPAddr)
	if v4 := at.IP.To4(); v4 != nil {
		return v4, at.Port, nil
	}
	return at.IP, at.Port, nil
}

// WriteTo sends a packet.
func (s *sockets) WriteTo(b []byte, addr string) (time.Time, error) {
	return s.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress sends a packet.
func (s *sockets) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	to, err := netip.ParseAddrPort(a.Addr)
	if err != nil {
		return time.Time{}, fmt.Errorf("packet to %q: %w", a.Addr, err)
	}
	_, err = s.udp.WriteToUDPAddrPort(b, to)
	return time.Now(), err
}

// PacketCh is where packets come from.
func (s *sockets) PacketCh() <-chan *memberlist.Packet { return s.packets }

// StreamCh is where connections come from.
func (s *sockets) StreamCh() <-chan net.Conn { return s.conns }

// errNotHere is of what transport does.
var errNotHere = errors.New("the sockets of gossip take packets and connections; transport dials")

// DialTimeout is not asked: transport dials.
func (s *sockets) DialTimeout(string, time.Duration) (net.Conn, error) { return nil, errNotHere }

// DialAddressTimeout is not asked: transport dials.
func (s *sockets) DialAddressTimeout(memberlist.Address, time.Duration) (net.Conn, error) {
	return nil, errNotHere
}

// Shutdown closes the sockets and waits for all that was started. A second call does
// nothing.
func (s *sockets) Shutdown() error {
	if s.ctx.Err() != nil {
		s.wg.Wait()
		return nil
	}
	s.stop()
	err := errors.Join(s.udp.Close(), s.tcp.Close())
	s.wg.Wait()
	return err
}
