package executor_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fettle/internal/fettle"
	"fettle/internal/fleet/executor"
)

// serve serves an executor on a socket until the test ends, or stop is called.
func serve(t testing.TB, h executor.Hands, path string, accounts ...int) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- executor.Serve(ctx, l, h, accounts, slog.New(slog.DiscardHandler)) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func client(t testing.TB, path string) *executor.Client {
	t.Helper()
	c := executor.Dial(path)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// socketIn is a path that others can reach.
func socketIn(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "s")
}

// Over the socket it is as in one process.
func TestSocket(t *testing.T) {
	h := newFleet(t).host(t.TempDir())
	path := socketIn(t)
	c := client(t, path)
	if _, err := c.Greet(t.Context()); !errors.Is(err, executor.ErrAway) {
		t.Fatalf("nobody listens: %v", err)
	}
	stop := serve(t, h.ex, path, os.Geteuid())
	g, err := c.Greet(t.Context())
	if err != nil || g.Incarnation == "" || g.Able[light] != 1 || g.Head == nil || g.Head.Entries != 1 || g.Pulse.Nonce == "" || g.Pulse.Frozen {
		t.Errorf("%+v, %v", g, err)
	}
	h.head = 3
	if why, err := c.Follow(t.Context(), *h.log()); why != "" || err != nil {
		t.Error(why, err)
	}
	o := h.order(h.dispatch("k1", light))
	var wg sync.WaitGroup
	for range 20 { // all at once, and done once
		wg.Go(func() {
			if out, err := c.Do(t.Context(), o); err != nil || out.Fate != fettle.Done {
				t.Errorf("%+v, %v", out, err)
			}
		})
	}
	wg.Wait()
	if n := h.lamp.count(); n != 1 {
		t.Errorf("it was done %d times", n)
	}
	forged := o
	forged.Signed = nil
	if out, err := c.Do(t.Context(), forged); err != nil || out.Class != fettle.Refused {
		t.Errorf("%+v, %v", out, err)
	}
	if _, err := c.Preview(t.Context(), forged); fettle.ClassOf(err) != fettle.Refused || !strings.Contains(err.Error(), "no server of the fleet") {
		t.Errorf("an error on its way: %v", err)
	}
	if err := c.CheckWrite(t.Context(), "/nowhere"); fettle.ClassOf(err) != fettle.Refused {
		t.Errorf("a write check where nothing is mounted: %v", err)
	}
	stop()
	if _, err := c.Pulse(t.Context()); err == nil {
		t.Error("it answered after its end")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	serve(t, h.ex, path, os.Geteuid())
	if _, err := c.Pulse(t.Context()); err != nil {
		t.Errorf("the next connection: %v", err)
	}
}

// failing is an executor on whose host the disk is full.
type failing struct{ executor.Hands }

func (failing) CheckWrite(context.Context, string) error {
	return &os.PathError{Op: "write", Path: "/x", Err: syscall.ENOSPC}
}

func (failing) Pulse(context.Context) (executor.Pulse, error) { panic("a defect") }

func TestErrorsKeepTheirNumber(t *testing.T) {
	path := socketIn(t)
	serve(t, failing{}, path, os.Geteuid())
	c := client(t, path)
	if err := c.CheckWrite(t.Context(), "/x"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
	if _, err := c.Pulse(t.Context()); err == nil || !strings.Contains(err.Error(), "defect") {
		t.Errorf("a panic: %v", err)
	}
	if err := c.CheckWrite(t.Context(), "/x"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("after a panic: %v", err)
	}
}

// Who is neither root nor the agent is not heard, whatever the socket's mode.
func TestStrangersAreTurnedAway(t *testing.T) {
	path := socketIn(t)
	serve(t, failing{}, path) // nobody but root
	const stranger = 65534
	conn := make(chan net.Conn, 1)
	go func() {
		if os.Geteuid() == 0 { // this thread alone becomes somebody else, and ends with the goroutine
			runtime.LockOSThread()
			if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, stranger, stranger, stranger); errno != 0 {
				t.Error(errno)
			}
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		}
		if err != nil {
			t.Error(err)
		}
		f := os.NewFile(uintptr(fd), path)
		defer f.Close()
		c, err := net.FileConn(f)
		if err != nil {
			t.Error(err)
		}
		conn <- c
	}()
	c := <-conn
	if c == nil {
		t.FailNow()
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a stranger got %d bytes, %v", n, err)
	}
}

// What is no message ends its connection, and nothing else.
func TestGarbageOnTheSocket(t *testing.T) {
	h := newFleet(t).host(t.TempDir())
	path := socketIn(t)
	serve(t, h.ex, path, os.Geteuid())
	c := client(t, path)
	if _, err := c.Pulse(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, bytes := range [][]byte{
		[]byte("GET / HTTP/1.1\r\n\r\n"), {0, 0, 0, 0}, binary.BigEndian.AppendUint32(nil, 1<<31), append(binary.BigEndian.AppendUint32(nil, 2), "[]"...),
		append(binary.BigEndian.AppendUint32(nil, 12), `{"schema":9}`...),
	} {
		bad, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = bad.Write(bytes)
		_ = bad.SetReadDeadline(time.Now().Add(20 * time.Second))
		if n, err := bad.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q: %d bytes, %v", bytes, n, err)
		}
		_ = bad.Close()
	}
	if _, err := c.Pulse(t.Context()); err != nil {
		t.Errorf("the agent's own connection: %v", err)
	}
}
