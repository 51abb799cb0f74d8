package wire

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// DirectProtocol is the name (ALPN) of what an agent's session speaks on a connection of
// its own: the messages of AgentService.Session as they are, each behind five bytes, its
// kind and its length. A session is most of what a large fleet costs a server, and what
// it would need HTTP/2 for, several calls on one connection, it does not do: five
// goroutines with their stacks stand behind it there, and one here. All other calls, and
// sessions of a peer that does not know it, are gRPC's, on the same port.
const DirectProtocol = "fettle-session/1"

// The kinds of a frame.
const (
	frameMessage = 0 // a message
	frameEnd     = 1 // a google.rpc.Status: why the server ended it
)

const headerSize = 5

// endWait bounds how long a server tries to say why it ends a session.
const endWait = time.Second

// frames reads and writes frames. One goroutine reads, any write.
type frames struct {
	conn net.Conn
	head [headerSize]byte // the reader's

	mu sync.Mutex // held while a frame is written
}

// buffers are for one frame each, of those that are not large.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 1<<10); return &b }}

// bufferMost is how large a buffer may be to be used again.
const bufferMost = 64 << 10

func release(b *[]byte) {
	if cap(*b) <= bufferMost {
		*b = (*b)[:0]
		buffers.Put(b)
	}
}

// next reads a frame. What it takes grows with what has come, not with what was
// announced. Who calls releases the buffer.
func (f *frames) next() (kind byte, data *[]byte, err error) {
	if _, err := io.ReadFull(f.conn, f.head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(f.head[1:])
	if size > MaxMessage {
		return 0, nil, status.Errorf(codes.ResourceExhausted, "a message of %d bytes, at most %d are taken", size, MaxMessage)
	}
	buf, _ := buffers.Get().(*[]byte)
	for left := int(size); left > 0; {
		n := min(left, bufferMost)
		*buf = append(*buf, make([]byte, n)...)
		if _, err := io.ReadFull(f.conn, (*buf)[len(*buf)-n:]); err != nil {
			release(buf)
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, nil, err
		}
		left -= n
	}
	return f.head[0], buf, nil
}

func (f *frames) write(kind byte, m proto.Message) error {
	buf, _ := buffers.Get().(*[]byte)
	defer release(buf)
	*buf = append(*buf, make([]byte, headerSize)...)
	var err error
	if *buf, err = (proto.MarshalOptions{}).MarshalAppend(*buf, m); err != nil {
		return status.Errorf(codes.Internal, "write %T: %v", m, err)
	}
	size := len(*buf) - headerSize
	if size > MaxMessage {
		return status.Errorf(codes.ResourceExhausted, "a message of %d bytes, at most %d are sent", size, MaxMessage)
	}
	(*buf)[0] = kind
	binary.BigEndian.PutUint32((*buf)[1:], uint32(size)) //nolint:gosec // it is not larger than MaxMessage
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err = f.conn.Write(*buf)
	return err
}

// SendMsg implements grpc.Stream.
func (f *frames) SendMsg(m any) error {
	msg, ok := m.(proto.Message)
	if !ok {
		return status.Errorf(codes.Internal, "%T is no message", m)
	}
	return f.write(frameMessage, msg)
}

func read(data *[]byte, m any) error {
	defer release(data)
	msg, ok := m.(proto.Message)
	if !ok {
		return status.Errorf(codes.Internal, "%T is no message", m)
	}
	if err := proto.Unmarshal(*data, msg); err != nil {
		return status.Errorf(codes.InvalidArgument, "a message that cannot be read: %v", err)
	}
	return nil
}

// Direct is a server's end of a session that came on a connection of its own. It is a
// grpc.ServerStream, without metadata.
type Direct struct {
	frames
	ctx    context.Context
	cancel context.CancelFunc
}

// NewDirect takes a connection over, of which info is known.
func NewDirect(ctx context.Context, conn net.Conn, info credentials.TLSInfo) *Direct {
	ctx, cancel := context.WithCancel(peer.NewContext(ctx, &peer.Peer{Addr: conn.RemoteAddr(), LocalAddr: conn.LocalAddr(), AuthInfo: info}))
	return &Direct{frames: frames{conn: conn}, ctx: ctx, cancel: cancel}
}

// Context implements grpc.ServerStream. It ends with Finish.
func (d *Direct) Context() context.Context { return d.ctx }

// SetHeader implements grpc.ServerStream: there are none.
func (d *Direct) SetHeader(metadata.MD) error { return nil }

// SendHeader implements grpc.ServerStream: there are none.
func (d *Direct) SendHeader(metadata.MD) error { return nil }

// SetTrailer implements grpc.ServerStream: there are none.
func (d *Direct) SetTrailer(metadata.MD) {}

// RecvMsg implements grpc.ServerStream.
func (d *Direct) RecvMsg(m any) error {
	data, err := d.Next()
	if err != nil {
		return err
	}
	return read((*[]byte)(data), m)
}

// Message is one that has come and was not read yet.
type Message []byte

// Next waits for a message, with a small stack: to read it, which takes a larger one, is
// for another goroutine. It is read once.
func (d *Direct) Next() (*Message, error) {
	kind, data, err := d.next()
	switch {
	case err != nil:
		return nil, err
	case kind != frameMessage:
		release(data)
		return nil, status.Errorf(codes.InvalidArgument, "a frame of kind %d, which no agent sends", kind)
	}
	return (*Message)(data), nil
}

// Read reads it.
func (m *Message) Read(into proto.Message) error { return read((*[]byte)(m), into) }

// Interrupt ends the Next that waits, and each one after it. Where Finish does not follow
// soon the connection is closed: gRPC takes back a deadline of its own from the connection
// at the very beginning, and may hit this one.
func (d *Direct) Interrupt() {
	_ = d.conn.SetReadDeadline(time.Unix(1, 0)) // one that is closed waits no more
	last := time.AfterFunc(endWait, func() { _ = d.conn.Close() })
	context.AfterFunc(d.ctx, func() { last.Stop() })
}

// Finish says why the session ended and closes the connection.
func (d *Direct) Finish(why error) {
	defer d.cancel()
	_ = d.conn.SetWriteDeadline(time.Now().Add(endWait)) // for one that is written now, too
	_ = d.write(frameEnd, status.Convert(why).Proto())   // who is not there any more is told nothing
	_ = d.conn.Close()
}

// ErrNoDirect is of a server that knows sessions only as a call of gRPC.
var ErrNoDirect = errors.New("the server does not know sessions on a connection of their own")

func (d Dialer) connect(ctx context.Context, address string) (net.Conn, error) {
	if d == nil {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	return d(ctx, address)
}

// Direct begins a session over what d connects; it ends with ctx. ErrNoDirect: it has to
// be begun by gRPC.
func (d Dialer) Direct(ctx context.Context, address string, conf *tls.Config) (AgentService_SessionClient, error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, fmt.Errorf("server address %q: want host:port: %w", address, err)
	}
	within, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	raw, err := d.connect(within, address)
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "connect: %v", err)
	}
	conf = conf.Clone()
	conf.NextProtos = []string{DirectProtocol, "h2"}
	conn := tls.Client(raw, conf)
	if err := conn.HandshakeContext(within); err != nil {
		_ = raw.Close()
		return nil, status.Errorf(codes.Unavailable, "connect: %v", err)
	}
	if conn.ConnectionState().NegotiatedProtocol != DirectProtocol {
		_ = conn.Close()
		return nil, ErrNoDirect
	}
	own, end := context.WithCancel(ctx)
	c := &directClient{frames: frames{conn: conn}, ctx: own, end: end}
	context.AfterFunc(own, func() { _ = raw.Close() }) // not by TLS, which would wait for a write
	return c, nil
}

// directClient is an agent's end.
type directClient struct {
	frames
	ctx context.Context
	end context.CancelFunc
}

func (c *directClient) Context() context.Context { return c.ctx }

func (c *directClient) Header() (metadata.MD, error) { return nil, nil }

func (c *directClient) Trailer() metadata.MD { return nil }

// CloseSend ends the session: an agent has nothing to hear after its last word.
func (c *directClient) CloseSend() error {
	c.end()
	return nil
}

func (c *directClient) Send(m *SessionRequest) error {
	if err := c.write(frameMessage, m); err != nil {
		if _, ours := status.FromError(err); ours {
			return err
		}
		return io.EOF // as gRPC has it: Recv says why
	}
	return nil
}

func (c *directClient) Recv() (*SessionResponse, error) {
	m := &SessionResponse{}
	return m, c.RecvMsg(m)
}

func (c *directClient) RecvMsg(m any) error {
	kind, data, err := c.next()
	if err != nil {
		defer c.end()
		if _, ours := status.FromError(err); ours {
			return err
		}
		if err := c.ctx.Err(); err != nil {
			return status.FromContextError(err).Err()
		}
		return status.Errorf(codes.Unavailable, "the connection broke: %v", err)
	}
	if kind == frameMessage {
		return read(data, m)
	}
	defer c.end()
	var why spb.Status
	if err := read(data, &why); err != nil {
		return err
	}
	if err := status.ErrorProto(&why); err != nil {
		return err
	}
	return io.EOF
}
