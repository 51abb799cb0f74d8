package lab

import (
	"context"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Dial connects to an address in the lab, from its bridge: "10.82.7.1:2379". The machine itself has no route there.
// Host names are not looked up.
func (l *Lab) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	type answer struct {
		conn net.Conn
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		var a answer
		err := inNamespace(l.anchor.netns(), func() (err error) {
			var d net.Dialer
			a.conn, err = d.DialContext(ctx, network, address)
			return err
		})
		a.err = err
		got <- a
	}()
	a := <-got // DialContext heeds ctx
	return a.conn, a.err
}

// Command is a command of the machine that will run in the lab's network namespace, from where it reaches the hosts and
// nothing else. The caller starts it and waits for it, before the lab is closed.
func (l *Lab) Command(ctx context.Context, argv ...string) *exec.Cmd {
	args := append([]string{"--net=" + l.anchor.netns(), "--"}, argv...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// inNamespace runs do on a thread in the network namespace that the file names. Sockets that do makes stay in it. It must
// be called on a goroutine that does nothing else afterwards.
func inNamespace(file string, do func() error) error {
	ns, err := os.Open(file)
	if err != nil {
		return err
	}
	defer ns.Close()
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer own.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return os.NewSyscallError("setns", err)
	}
	err = do()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back == nil {
		runtime.UnlockOSThread()
	} // else the thread stays locked and ends with the goroutine: no other may come to run in the lab's network
	return err
}
