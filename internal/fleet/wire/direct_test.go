package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// ends are both ends of a session, without TLS.
func ends(t *testing.T) (*Direct, *directClient, net.Conn) {
	t.Helper()
	here, there := net.Pipe()
	t.Cleanup(func() { _, _ = here.Close(), there.Close() })
	ctx, end := context.WithCancel(t.Context())
	return NewDirect(t.Context(), here, credentials.TLSInfo{}), &directClient{frames: frames{conn: there}, ctx: ctx, end: end}, there
}

func TestDirect(t *testing.T) {
	d, c, _ := ends(t)
	if p, ok := peer.FromContext(d.Context()); !ok || p.Addr == nil || p.AuthInfo == nil {
		t.Errorf("the peer: %+v, %v", p, ok)
	}
	texts := []string{"", "a", strings.Repeat("b", bufferMost-10), strings.Repeat("c", bufferMost+1), strings.Repeat("d", MaxMessage-100), "e"}
	sent := make(chan error, 1)
	go func() {
		for _, s := range texts {
			if err := c.Send(&SessionRequest{NowNs: 7, What: &SessionRequest_Hello{Hello: &Hello{Label: s}}}); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for i, want := range texts {
		m := &SessionRequest{}
		if err := d.RecvMsg(m); err != nil || m.GetNowNs() != 7 || m.GetHello().GetLabel() != want {
			t.Fatalf("message %d: %v, of %d bytes, want %d", i, err, len(m.GetHello().GetLabel()), len(want))
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	go func() { sent <- d.SendMsg(&SessionResponse{What: &SessionResponse_Ping{Ping: &Ping{Id: 3}}}) }()
	if m, err := c.Recv(); err != nil || m.GetPing().GetId() != 3 {
		t.Errorf("back came %v, %v", m, err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

// TestDirectEnds: why the server ends a session is known at the other end, and what is
// said after that goes nowhere.
func TestDirectEnds(t *testing.T) {
	for name, why := range map[string]error{"an error": status.Error(codes.PermissionDenied, "you were sent away"), "nothing": nil} {
		t.Run(name, func(t *testing.T) {
			d, c, _ := ends(t)
			finished := make(chan struct{})
			go func() { d.Finish(why); close(finished) }()
			_, err := c.Recv()
			if why == nil && !errors.Is(err, io.EOF) || why != nil && status.Convert(err).Message() != status.Convert(why).Message() {
				t.Errorf("it ended with %v, want %v", err, why)
			}
			<-finished
			if d.Context().Err() == nil || c.ctx.Err() == nil {
				t.Error("its contexts did not end")
			}
			if err := c.Send(&SessionRequest{}); !errors.Is(err, io.EOF) {
				t.Errorf("what is sent after that: %v", err)
			}
		})
	}
}

// TestDirectInterrupted: who waits for a message can be called back, and the other end is
// told why even so.
func TestDirectInterrupted(t *testing.T) {
	d, c, _ := ends(t)
	got := make(chan error, 1)
	go func() {
		_, err := d.Next()
		got <- err
		d.Finish(status.Error(codes.Aborted, "enough"))
	}()
	d.Interrupt()
	if _, err := c.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("the other end: %v", err)
	}
	if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it waited for %v", err)
	}
}

// TestDirectStuck: one that does not read holds nobody up.
func TestDirectStuck(t *testing.T) {
	d, _, _ := ends(t)
	sent := make(chan error, 1)
	go func() { sent <- d.SendMsg(&SessionResponse{}) }()
	d.Finish(nil) // returns
	if err := <-sent; err == nil {
		t.Error("it was sent")
	}
}

// TestDirectRefuses: what is no frame of an agent ends the session; what was announced
// takes no room before it has come.
func TestDirectRefuses(t *testing.T) {
	frame := func(kind byte, size uint32, data ...byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{kind}, size), data...)
	}
	for name, c := range map[string]struct {
		sent []byte
		code codes.Code
		err  error
	}{
		"larger than allowed": {sent: frame(frameMessage, MaxMessage+1), code: codes.ResourceExhausted},
		"another kind":        {sent: frame(7, 0), code: codes.InvalidArgument},
		"an end":              {sent: frame(frameEnd, 0), code: codes.InvalidArgument},
		"no message":          {sent: frame(frameMessage, 2, 0xff, 0xff), code: codes.InvalidArgument},
		"nothing":             {err: io.EOF},
		"half a head":         {sent: []byte{0, 0}, err: io.ErrUnexpectedEOF},
		"half a message":      {sent: frame(frameMessage, MaxMessage, 1, 2, 3), err: io.ErrUnexpectedEOF},
		"a head alone":        {sent: frame(frameMessage, 3), err: io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			d, _, there := ends(t)
			go func() {
				_, _ = io.Copy(there, bytes.NewReader(c.sent)) // as far as it is read
				_ = there.Close()
			}()
			err := d.RecvMsg(&SessionRequest{})
			if c.err != nil && !errors.Is(err, c.err) || c.err == nil && status.Code(err) != c.code {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestDirectTooLarge: what the other end would refuse is not sent.
func TestDirectTooLarge(t *testing.T) {
	_, c, _ := ends(t)
	if err := c.Send(&SessionRequest{What: &SessionRequest_Hello{Hello: &Hello{Label: strings.Repeat("x", MaxMessage)}}}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("%v", err)
	}
}

// FuzzDirect: whatever comes is messages, or an error.
func FuzzDirect(f *testing.F) {
	f.Add([]byte{frameMessage, 0, 0, 0, 0, frameMessage, 0, 0, 0, 2, 8, 7})
	f.Add([]byte{frameEnd, 0, 0, 0, 0})
	f.Add([]byte{frameMessage, 255, 255, 255, 255})
	f.Add([]byte{frameMessage, 0, 0, 0, 9, 1})
	f.Fuzz(func(t *testing.T, sent []byte) {
		d, _, there := ends(t)
		go func() {
			_, _ = there.Write(sent) // as far as it is read
			_ = there.Close()
		}()
		for took := 0; ; took++ {
			if err := d.RecvMsg(&SessionRequest{}); err != nil {
				break
			}
			if took*headerSize > len(sent) {
				t.Fatalf("%d messages of %d bytes", took, len(sent))
			}
		}
		_ = d.conn.Close() // who still writes ends
	})
}
