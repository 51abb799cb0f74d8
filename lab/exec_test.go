//go:build lab

package lab

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestExecIsInsideTheHost(t *testing.T) {
	ctx := testContext(t)
	l := startLab(t, 1)
	h := l.Host(1)
	r, err := h.Exec(ctx, "sh", "-c", "echo out; echo err >&2; exit 7")
	if err != nil || r != (Result{Stdout: "out\n", Stderr: "err\n", Code: 7}) {
		t.Errorf("got %+v, %v", r, err)
	}
	if _, err := h.Output(ctx, "false"); err == nil {
		t.Error("Output of a failed command is no error")
	}
	if r, err := h.ExecInput(ctx, strings.NewReader("told"), "cat"); err != nil || r.Stdout != "told" {
		t.Errorf("standard input: %+v, %v", r, err)
	}
	// The clock and the modules of the machine are out of reach.
	for _, of := range []string{"self", "1"} { // a command, and process 1, whose set it is to have
		status := output(t, h, "cat", "/proc/"+of+"/status")
		bits, err := strconv.ParseUint(strings.TrimSpace(regexp.MustCompile(`CapBnd:\s*(\w+)`).FindStringSubmatch(status)[1]), 16, 64)
		if err != nil || bits == 0 || bits&(1<<unix.CAP_SYS_TIME|1<<unix.CAP_SYS_MODULE) != 0 {
			t.Errorf("capabilities %x, %v", bits, err)
		}
	}
	if r, err := h.Exec(ctx, "date", "-s", "@0"); err != nil || r.Code == 0 {
		t.Errorf("set the clock: %+v, %v", r, err)
	}
	if got := output(t, h, "cat", "/proc/self/cgroup"); !strings.Contains(got, "0::/lab.exec/") {
		t.Errorf("cgroup of a command: %s", got)
	}
	if now := time.Now(); now.Year() < 2020 {
		t.Fatal("the clock of this machine was set")
	}
}

func TestExecIsKilledWithItsChildren(t *testing.T) {
	ctx := testContext(t)
	l := startLab(t, 1)
	h := l.Host(1)
	if _, err := h.Shell(ctx, "mkfifo /run/started"); err != nil {
		t.Fatal(err)
	}
	life, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := h.Exec(life, "sh", "-c", "setsid sleep 987654 & echo >/run/started; wait")
		ended <- err
	}()
	output(t, h, "cat", "/run/started")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("cut short with %v", err)
	}
	if r, err := h.Exec(ctx, "pgrep", "-f", "sleep 987654"); err != nil || r.Code != 1 {
		t.Errorf("a grandchild is left: %+v, %v", r, err)
	}
}

func TestBackgroundCommand(t *testing.T) {
	ctx := testContext(t)
	l := startLab(t, 1)
	h := l.Host(1)
	// The shell must get the dollars as they were given, and the output must be there before the end.
	output(t, h, "mkfifo", "/run/began", "/run/go")
	p, err := h.Start(ctx, "sh", "-c", `echo "one $0"; echo x >/run/began; read x </run/go; echo two >&2; exit 3`)
	if err != nil {
		t.Fatal(err)
	}
	output(t, h, "cat", "/run/began")
	if out, err := p.Output(); err != nil || out != "one /usr/bin/sh\n" && out != "one sh\n" {
		t.Errorf("output so far %q, %v", out, err)
	}
	if _, err := h.Shell(ctx, "echo >/run/go"); err != nil {
		t.Fatal(err)
	}
	code, err := p.Wait(ctx)
	if out, oerr := p.Output(); err != nil || oerr != nil || code != 3 || !strings.HasSuffix(out, "two\n") {
		t.Errorf("code %d, output %q, %v, %v", code, out, err, oerr)
	}
	if _, err := h.Start(ctx, "/no/such/program"); err == nil {
		t.Error("started a program that does not exist")
	}
	p, err = h.Start(ctx, "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := p.PID(ctx); err != nil || pid < 2 {
		t.Errorf("pid %d, %v", pid, err)
	}
	if err := p.Signal(ctx, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code, err := p.Wait(ctx); err != nil || code == 0 {
		t.Errorf("a killed command ended with %d, %v", code, err)
	}
	p, err = h.Start(ctx, "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	if code, err := p.Wait(ctx); err != nil || code == 0 {
		t.Errorf("a command on a host that lost power ended with %d, %v", code, err)
	}
}

func TestFilesStayInsideTheHost(t *testing.T) {
	ctx := testContext(t)
	l := startLab(t, 1)
	h := l.Host(1)
	canary := filepath.Join(t.TempDir(), "canary")
	if err := os.WriteFile(canary, []byte("outside"), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(state string) {
		if err := h.WriteFile("/srv/a/b/file", []byte("text"), 0o640); err != nil {
			t.Fatalf("%s: %v", state, err)
		}
		if got, err := h.ReadFile("/srv/a/b/file"); err != nil || string(got) != "text" {
			t.Errorf("%s: read back %q, %v", state, got, err)
		}
		if _, err := h.ReadFile("/srv/out/canary"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: read through a link that leads out: %v", state, err)
		}
		if err := h.WriteFile("/srv/out/canary", []byte("inside"), 0o600); err == nil {
			t.Errorf("%s: wrote through a link that leads nowhere in the host", state)
		}
		if err := h.WriteFile("/", nil, 0o600); err == nil {
			t.Errorf("%s: wrote the root", state)
		}
	}
	if _, err := h.Exec(ctx, "ln", "-s", filepath.Dir(canary), "/srv/out"); err != nil {
		t.Fatal(err)
	}
	check("on")
	if got := output(t, h, "stat", "-c", "%a %U", "/srv/a/b/file"); got != "640 root" {
		t.Errorf("file is %s", got)
	}
	if err := h.WriteFile("/run/in-tmpfs", []byte("seen"), 0o600); err != nil || output(t, h, "cat", "/run/in-tmpfs") != "seen" {
		t.Errorf("a file in a mounted folder: %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time over a running program's file
		if err := h.CopyIn(self, "/usr/local/bin/copied"); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Start(ctx, "/usr/local/bin/copied", "-test.run=^TestNone$"); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Remove("/srv/a/b/file"); err != nil {
		t.Fatal(err)
	}
	if err := h.Remove("/srv/a/b"); err != nil {
		t.Fatal(err)
	}
	if err := h.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	check("off")
	if got, err := os.ReadFile(canary); err != nil || string(got) != "outside" {
		t.Errorf("a file of the machine was changed: %q, %v", got, err)
	}
}
