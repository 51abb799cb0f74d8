package linuxmachine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// Names on the bus, org.freedesktop.systemd1(5).
const (
	systemdName   = "org.freedesktop.systemd1"
	systemdPath   = dbus.ObjectPath("/org/freedesktop/systemd1")
	unitPrefix    = "/org/freedesktop/systemd1/unit/"
	managerIface  = "org.freedesktop.systemd1.Manager"
	unitIface     = "org.freedesktop.systemd1.Unit"
	jobIface      = "org.freedesktop.systemd1.Job"
	propertyIface = "org.freedesktop.DBus.Properties"
)

// dialTimeout bounds connecting, which is local and takes under a millisecond.
const dialTimeout = 5 * time.Second

// bus keeps one connection to systemd, made when it is first needed and again
// after it was lost. root talks to systemd directly through its private socket,
// which saves two hops through the message bus; others talk through the bus.
type bus struct {
	cfg Config

	turn   chan struct{} // of link and closed; a channel, so that waiting can end
	link   *link
	closed bool
}

func newBus(cfg Config) *bus { return &bus{cfg: cfg, turn: make(chan struct{}, 1)} }

func (b *bus) close() error {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	b.closed = true
	if b.link == nil {
		return nil
	}
	return b.link.conn.Close()
}

// connected returns the connection, a new one if need be.
func (b *bus) connected(ctx context.Context) (*link, error) {
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if b.closed {
		return nil, fmt.Errorf("service manager: %w", net.ErrClosed)
	}
	if b.link != nil && b.link.conn.Connected() {
		return b.link, nil
	}
	// sd_booted(3): this directory is there exactly when systemd runs the machine.
	if _, err := os.Stat(filepath.Join(b.cfg.Run, "systemd/system")); err != nil {
		return nil, &fettle.Error{
			Op: "service manager", Class: fettle.Unsupported, Err: fmt.Errorf("systemd does not run this machine: %w", fettle.ErrNotSupported),
			Hint: "services can only be seen where systemd is process 1; in a container run on the host instead",
		}
	}
	private := filepath.Join(b.cfg.Run, "systemd/private")
	system := filepath.Join(b.cfg.Run, "dbus/system_bus_socket")
	var l *link
	var err error
	if os.Geteuid() == 0 {
		l, err = dial(ctx, private, true)
	}
	if l == nil {
		var busErr error
		if l, busErr = dial(ctx, system, false); busErr != nil {
			if errors.Is(busErr, fs.ErrNotExist) {
				busErr = fmt.Errorf("no message bus at %s (install and start dbus, or run as root): %w", system, busErr)
			}
			return nil, errors.Join(err, busErr)
		}
	}
	b.link = l
	return l, nil
}

// link is one connection.
type link struct {
	conn    *dbus.Conn
	private bool

	mu         sync.Mutex
	subscribed bool
	watches    map[*subscription]bool
	expecting  int                        // jobs that are being queued: their end may come before their answer
	ended      map[dbus.ObjectPath]string // results of jobs, while expecting
	waiting    map[dbus.ObjectPath][]chan string
}

func dial(ctx context.Context, path string, private bool) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	wrap := func(err error) error { return fmt.Errorf("connect to systemd at %s: %w", path, err) }
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, wrap(err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline) // a socket that is closed already says so at the next call
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	l := &link{
		private: private, watches: map[*subscription]bool{},
		ended: map[dbus.ObjectPath]string{}, waiting: map[dbus.ObjectPath][]chan string{},
	}
	// The connection outlives ctx: godbus must not see it.
	l.conn, err = dbus.DialUnix(c.(*net.UnixConn), dbus.WithSignalHandler(l))
	if err != nil {
		c.Close()
		return nil, wrap(err)
	}
	err = l.conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))})
	switch {
	case err != nil:
	case private:
		err = l.greet(ctx)
	default:
		err = l.conn.Hello()
	}
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		l.conn.Close()
		return nil, wrap(err)
	}
	_ = c.SetDeadline(time.Time{})
	return l, nil
}

// greetAgain is how long the first answer may take before another message is
// sent: some hundred times what an idle systemd needs.
const greetAgain = 20 * time.Millisecond

// greet makes sure that systemd reads what is sent. Its sd-bus takes what follows
// the end of the authentication into its buffer when both arrive at once, and then
// waits for more to arrive before it looks there: the first call would be answered
// only after the second. So the first calls are pings, until one is answered.
func (l *link) greet(ctx context.Context) error {
	// Room for every ping: godbus blocks on a full channel.
	answered := make(chan *dbus.Call, dialTimeout/greetAgain+1)
	for {
		l.conn.Object(systemdName, systemdPath).GoWithContext(ctx, "org.freedesktop.DBus.Peer.Ping", 0, answered)
		again := time.NewTimer(greetAgain)
		select {
		case c := <-answered:
			again.Stop()
			return c.Err
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		case <-again.C:
		}
	}
}

// call makes one method call and waits for its answer.
func (l *link) call(ctx context.Context, path dbus.ObjectPath, method string, args ...any) *dbus.Call {
	return l.conn.Object(systemdName, path).CallWithContext(ctx, method, 0, args...)
}

// begin makes a call whose answer comes on Done, so that many can be on the way.
func (l *link) begin(ctx context.Context, path dbus.ObjectPath, method string, args ...any) *dbus.Call {
	return l.conn.Object(systemdName, path).GoWithContext(ctx, method, 0, make(chan *dbus.Call, 1), args...)
}

// explain turns what the bus answered into errors that callers decide on.
func explain(err error) error {
	var e dbus.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		text := e.Error()
		switch e.Name {
		case "org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.DBus.Error.UnknownObject":
			return fmt.Errorf("%s: %w", text, fs.ErrNotExist)
		case "org.freedesktop.systemd1.UnitMasked":
			return fmt.Errorf("%s: %w", text, machine.ErrMasked)
		case "org.freedesktop.systemd1.JobTypeNotApplicable":
			return fmt.Errorf("%s: %w", text, fettle.ErrNotSupported)
		case "org.freedesktop.systemd1.NoSuchProcess":
			return fmt.Errorf("%s: %w", text, machine.ErrNotRunning)
		case "org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.AuthFailed",
			"org.freedesktop.DBus.Error.InteractiveAuthorizationRequired":
			return fmt.Errorf("%s (run as root to change services): %w", text, fs.ErrPermission)
		case "org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Disconnected":
			return fmt.Errorf("%s: %w", text, machine.ErrLost)
		}
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return fmt.Errorf("%w: %w", machine.ErrLost, err) // the transport's own errors
}
