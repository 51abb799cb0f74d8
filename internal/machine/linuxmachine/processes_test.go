package linuxmachine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

func TestIdentity(t *testing.T) {
	id := open(t).Ports().Identity
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || id.Host != fettle.HostSubject("test") || id.BootID != strings.TrimSpace(string(boot)) || id.Hostname == "" {
		t.Errorf("%+v, %v", id, err)
	}
	file := filepath.Join(t.TempDir(), "host-id")
	_, err = Open(t.Context(), Config{HostFile: file})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "join") {
		t.Errorf("not enrolled: %v, want a hint to join", err)
	}
	if err := os.WriteFile(file, []byte("01JD\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := Open(t.Context(), Config{HostFile: file})
	if err != nil || h.Ports().Identity.Host != fettle.HostSubject("01JD") {
		t.Errorf("%v, %v", h, err)
	}
	for _, cfg := range []Config{{}, {Host: "a b"}} {
		if _, err := Open(t.Context(), cfg); fettle.ClassOf(err) != fettle.Refused {
			t.Errorf("%+v: %v, want it refused", cfg, err)
		}
	}
}

func TestClock(t *testing.T) {
	c := open(t).Ports().Clock
	a := c.Now()
	ch, _ := c.After(time.Millisecond)
	if b := <-ch; b.Sub(a) < time.Millisecond {
		t.Errorf("After(1ms) came after %v", b.Sub(a))
	}
	never, stop := c.After(time.Hour)
	stop()
	select {
	case <-never:
		t.Error("a stopped timer came")
	default:
	}
	if d := c.Now().Sub(c.Wall()); d < -time.Minute || d > time.Minute {
		t.Errorf("Now and Wall differ by %v", d)
	}
	if now := c.Now(); now != now.Round(0) {
		t.Error("Now has a monotonic reading, which stands still during suspend")
	}
}

func TestCommands(t *testing.T) {
	run := open(t).Ports().Commands.Run
	ctx := t.Context()
	out, err := run(ctx, machine.Command{Path: "sh", Args: []string{"-c", `echo "$0 $PATH $X $HOME"; cat; pwd; echo err >&2; exit 3`}, Env: []string{"X=y"}, Stdin: []byte("in\n")})
	if err != nil || out.Exit != 3 || out.Signal != 0 || string(out.Stderr) != "err\n" || out.Truncated {
		t.Errorf("%+v, %v", out, err)
	}
	if want := "sh " + machine.StandardPath + " y \nin\n/\n"; !strings.HasSuffix(string(out.Stdout), want[3:]) {
		t.Errorf("stdout %q, want %q", out.Stdout, want)
	}
	out, err = run(ctx, machine.Command{Path: "sh", Args: []string{"-c", "printf 1234567890"}, Limit: 4})
	if err != nil || string(out.Stdout) != "1234" || !out.Truncated {
		t.Errorf("limit: %+v, %v", out, err)
	}
	out, err = run(ctx, machine.Command{Path: "sh", Args: []string{"-c", "kill -9 $$"}})
	if err != nil || out.Exit != -1 || out.Signal != 9 {
		t.Errorf("killed: %+v, %v", out, err)
	}
	if _, err = run(ctx, machine.Command{Path: "fettle-no-such-program"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err = run(ctx, machine.Command{Path: "./sh"}); fettle.ClassOf(err) != fettle.Refused {
		t.Errorf("relative: %v", err)
	}
	if _, err = run(ctx, machine.Command{Path: "/etc/passwd"}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("not a program: %v", err)
	}
}

// A command is killed with all that it started when its context ends.
func TestCommandEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		f, err := os.Open(pipe) // until the grandchild writes to it
		if err == nil {
			bufio.NewReader(f).ReadString('\n')
			f.Close()
		}
		cancel()
	}()
	_, err := open(t).Ports().Commands.Run(ctx, machine.Command{Path: "sh", Args: []string{"-c", `(echo here > "$0"; exec sleep 1000000) & wait`, pipe}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's error", err)
	}
}

// Something left behind that holds the pipe does not hold the caller.
func TestCommandThatLeavesAChild(t *testing.T) {
	out, err := open(t).Ports().Commands.Run(t.Context(), machine.Command{Path: "sh", Args: []string{"-c", "echo x; sleep 1000000 &"}})
	if err != nil || out.Exit != 0 || string(out.Stdout) != "x\n" || !out.Truncated {
		t.Errorf("%+v, %v", out, err)
	}
}

const holdArg = "fettle-test-hold"

// holdDeleted opens a file, removes it, and waits to be killed.
func holdDeleted(path string) {
	f, err := os.Create(path)
	if err == nil {
		_, err = f.Write(make([]byte, 100<<10))
	}
	if err == nil {
		err = errors.Join(f.Sync(), os.Remove(path))
	}
	fmt.Println(err)
	if err == nil {
		<-time.After(time.Hour)
	}
	f.Close()
}

func TestProcesses(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "held file")
	cmd := exec.Command(exe, holdArg, path)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	if line, err := bufio.NewReader(pipe).ReadString('\n'); err != nil || line != "<nil>\n" {
		t.Fatalf("holder: %q, %v", line, err)
	}
	s := open(t).Ports().Processes
	list, err := s.List(t.Context())
	i := slices.IndexFunc(list, func(p machine.Process) bool { return p.PID == cmd.Process.Pid })
	if err != nil || i < 0 {
		t.Fatalf("%d processes without ours, %v", len(list), err)
	}
	p := list[i]
	if !slices.Equal(p.Args, []string{exe, holdArg, path}) || p.StartTicks == 0 || len(p.State) != 1 || p.Command == "" {
		t.Errorf("%+v", p)
	}

	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	files, err := s.DeletedOpen(t.Context(), info.Sys().(*syscall.Stat_t).Dev)
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		t.Fatal(err)
	}
	i = slices.IndexFunc(files, func(f machine.OpenFile) bool { return f.Path == path })
	if i < 0 {
		t.Fatalf("not found in %+v", files)
	}
	if f := files[i]; f.Process.PID != p.PID || f.Process.StartTicks != p.StartTicks || f.Bytes < 100<<10 || !f.Writable || f.FD < 3 || f.Inode == 0 {
		t.Errorf("%+v", f)
	}
	if files, _ := s.DeletedOpen(t.Context(), 1<<40); len(files) != 0 {
		t.Errorf("on no device: %+v", files)
	}

	if err := s.Signal(t.Context(), p.PID, p.StartTicks+1, int(syscall.SIGKILL)); !errors.Is(err, machine.ErrOtherProcess) {
		t.Errorf("another start: %v, want ErrOtherProcess", err)
	}
	if err := s.Signal(t.Context(), p.PID, p.StartTicks, 99); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("signal 99: %v", err)
	}
	if err := s.Signal(t.Context(), p.PID, p.StartTicks, int(syscall.SIGKILL)); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("ended with %v", cmd.ProcessState)
	}
	if err := s.Signal(t.Context(), p.PID, p.StartTicks, int(syscall.SIGKILL)); !errors.Is(err, machine.ErrOtherProcess) {
		t.Errorf("after its end: %v, want ErrOtherProcess", err)
	}
}

// Without systemd everything about services says so, with what to do.
func TestWithoutSystemd(t *testing.T) {
	h, err := Open(t.Context(), Config{Host: "test", Run: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	s := h.Ports().Services
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, fettle.ErrNotSupported) || fettle.ClassOf(err) != fettle.Unsupported || !strings.Contains(err.Error(), "systemd") {
			t.Errorf("%s: %v, want not supported, and systemd named", what, err)
		}
	}
	_, err = s.Units(t.Context())
	check("Units", err)
	_, err = s.Start(t.Context(), "a.service")
	check("Start", err)
	check("Watch", s.Watch(t.Context(), func(machine.Unit) {}))
	_, err = s.Log(t.Context(), "a.service", 1)
	check("Log", err)
}

// TestCommandStreams: what a program writes can be had as it comes, and an account
// can be named, as which it runs.
func TestCommandStreams(t *testing.T) {
	run := open(t).Ports().Commands.Run
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	ours, theirs := io.Pipe()
	first := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(ours).ReadString('\n')
		_ = os.WriteFile(pipe, []byte("go on\n"), 0) // what it waits for
		first <- line
		_ = ours.Close()
	}()
	out, err := run(t.Context(), machine.Command{Path: "sh", Args: []string{"-c", `echo $HOME $USER; echo err >&2; read x <"$0"; exit 3`, pipe}, User: me.Username, Stdout: theirs, Stderr: &stderr})
	if err != nil || out.Exit != 3 || len(out.Stdout)+len(out.Stderr) != 0 || stderr.String() != "err\n" {
		t.Errorf("%+v %q, %v", out, stderr.String(), err)
	}
	if got, want := <-first, me.HomeDir+" "+me.Username+"\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if _, err := run(t.Context(), machine.Command{Path: "true", User: "no-such-account-x"}); fettle.ClassOf(err) != fettle.Refused {
		t.Errorf("an account that is not there: %v", err)
	}
	// As somebody else, which takes root: then nothing of us is left but the program.
	out, err = run(t.Context(), machine.Command{Path: "sh", Args: []string{"-c", "id -un; id -Gn"}, User: "nobody"})
	switch {
	case me.Uid == "0" && (err != nil || string(out.Stdout) != "nobody\nnogroup\n"):
		t.Errorf("%q %q, %v", out.Stdout, out.Stderr, err)
	case me.Uid != "0" && !errors.Is(err, fs.ErrPermission):
		t.Errorf("without root: %v", err)
	}
}
