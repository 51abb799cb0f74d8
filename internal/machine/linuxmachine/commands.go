package linuxmachine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

const (
	outputLimit = 1 << 20 // of stdout and stderr each, unless the caller says another

	// drainDelay is how long output is read after the program has ended, when
	// something that it started still holds the pipe.
	drainDelay = 500 * time.Millisecond

	// A killed program that does not end is in the kernel (state D): it is left
	// there after killDelay, and with maxUnkillable of them nothing more is run.
	killDelay     = 2 * time.Second
	maxUnkillable = 8
)

// commands is the Commands port, the one place that runs programs.
type commands struct {
	unkillable atomic.Int32
}

func (s *commands) Run(ctx context.Context, c machine.Command) (machine.Output, error) {
	wrap := func(err error) error { return fmt.Errorf("run %s: %w", c.Path, err) }
	if err := ctx.Err(); err != nil {
		return machine.Output{}, wrap(err)
	}
	if n := s.unkillable.Load(); n >= maxUnkillable {
		return machine.Output{}, wrap(fmt.Errorf("%d programs cannot be killed: %w", n, machine.ErrHung))
	}
	path, err := lookUp(c.Path)
	if err != nil {
		return machine.Output{}, wrap(err)
	}
	limit := c.Limit
	if limit <= 0 {
		limit = outputLimit
	}
	stdout, stderr := &limited{limit: limit}, &limited{limit: limit}
	cmd := exec.CommandContext(ctx, path, c.Args...)
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=" + machine.StandardPath, "LANG=C.UTF-8"}, c.Env...)
	cmd.Stdin = bytes.NewReader(c.Stdin)
	if len(c.Stdin) == 0 {
		cmd.Stdin = nil // /dev/null
	}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if c.Stdout != nil {
		cmd.Stdout = c.Stdout
	}
	if c.Stderr != nil {
		cmd.Stderr = c.Stderr
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c.User != "" {
		if err := become(cmd, c.User); err != nil {
			return machine.Output{}, wrap(err)
		}
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = drainDelay
	if err := cmd.Start(); err != nil {
		return machine.Output{}, wrap(bare(err))
	}

	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		late := time.NewTimer(killDelay)
		defer late.Stop()
		select {
		case err = <-ended:
		case <-late.C:
			s.unkillable.Add(1)
			go func() {
				<-ended //nolint:errcheck // that it ended is all there is to know
				s.unkillable.Add(-1)
			}()
			return machine.Output{Exit: -1}, wrap(fmt.Errorf("it does not end when killed: %w", ctx.Err()))
		}
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		// What still holds the pipes keeps the group's number taken.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	out := machine.Output{Exit: cmd.ProcessState.ExitCode(), Stdout: stdout.take(), Stderr: stderr.take()}
	out.Truncated = stdout.cut || stderr.cut || errors.Is(err, exec.ErrWaitDelay)
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		out.Exit, out.Signal = -1, int(ws.Signal())
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil && out.Exit != 0:
		return out, wrap(ctx.Err())
	case err == nil, errors.As(err, &exit), errors.Is(err, exec.ErrWaitDelay), ctx.Err() != nil:
		return out, nil
	}
	return out, wrap(err)
}

// lookUp finds a program in the standard directories, whatever PATH says.
func lookUp(name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	if name == "" || strings.Contains(name, "/") {
		return "", fettle.Refuse("command", "", "give a program's name or its absolute path", "%q is a relative path", name)
	}
	for dir := range strings.SplitSeq(machine.StandardPath, ":") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("not found in %s: %w", machine.StandardPath, fs.ErrNotExist)
}

// limited keeps the first bytes and counts the rest as cut. exec calls Write from
// one goroutine, and take is called when that has ended.
type limited struct {
	limit int
	kept  bytes.Buffer
	cut   bool
}

func (l *limited) Write(p []byte) (int, error) {
	room := min(len(p), l.limit-l.kept.Len())
	l.kept.Write(p[:room])
	l.cut = l.cut || room < len(p)
	return len(p), nil
}

func (l *limited) take() []byte { return l.kept.Bytes() }
