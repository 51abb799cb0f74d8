package procservices

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"fettle/internal/machine"
	"fettle/internal/machine/units"
)

// exitChdir is what systemd reports when the working directory cannot be entered
// (systemd.exec(5), EXIT_CHDIR).
const exitChdir = 200

// child is one main process, from before its fork until it has been reaped.
// Services.mu guards it.
type child struct {
	invocation string
	pid        int // 0: not forked yet, or reaped
	wanted     syscall.Signal
	ended      bool
}

// signal sends a signal to the process or its whole group, or remembers it until
// there is one. The process is not reaped while Services.mu is held, so its
// number is its own.
func (c *child) signal(signal syscall.Signal, all bool) {
	switch {
	case c.ended:
	case c.pid == 0:
		c.wanted = signal
	case all:
		// No process left in the group is what was wanted.
		_ = syscall.Kill(-c.pid, signal)
	default:
		_ = syscall.Kill(c.pid, signal)
	}
}

// spawn starts one process, which c is from then on, and what watches it.
func (s *Services) spawn(o order, c *child) {
	s.mu.Lock()
	d, log := s.definitions[o.name], s.logs[o.name]
	s.mu.Unlock()
	log.reset()

	ev := units.Event{Unit: o.name, Invocation: o.invocation}
	fail := func(status int, failure string, err error) {
		log.add(fmt.Sprintf("(not started: %v)", err))
		s.mu.Lock()
		if s.children[o.name] == c {
			delete(s.children, o.name)
		}
		s.mu.Unlock()
		ev.What, ev.Status, ev.Failure = units.NotSpawned, status, failure
		s.engine.Tell(ev)
	}
	cmd, err := d.command()
	if err != nil {
		fail(0, "resources", err)
		return
	}
	if _, err := os.Stat(d.Dir); err != nil {
		fail(exitChdir, "", err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background()) // ended by the process's end
	ready, err := d.Ready.prepare(o.invocation, cmd)
	if err != nil {
		cancel()
		fail(0, "resources", err)
		return
	}
	out, in, err := os.Pipe()
	if err != nil {
		cancel()
		ready.close()
		fail(0, "resources", err)
		return
	}
	cmd.Stdout, cmd.Stderr = in, in
	err = cmd.Start()
	in.Close()
	if err != nil {
		cancel()
		ready.close()
		out.Close()
		fail(units.ExitExec, "", err)
		return
	}
	var file *os.File
	if d.LogFile != "" {
		if file, err = openLog(d.LogFile); err != nil {
			log.add(fmt.Sprintf("(log file: %v; nothing is written to it)", err))
			file = nil
		}
	}

	s.mu.Lock()
	c.pid = cmd.Process.Pid
	if c.wanted != 0 {
		c.signal(c.wanted, true)
	}
	s.mu.Unlock()
	ev.What, ev.PID = units.Spawned, cmd.Process.Pid
	s.engine.Tell(ev)
	s.watchers.Go(func() { log.drain(out, file) })
	isReady := ev
	isReady.What = units.Ready
	if d.Ready == (Ready{}) {
		s.engine.Tell(isReady) // before its end can be told: it was started
	} else {
		s.watchers.Go(func() {
			defer ready.close()
			if ready.wait(ctx) {
				s.engine.Tell(isReady)
			}
		})
	}
	s.watchers.Go(func() {
		defer cancel()
		s.await(o.name, c, cmd, ev)
	})
}

// await waits for the end of the process, kills what it left in its group, and
// tells.
func (s *Services) await(name string, c *child, cmd *exec.Cmd, ev units.Event) {
	for { // until it is a zombie, whose number is still its own
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	s.mu.Lock()
	_ = syscall.Kill(-c.pid, syscall.SIGKILL) // no such group: nothing was left
	c.ended = true
	if s.children[name] == c {
		delete(s.children, name)
	}
	s.mu.Unlock()
	_ = cmd.Wait() // reaps; its error is the exit status, which is read below
	ev.What = units.Exited
	ev.Code, ev.Status = exitOf(cmd.ProcessState)
	s.engine.Tell(ev)
}

func exitOf(state *os.ProcessState) (code, status int) {
	ws, ok := state.Sys().(syscall.WaitStatus)
	switch {
	case !ok:
		return units.CLDExited, state.ExitCode()
	case ws.Signaled() && ws.CoreDump():
		return units.CLDDumped, int(ws.Signal())
	case ws.Signaled():
		return units.CLDKilled, int(ws.Signal())
	}
	return units.CLDExited, ws.ExitStatus()
}

// command makes the command with its environment as the files say now.
func (d Definition) command() (*exec.Cmd, error) {
	env := []string{"PATH=" + machine.StandardPath, "LANG=C.UTF-8"}
	if d.EnvFile != "" {
		path, optional := strings.CutPrefix(d.EnvFile, "-")
		data, err := os.ReadFile(path)
		if err != nil && !(optional && errors.Is(err, fs.ErrNotExist)) {
			return nil, fmt.Errorf("environment of %s: %w", d.Name, err)
		}
		all, err := machine.ParseEnvironment(data)
		if err != nil {
			return nil, fmt.Errorf("environment of %s: %s: %w", d.Name, path, err)
		}
		for _, a := range all {
			env = append(env, a.Key+"="+a.Value)
		}
	}
	return &exec.Cmd{
		Path: d.Argv[0], Args: d.Argv, Env: append(env, d.Env...), Dir: d.Dir,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}, nil
}
