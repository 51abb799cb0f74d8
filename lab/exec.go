package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// execDeadline bounds a command in a host whose caller set no deadline of its own.
const execDeadline = 2 * time.Minute

// Result is what became of a command in a host.
type Result struct {
	Stdout, Stderr string
	Code           int // exit status; 128+n if signal n ended it
}

// ExitError is a command that ran and said no.
type ExitError struct {
	Host string
	Argv []string
	Result
}

func (e *ExitError) Error() string {
	said := tail(e.Stderr, 800)
	if said == "" {
		said = tail(e.Stdout, 800)
	}
	return fmt.Sprintf("on %s: %s: exit status %d: %s", e.Host, strings.Join(e.Argv, " "), e.Code, said)
}

// Exec runs a command in the host, as root, in / and with a small environment, and waits for it. Its own error says that
// the command could not be run or was cut short; an exit status other than 0 is in the Result.
//
// The command enters the host's namespaces, its root, its cgroup (in all hierarchies) and its set of capabilities, so
// that clock and modules of the machine are out of its reach. It has no controlling terminal and, unlike the host's own
// processes, no seccomp filter. When ctx ends, or after two minutes if ctx has no deadline, the command and all that it
// started are killed. On a frozen host it hangs, as it would over a network. What it leaves running goes on.
func (h *Host) Exec(ctx context.Context, argv ...string) (Result, error) {
	return h.ExecInput(ctx, nil, argv...)
}

// ExecInput is Exec with a standard input; nil is empty.
func (h *Host) ExecInput(ctx context.Context, stdin io.Reader, argv ...string) (Result, error) {
	var out, errOut bytes.Buffer
	code, err := h.Stream(ctx, stdin, &out, &errOut, argv...)
	return Result{Stdout: out.String(), Stderr: errOut.String(), Code: code}, err
}

// Output is Exec for a command that is expected to succeed: it returns the standard output without white space around
// it, and a [*ExitError] for an exit status other than 0.
func (h *Host) Output(ctx context.Context, argv ...string) (string, error) {
	r, err := h.Exec(ctx, argv...)
	if err == nil && r.Code != 0 {
		err = &ExitError{Host: h.name, Argv: argv, Result: r}
	}
	return strings.TrimSpace(r.Stdout), err
}

// Shell is Output for a script of the host's /bin/sh, which ends at the first command that fails.
func (h *Host) Shell(ctx context.Context, script string) (string, error) {
	return h.Output(ctx, "sh", "-ec", script)
}

// Stream is Exec with the given streams, any of which may be nil. It returns the exit status.
func (h *Host) Stream(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, argv ...string) (int, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, execDeadline)
		defer cancel()
	}
	s, err := h.session(argv)
	if err != nil {
		return -1, fmt.Errorf("exec on %s: %w", h.name, err)
	}
	defer s.end()
	return s.run(ctx, stdin, stdout, stderr, h.name)
}

// session is a command on its way into a host, with a cgroup2 folder of its own by which it can be killed.
type session struct {
	dir  string
	argv []string // of the machine
	cmd  []string // as it was asked for
}

// session prepares to run argv in the host as it is now.
func (h *Host) session(argv []string) (*session, error) {
	if len(argv) == 0 {
		return nil, errors.New("no command given")
	}
	h.mu.Lock()
	b := h.boot
	h.execs++
	n := h.execs
	h.mu.Unlock()
	switch {
	case b == nil:
		return nil, ErrOff
	case b.leader() == 0:
		return nil, errors.New("it has only begun to boot: wait with WaitRunning")
	}
	return newSession(h.group, b.leader(), strconv.Itoa(n), argv)
}

// newSession needs only what another process can know too, so that the command line enters a host by the same way.
func newSession(group cgroup, leader int, name string, argv []string) (*session, error) {
	bounding, err := boundingSet(leader)
	if err != nil {
		return nil, err
	}
	s := &session{cmd: argv, dir: filepath.Join(group.v2(), "payload", "lab.exec", name)}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	procs := []string{filepath.Join(s.dir, "cgroup.procs")}
	for _, v1 := range group.in.v1 {
		procs = append(procs, filepath.Join(v1, group.rel, "cgroup.procs"))
	}
	target := strconv.Itoa(leader)
	s.argv = append([]string{"nsenter", "-t", target, "-p", "--"}, joining(procs, append([]string{
		"nsenter", "-t", target, "-m", "-u", "-i", "-n", "-C", "--",
		"/usr/bin/setpriv", "--bounding-set=" + bounding, "--",
		"/usr/bin/env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=dumb", "LANG=C.UTF-8",
	}, argv...)...)...)
	return s, nil
}

func (s *session) command(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.argv[0], s.argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error {
		// Children, grandchildren and the frozen: all are in the session's group, unless the first has not come to join it.
		events, err := os.ReadFile(filepath.Join(s.dir, "cgroup.events"))
		if err == nil && strings.Contains(string(events), "populated 1") {
			return os.WriteFile(filepath.Join(s.dir, "cgroup.kill"), []byte("1"), 0)
		}
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	cmd.WaitDelay = 2 * time.Second
	return cmd
}

// run runs the command to its end or that of ctx, and returns its exit status.
func (s *session) run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, host string) (int, error) {
	cmd := s.command(ctx)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return -1, fmt.Errorf("exec on %s: %s: cut short: %w", host, strings.Join(s.cmd, " "), context.Cause(ctx))
	}
	code, ok := exitCode(err)
	if !ok {
		return -1, fmt.Errorf("exec on %s: %w", host, err)
	}
	return code, nil
}

// end removes the session's folder, unless something that the command started still runs in it.
func (s *session) end() { os.Remove(s.dir) }

// boundingSet is the leader's capability bounding set in the words of setpriv(1).
func boundingSet(leader int) (string, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(leader), "status"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", ErrOff
	}
	if err != nil {
		return "", err
	}
	last, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return "", err
	}
	top, err := strconv.Atoi(strings.TrimSpace(string(last)))
	if err != nil {
		return "", fmt.Errorf("cap_last_cap: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			bits, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err != nil {
				return "", fmt.Errorf("capabilities of process %d: %w", leader, err)
			}
			return setprivSet(bits, top), nil
		}
	}
	return "", fmt.Errorf("capabilities of process %d: none named", leader)
}

// setprivSet writes a set of the capabilities 0 to top: "-all,+cap_0,…". By number, so that a setpriv older than the
// kernel knows them all.
func setprivSet(bits uint64, top int) string {
	var b strings.Builder
	b.WriteString("-all")
	for i := 0; i <= top && i < 64; i++ {
		if bits&(1<<i) != 0 {
			fmt.Fprintf(&b, ",+cap_%d", i)
		}
	}
	return b.String()
}
