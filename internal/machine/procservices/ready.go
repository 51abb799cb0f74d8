package procservices

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"time"
)

const (
	// A listening socket tells nobody that it is there: it is asked for.
	dialEvery   = 10 * time.Millisecond
	dialTimeout = 500 * time.Millisecond
)

// readiness waits for one process to be ready.
type readiness struct {
	tcp    string
	socket *net.UnixConn
}

// prepare makes the notify socket, if there is one, and tells the process of it.
func (r Ready) prepare(invocation string, cmd *exec.Cmd) (*readiness, error) {
	out := &readiness{tcp: r.TCP}
	if !r.Notify {
		return out, nil
	}
	// An abstract address leaves no file behind, however this process ends.
	name := "@fettle-notify-" + invocation
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("notify socket: %w", err)
	}
	out.socket = conn
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+name)
	return out, nil
}

func (r *readiness) close() {
	if r.socket != nil {
		r.socket.Close()
	}
}

// wait returns true when the process is ready, false when ctx has ended.
func (r *readiness) wait(ctx context.Context) bool {
	if r.socket != nil {
		return r.notified(ctx)
	}
	return r.accepts(ctx)
}

func (r *readiness) accepts(ctx context.Context) bool {
	tick := time.NewTicker(dialEvery)
	defer tick.Stop()
	dialer := net.Dialer{Timeout: dialTimeout}
	for {
		conn, err := dialer.DialContext(ctx, "tcp", r.tcp)
		if err == nil {
			conn.Close()
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

func (r *readiness) notified(ctx context.Context) bool {
	defer context.AfterFunc(ctx, func() { r.socket.Close() })()
	message := make([]byte, 4096)
	for {
		n, err := r.socket.Read(message)
		if err != nil {
			return false
		}
		for line := range bytes.SplitSeq(message[:n], []byte("\n")) {
			if string(line) == "READY=1" {
				return true
			}
		}
	}
}
