package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// boot is one life of a host, from power on to power off.
type boot struct {
	ready chan struct{} // closed when the host's systemd has reported the end of start-up
	ended chan struct{} // closed when nothing of it is left; err is valid then
	pid1  atomic.Int64
	cut   bool // power is being cut: a reboot is not wanted; guarded by Host.mu
	code  int  // nspawn's exit status
	err   error
}

func (b *boot) isReady() bool {
	select {
	case <-b.ready:
		return true
	default:
		return false
	}
}

// leader is the machine's number of the host's process 1; 0 as long as it is not known.
func (b *boot) leader() int { return int(b.pid1.Load()) }

// exitReboot is how nspawn says that the host asked for a reboot (systemd-nspawn.c, EXIT_FORCE_RESTART).
const exitReboot = 133

// joinAndExec joins the cgroups whose files are its first arguments, after their count, then becomes the rest. A
// process that has joined a frozen group stops there.
const joinAndExec = `n=$1; shift; while [ "$n" -gt 0 ]; do echo 0 >"$1" || exit 97; shift; n=$((n-1)); done; exec "$@"`

func joining(procs []string, argv ...string) []string {
	out := append([]string{"sh", "-c", joinAndExec, "lab", strconv.Itoa(len(procs))}, procs...)
	return append(out, argv...)
}

// sayJoined reports, on descriptor 3, that the cgroups were joined.
const sayJoined = `echo joined >&3; exec 3>&-; exec "$@"`

// The nsenter that takes a process into a PID namespace is its parent, and stays outside of the cgroups that are killed:
// were it killed too, the process would be left to the machine's process 1, which may take its time to reap it, and until
// then the namespace cannot end.

// Boot switches the host on and returns when its systemd has finished start-up, half a second to a few seconds later.
// If that does not come within the configured time, the host is switched off again and the error has the end of its
// console.
func (h *Host) Boot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, h.lab.cfg.BootTimeout)
	defer cancel()
	release, err := h.take(ctx)
	if err != nil {
		return err
	}
	if p := h.Power(); p != Off {
		release()
		return fmt.Errorf("boot %s: it is %s: switch it off first", h.name, p)
	}
	b, err := h.spawn(ctx)
	release()
	if err != nil {
		return fmt.Errorf("boot %s: %w", h.name, err)
	}
	select {
	case <-b.ready:
		return nil
	case <-b.ended:
		return fmt.Errorf("boot %s: it went off again, status %d: %w\n%s", h.name, b.code, errors.Join(ErrOff, b.err), h.Console(20))
	case <-ctx.Done():
		err := fmt.Errorf("boot %s: start-up not finished: %w\n%s", h.name, context.Cause(ctx), h.Console(20))
		off, cancel := context.WithTimeout(context.Background(), toolDeadline)
		defer cancel()
		return errors.Join(err, h.PowerOff(off))
	}
}

// spawn starts nspawn. The caller holds the power switch and has seen that the host is off.
func (h *Host) spawn(ctx context.Context) (*boot, error) {
	if err := h.group.create(); err != nil {
		return nil, err
	}
	notify := filepath.Join(h.dir, "notify")
	if err := os.Remove(notify); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	sock, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	console, err := os.OpenFile(h.ConsolePath(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, errors.Join(err, sock.Close())
	}
	defer console.Close()
	fmt.Fprintf(console, "--- power on, %s ---\n", time.Now().UTC().Format(time.RFC3339))
	said, joined, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, sock.Close())
	}
	defer said.Close()
	argv := append([]string{"nsenter", "-t", strconv.Itoa(h.lab.anchor.pid), "-m", "-n", "-p", "--"}, joining(h.group.procs(), append([]string{"sh", "-c", sayJoined, "lab"}, h.nspawn()...)...)...)
	cmd := exec.CommandContext(context.WithoutCancel(ctx), argv[0], argv[1:]...)
	cmd.Env = []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"NOTIFY_SOCKET=" + notify,
		// cgroup2 only, as on a plain Debian 12, also where the machine itself has the hybrid layout.
		"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stdout, cmd.Stderr = console, console
	cmd.ExtraFiles = []*os.File{joined}
	b := &boot{ready: make(chan struct{}), ended: make(chan struct{})}
	err = cmd.Start()
	joined.Close()
	if err != nil {
		return nil, errors.Join(err, sock.Close())
	}
	// From here on cutting the power finds it. If the file ends without a word, so has nspawn; watch reports that.
	if _, err := said.Read(make([]byte, 1)); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait(), sock.Close())
	}
	h.update(func() { h.boot, h.rebooting, h.stopping, h.frozen, h.boots = b, false, false, false, h.boots+1 })
	told := make(chan struct{})
	go func() { h.listen(b, sock); close(told) }()
	watch := func() {
		err := cmd.Wait()
		code, known := exitCode(err)
		sock.Close()
		<-told
		b.code = code
		if !known {
			b.err = fmt.Errorf("nspawn of %s: %w", h.name, err)
		}
		h.ended(b)
	}
	if err := h.lab.started(watch); err != nil {
		err = errors.Join(err, h.group.kill(ctx))
		watch()
		return nil, err
	}
	return b, nil
}

func (h *Host) nspawn() []string {
	argv := []string{"systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--notify-ready=yes",
		"--directory=" + filepath.Join(h.dir, "root"), "--machine=" + h.machine(), "--hostname=" + h.name,
		"--network-bridge=lab0", "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=read-only"}
	// The error counters of file systems, to look at only: writing there could hurt the machine's own.
	for _, fs := range []string{"/sys/fs/ext4", "/sys/fs/xfs"} {
		if _, err := os.Stat(fs); err == nil {
			argv = append(argv, "--bind-ro="+fs)
		}
	}
	for _, d := range h.Disks() {
		argv = append(argv, "--bind="+d.Device)
	}
	return append(argv, "--boot")
}

// listen takes nspawn's messages (sd_notify(3)) until the socket is closed: first that process 1 is there, then that
// the host's start-up is finished.
func (h *Host) listen(b *boot, sock *net.UnixConn) {
	buf := make([]byte, 4096)
	for {
		n, err := sock.Read(buf)
		if err != nil {
			return
		}
		if b.leader() == 0 {
			b.pid1.Store(int64(findLeader(h.payload())))
		}
		for line := range strings.Lines(string(buf[:n])) {
			if strings.TrimSpace(line) == "READY=1" && b.leader() != 0 && !b.isReady() {
				h.update(func() { close(b.ready) })
			}
		}
	}
}

// findLeader is the process in the payload group that is number 1 in its own PID namespace; 0 if there is none yet.
func findLeader(payload string) int {
	for _, dir := range []string{"init.scope", "."} { // systemd moves itself to init.scope early on
		data, err := os.ReadFile(filepath.Join(payload, dir, "cgroup.procs"))
		if err != nil {
			continue
		}
		for _, pid := range strings.Fields(string(data)) {
			status, err := os.ReadFile(filepath.Join("/proc", pid, "status"))
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(status)) {
				if ids, ok := strings.CutPrefix(line, "NSpid:"); ok && strings.HasSuffix(strings.TrimSpace(ids), "\t1") {
					n, err := strconv.Atoi(pid)
					if err == nil {
						return n
					}
				}
			}
		}
	}
	return 0
}

// ended clears away what a host leaves when it goes off, and boots it again if it had asked for that.
func (h *Host) ended(b *boot) {
	ctx, cancel := context.WithTimeout(context.Background(), toolDeadline)
	defer cancel()
	// Killing nspawn would leave the host running without it; and a freezer flag would outlive the host.
	b.err = errors.Join(b.err, h.group.kill(ctx), h.group.remove(ctx))
	// The kernel removes the cable some time after the host's namespace has gone; booting before that fails. It is gone
	// already after a clean end, and with the namespace itself when the lab is closing: the answer does not matter.
	_, _ = run(ctx, nil, h.lab.anchor.enter("ip", "link", "delete", h.port())...)
	h.update(func() {
		h.boot, h.frozen, h.stopping = nil, false, false
		h.rebooting = b.code == exitReboot && !b.cut && h.lab.life.Err() == nil
	})
	close(b.ended)
	h.mu.Lock()
	again := h.rebooting
	h.mu.Unlock()
	if !again {
		return
	}
	release, err := h.take(h.lab.life)
	if err == nil {
		defer release()
		h.mu.Lock()
		again = h.rebooting && h.boot == nil // the power may have been cut in between
		h.mu.Unlock()
		if again {
			_, err = h.spawn(ctx)
		}
	}
	if err != nil {
		h.update(func() { h.rebooting = false })
	}
}
