package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Proc is a command that runs in the background of a host, as a transient systemd unit of it: with the capabilities,
// the seccomp filter and a cgroup of its own as every service there has them. It ends with the host's power.
type Proc struct {
	Unit string // "lab-1.service"
	Log  string // the file in the host that its standard output and error are appended to

	host *Host
	done chan struct{}
	code int
	err  error
}

// Start runs a command in the background of the host and returns when it has been started; ctx bounds only that. The
// command outlives ctx, and ends by itself, by [Proc.Stop], or with the power of the host.
func (h *Host) Start(ctx context.Context, argv ...string) (*Proc, error) {
	h.mu.Lock()
	h.execs++
	name := "lab-" + strconv.Itoa(h.execs)
	h.mu.Unlock()
	p := &Proc{Unit: name + ".service", Log: "/var/log/lab/" + name + ".log", host: h, done: make(chan struct{})}
	if err := h.WriteFile(p.Log, nil, 0o644); err != nil {
		return nil, err
	}
	// systemd-run waits for the unit's end and hands on its exit status; it says on standard error when the unit has
	// been started. --expand-environment does not exist before systemd 254, so a $ must be doubled by hand.
	run := []string{"systemd-run", "--wait", "--collect", "--service-type=exec", "--unit=" + p.Unit,
		"--property=StandardOutput=append:" + p.Log, "--property=StandardError=append:" + p.Log, "--"}
	for _, a := range argv {
		run = append(run, strings.ReplaceAll(a, "$", "$$"))
	}
	s, err := h.session(run)
	if err != nil {
		return nil, fmt.Errorf("start on %s: %w", h.name, err)
	}
	life, stop := context.WithCancel(h.lab.life)
	cmd := s.command(life)
	said, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		stop()
		s.end()
		return nil, fmt.Errorf("start on %s: %w", h.name, err)
	}
	began := make(chan bool, 1)
	var talk strings.Builder
	watch := func() {
		defer stop()
		defer close(p.done)
		var once sync.Once
		lines := bufio.NewScanner(said)
		for lines.Scan() {
			fmt.Fprintln(&talk, lines.Text())
			if strings.HasPrefix(lines.Text(), "Running as unit:") {
				once.Do(func() { began <- true })
			}
		}
		err := cmd.Wait()
		s.end()
		var ok bool
		if p.code, ok = exitCode(err); !ok {
			p.err = err
		}
		once.Do(func() { began <- false })
	}
	if err := h.lab.started(watch); err != nil {
		stop()
		watch()
		return nil, err
	}
	select {
	case ok := <-began:
		if ok {
			return p, nil
		}
		<-p.done
		return nil, fmt.Errorf("start on %s: %s: %w", h.name, strings.Join(argv, " "), errors.Join(p.err, errors.New(tail(talk.String(), 800))))
	case <-ctx.Done():
		stop()
		<-p.done
		return nil, fmt.Errorf("start on %s: %s: %w", h.name, strings.Join(argv, " "), context.Cause(ctx))
	}
}

// Done is closed when the command has ended or its host has lost power.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the command and returns its exit status: 137 also when the host's power was cut.
func (p *Proc) Wait(ctx context.Context) (int, error) {
	select {
	case <-p.done:
		return p.code, p.err
	case <-ctx.Done():
		return -1, fmt.Errorf("wait for %s on %s: %w", p.Unit, p.host.name, context.Cause(ctx))
	}
}

// Output is all that the command has written so far.
func (p *Proc) Output() (string, error) {
	data, err := p.host.ReadFile(p.Log)
	return string(data), err
}

var mainPID = regexp.MustCompile(`^MainPID=([0-9]+)$`)

// PID is the command's process id inside the host.
func (p *Proc) PID(ctx context.Context) (int, error) {
	out, err := p.host.Output(ctx, "systemctl", "show", "--property=MainPID", p.Unit)
	if err != nil {
		return 0, err
	}
	m := mainPID.FindStringSubmatch(out)
	if m == nil || m[1] == "0" {
		return 0, fmt.Errorf("%s on %s: not running", p.Unit, p.host.name)
	}
	return strconv.Atoi(m[1])
}

// Signal sends a signal to the command itself, not to its children.
func (p *Proc) Signal(ctx context.Context, sig syscall.Signal) error {
	_, err := p.host.Output(ctx, "systemctl", "kill", "--kill-whom=main", "--signal="+strconv.Itoa(int(sig)), p.Unit)
	return err
}

// Stop ends the command as systemd ends a service, and waits for it. A command that has ended is no error.
func (p *Proc) Stop(ctx context.Context) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if _, err := p.host.Output(ctx, "systemctl", "stop", p.Unit); err != nil {
		return err
	}
	_, err := p.Wait(ctx)
	return err
}
