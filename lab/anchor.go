package lab

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// anchor is the first process of a lab's namespaces. Its life is the lab's: see the package documentation.
type anchor struct {
	pid  int
	hold io.Closer // the pipe that it reads; closing it ends the lab
	done chan struct{}
	said *bytes.Buffer // valid after done, as is err
	err  error
}

// The anchor ignores SIGCHLD, which lets the kernel reap what it inherits: exec keeps that. Mounts become slaves, so
// that the lab's do not show outside while the machine's own unmounts still reach in. /run/systemd/nspawn holds locks and
// folders by machine name; a private one keeps labs and the machine's own containers apart.
const anchorScript = `
trap '' CHLD
mount --make-rslave /
mount -t proc proc /proc
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=0755 lab /run/systemd/nspawn
ip link set lo up
ip link add lab0 type bridge
ip address add "$1" dev lab0
ip link set lab0 up
echo ready
exec cat >/dev/null
`

// startAnchor makes the lab's namespaces and its bridge with the given address ("10.82.0.254/24").
func startAnchor(ctx context.Context, bridge string) (*anchor, error) {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "sh", "-e", "-c", anchorScript, "lab-anchor", bridge)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true, // a Ctrl-C in the owner's terminal is for the owner
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
	}
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	a := &anchor{hold: hold, done: make(chan struct{}), said: new(bytes.Buffer)}
	cmd.Stderr = a.said
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("lab: make namespaces: %w", err)
	}
	a.pid = cmd.Process.Pid
	ready := make(chan bool, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		ready <- line == "ready\n"
		a.err = cmd.Wait()
		close(a.done)
	}()
	select {
	case ok := <-ready:
		if ok {
			return a, nil
		}
		<-a.done
		err = fmt.Errorf("lab: set up namespaces: %w: %s", cmp.Or(a.err, io.ErrUnexpectedEOF), tail(a.said.String(), 800))
	case <-ctx.Done():
		err = fmt.Errorf("lab: set up namespaces: %w", context.Cause(ctx))
	}
	return nil, errors.Join(err, a.close())
}

// close ends every process of the lab and waits for that.
func (a *anchor) close() error {
	a.hold.Close()
	select {
	case <-a.done:
		return nil
	case <-time.After(toolDeadline):
		return fmt.Errorf("lab: the anchor, process %d, does not end", a.pid)
	}
}

// root is the path by which the machine sees the lab's mounts; path is absolute.
func (a *anchor) root(path string) string {
	return filepath.Join("/proc", strconv.Itoa(a.pid), "root", path)
}

// netns is the lab's network namespace, as a file to open.
func (a *anchor) netns() string { return filepath.Join("/proc", strconv.Itoa(a.pid), "ns/net") }

// enter is the command line that runs argv in the lab's mount and network namespaces.
func (a *anchor) enter(argv ...string) []string {
	return append([]string{"nsenter", "-t", strconv.Itoa(a.pid), "-m", "-n", "--"}, argv...)
}

// overlay mounts, in the lab's namespace, a writable view of image at dir/root.
func (a *anchor) overlay(ctx context.Context, image, dir string) error {
	for _, d := range []string{"up", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for _, p := range []string{image, dir} {
		if strings.ContainsAny(p, ",:\\ ") {
			return fmt.Errorf("lab: the path %q has a character that overlayfs takes as its own: choose another folder", p)
		}
	}
	options := "lowerdir=" + image + ",upperdir=" + filepath.Join(dir, "up") + ",workdir=" + filepath.Join(dir, "work") + ",index=off"
	_, err := run(ctx, nil, a.enter("mount", "-t", "overlay", "-o", options, "overlay", filepath.Join(dir, "root"))...)
	return err
}
