//go:build labhost

package linuxmachine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"fettle/internal/machine"
	"fettle/internal/machine/machinetest"
)

// These tests take the machine that they run on for themselves: see
// TestOnALabHost.

const unitDir = "/etc/systemd/system"

func systemctl(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("systemctl", args...).CombinedOutput(); err != nil {
		t.Fatalf("systemctl %v: %v: %s", args, err, out)
	}
}

// install writes units, named fettle-test-NAME.service, enabled and inactive.
func install(t testing.TB, units map[string]string) {
	t.Helper()
	var names []string
	for name, service := range units {
		name = unit(name)
		text := "[Unit]\nStartLimitIntervalSec=0\n[Service]\n" + service + "\n[Install]\nWantedBy=multi-user.target\n"
		if err := os.WriteFile(filepath.Join(unitDir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	systemctl(t, append([]string{"enable", "--quiet"}, names...)...)
	systemctl(t, "daemon-reload")
}

func unit(name string) string { return "fettle-test-" + name + ".service" }

func helperUnit(kind, mode string) string {
	return "Type=" + kind + "\nExecStart=" + hostBinaryPath() + " " + machinetest.HelperArg + " " + mode
}

func hostBinaryPath() string {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return exe
}

var conformanceUnits = map[string]string{
	"steady":     helperUnit("notify", "steady") + "\nExecReload=/bin/kill -HUP $MAINPID",
	"failing":    helperUnit("exec", "exit3"),
	"brief":      helperUnit("exec", "exit0"),
	"noprogram":  "Type=exec\nExecStart=/nonexistent/program",
	"neverready": helperUnit("notify", "neverready") + "\nTimeoutStartSec=infinity",
	"stubborn":   helperUnit("notify", "stubborn") + "\nTimeoutStopSec=200ms",
	"plain":      "Type=exec\nExecStart=/bin/sleep infinity",
}

// TestSystemdServices runs the same suite as the pretend service managers.
func TestSystemdServices(t *testing.T) {
	install(t, conformanceUnits)
	if err := os.Symlink("/dev/null", filepath.Join(unitDir, unit("masked"))); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	systemctl(t, "daemon-reload")
	h := open(t)
	machinetest.RunServices(t, func(t *testing.T) machinetest.ServicesUnderTest {
		calm(t)
		return machinetest.ServicesUnderTest{
			Services: h.Ports().Services,
			Steady:   unit("steady"), Failing: unit("failing"), Brief: unit("brief"), NoProgram: unit("noprogram"),
			NeverReady: unit("neverready"), Stubborn: unit("stubborn"), Plain: unit("plain"), Masked: unit("masked"),
			Crash: func(t *testing.T, u machine.Unit) {
				if u.MainPID <= 1 {
					t.Fatalf("main process %d", u.MainPID)
				}
				if err := syscall.Kill(u.MainPID, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			},
			StopAsPerson: func(t *testing.T, name string) { systemctl(t, "stop", name) },
		}
	})
	calm(t)
}

// calm makes all test units inactive and not failed.
func calm(t testing.TB) {
	t.Helper()
	for name := range conformanceUnits {
		systemctl(t, "stop", unit(name))
	}
	systemctl(t, "reset-failed")
}

// Who stopped a unit is known also to a program that did not watch it: its own
// stops from its state directory, a person's from the journal.
func TestStoppedByIsRemembered(t *testing.T) {
	install(t, conformanceUnits)
	calm(t)
	state := t.TempDir()
	fresh := func() machine.Services {
		h, err := Open(t.Context(), Config{Host: "test", StateDir: state})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		return h.Ports().Services
	}
	want := func(when, by string) {
		t.Helper()
		if u, err := fresh().Unit(t.Context(), unit("plain")); err != nil || u.StoppedBy != by || up(u) {
			t.Errorf("%s: %s, stopped by %q, %v; want %q", when, u.ActiveState, u.StoppedBy, err, by)
		}
	}
	start := func() {
		t.Helper()
		if r, err := fresh().Start(t.Context(), unit("plain")); err != nil || r.Result != "done" {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	start()
	if _, err := fresh().Stop(t.Context(), unit("plain")); err != nil {
		t.Fatal(err)
	}
	want("own stop", machine.BySelf)
	start()
	systemctl(t, "stop", unit("plain"))
	want("a person's stop", machine.ByPerson)
	start()
	systemctl(t, "kill", "--signal=KILL", unit("plain"))
	waitFor(t, fresh(), unit("plain"), func(u machine.Unit) bool { return !up(u) })
	want("a crash", "")
	start()
	systemctl(t, "kill", "--signal=TERM", unit("plain"))
	waitFor(t, fresh(), unit("plain"), func(u machine.Unit) bool { return !up(u) })
	want("ended with success by itself", "")
}

func waitFor(t testing.TB, s machine.Services, name string, ok func(machine.Unit) bool) machine.Unit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var got machine.Unit
	s.Watch(ctx, func(u machine.Unit) {
		if ok(u) {
			got = u
			cancel()
		}
	}, name)
	if got.Name == "" {
		t.Fatalf("%s did not get there", name)
	}
	return got
}

// A stop by a dying process's own exit status is a person's, too: systemd calls
// the unit failed when it does not end with success.
func TestStopThatFails(t *testing.T) {
	install(t, map[string]string{"rude": "Type=exec\nExecStart=/bin/sh -c 'trap \"exit 143\" TERM; while :; do sleep 0.05; done'"})
	s := open(t).Ports().Services
	if _, err := s.Start(t.Context(), unit("rude")); err != nil {
		t.Fatal(err)
	}
	states := make(chan machine.Unit, 100)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Watch(ctx, func(u machine.Unit) { states <- u }, unit("rude")) }()
	<-states
	systemctl(t, "stop", unit("rude"))
	for u := range states {
		if u.ActiveState == "failed" {
			if u.Result != "exit-code" || u.StoppedBy != machine.ByPerson {
				t.Errorf("result %q, stopped by %q", u.Result, u.StoppedBy)
			}
			break
		}
	}
	cancel()
	<-ended
	systemctl(t, "reset-failed", unit("rude"))
}

// Watch sees units come, change on disk, and go.
func TestWatchFollowsUnitFiles(t *testing.T) {
	h := open(t)
	states := make(chan machine.Unit, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- h.Ports().Services.Watch(ctx, func(u machine.Unit) { states <- u }, "fettle-test-new*.service", "fettle-test-calls.service")
	}()
	next := func(what string, ok func(machine.Unit) bool) {
		t.Helper()
		late := time.After(time.Minute)
		for {
			select {
			case u := <-states:
				if ok(u) {
					return
				}
			case <-late:
				t.Fatalf("never told: %s", what)
			}
		}
	}
	next("the missing one", func(u machine.Unit) bool { return u.LoadState == "not-found" })
	install(t, map[string]string{"new1": "ExecStart=/bin/sleep infinity"})
	systemctl(t, "start", unit("new1"))
	next("running", func(u machine.Unit) bool {
		return u.ActiveState == "active" && u.UnitFileState == "enabled" && u.MainPID > 1
	})
	systemctl(t, "disable", "--quiet", unit("new1"))
	next("disabled", func(u machine.Unit) bool { return u.UnitFileState == "disabled" })
	systemctl(t, "stop", unit("new1"))
	next("stopped", func(u machine.Unit) bool { return u.ActiveState == "inactive" && u.StoppedBy == machine.ByPerson })
	systemctl(t, "mask", "--runtime", "--quiet", unit("new1"))
	if err := os.Remove(filepath.Join(unitDir, unit("new1"))); err != nil {
		t.Fatal(err)
	}
	systemctl(t, "unmask", "--runtime", "--quiet", unit("new1"))
	systemctl(t, "daemon-reload")
	next("gone", func(u machine.Unit) bool { return u.LoadState == "not-found" && u.Name == unit("new1") })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch ended with %v", err)
	}
}

// When systemd drops the connection Watch says so, and the next call connects
// again.
func TestLostConnection(t *testing.T) {
	s := open(t).Ports().Services
	started := make(chan struct{}, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- s.Watch(t.Context(), func(machine.Unit) {
			select {
			case started <- struct{}{}:
			default:
			}
		}, unit("plain"))
	}()
	<-started
	systemctl(t, "daemon-reexec")
	select {
	case err := <-ended:
		if !errors.Is(err, machine.ErrLost) {
			t.Errorf("Watch ended with %v, want ErrLost", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Watch did not notice")
	}
	if _, err := s.Units(t.Context(), "*.service"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// As an ordinary user everything can be read, and changing is a missing
// permission. The test runs itself again as nobody.
func TestOrdinaryUser(t *testing.T) {
	if os.Getenv(asUser) != "" {
		ordinaryUser(t)
		return
	}
	install(t, conformanceUnits)
	calm(t)
	systemctl(t, "start", unit("plain"))
	cmd := exec.Command(hostBinaryPath(), "-test.run=^TestOrdinaryUser$", "-test.v")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), asUser+"=1", "TMPDIR=/tmp")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
	calm(t)
}

const asUser = "FETTLE_TEST_AS_USER"

func ordinaryUser(t *testing.T) {
	m := open(t).Ports()
	ctx := t.Context()
	u, err := m.Services.Unit(ctx, unit("plain"))
	if err != nil || u.MainPID <= 1 || u.ActiveState != "active" {
		t.Errorf("Unit: %+v, %v", u, err)
	}
	waitFor(t, m.Services, unit("plain"), func(u machine.Unit) bool { return u.ActiveState == "active" })
	waitFor(t, m.Services, unit("steady"), func(u machine.Unit) bool { return u.ActiveState == "inactive" })
	denied := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v, want fs.ErrPermission", what, err)
		}
	}
	_, err = m.Services.Start(ctx, unit("steady"))
	denied("Start", err)
	_, err = m.Services.Stop(ctx, unit("plain"))
	denied("Stop", err)
	denied("ResetFailed", m.Services.ResetFailed(ctx, unit("plain")))
	denied("Kill", m.Services.Kill(ctx, unit("plain"), 15))
	denied("DaemonReload", m.Services.DaemonReload(ctx))
	denied("CheckWrite", m.Filesystems.CheckWrite(ctx, "/"))
	denied("WriteFile", m.Files.WriteFile(ctx, "/etc/hostname", nil, 0o644))
	_, err = m.Processes.DeletedOpen(ctx, 1)
	denied("DeletedOpen", err)
	denied("Signal", m.Processes.Signal(ctx, 1, startTicks(t, m, 1), 1))
	if u, err := m.Services.Unit(ctx, unit("plain")); err != nil || u.ActiveState != "active" {
		t.Errorf("afterwards: %s, %v", u.ActiveState, err)
	}
}

func startTicks(t *testing.T, m machine.Machine, pid int) uint64 {
	t.Helper()
	list, err := m.Processes.List(t.Context())
	i := slices.IndexFunc(list, func(p machine.Process) bool { return p.PID == pid })
	if err != nil || i < 0 {
		t.Fatalf("process %d is not there: %v", pid, err)
	}
	return list[i].StartTicks
}

// Two numbers that the whole product stands on: from SIGKILL to being told, and
// to the start job being accepted.
func TestLatency(t *testing.T) {
	install(t, conformanceUnits)
	calm(t)
	h := open(t)
	s := h.Ports().Services
	name := unit("plain")
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan time.Time, 1)
	ended := make(chan error, 1)
	ready := make(chan bool, 1)
	go func() {
		last := ""
		ended <- s.Watch(ctx, func(u machine.Unit) {
			select {
			case ready <- true:
			default:
			}
			// Once for each invocation: the queued start job is told of, too.
			if u.Name == name && u.ActiveState == "failed" && u.InvocationID != last {
				last = u.InvocationID
				told <- h.Ports().Clock.Now()
			}
		}, "*.service")
	}()
	<-ready
	var toldAfter, issuedAfter, runningAfter []time.Duration
	for range 50 {
		if r, err := s.Start(ctx, name); err != nil || r.Result != "done" {
			t.Fatalf("%+v, %v", r, err)
		}
		u, err := s.Unit(ctx, name)
		if err != nil || u.MainPID <= 1 {
			t.Fatalf("main process %d, %v", u.MainPID, err)
		}
		killed := h.Ports().Clock.Now()
		if err := syscall.Kill(u.MainPID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		var at time.Time
		select {
		case at = <-told:
		case <-time.After(time.Minute):
			now, err := s.Unit(ctx, name)
			t.Fatalf("not told of the end of %d (%s); it is %+v, %v", u.MainPID, u.InvocationID, now, err)
		}
		r, err := s.Start(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		toldAfter = append(toldAfter, at.Sub(killed))
		issuedAfter = append(issuedAfter, r.Issued.Sub(killed))
		runningAfter = append(runningAfter, r.Issued.Add(r.Took).Sub(killed))
	}
	cancel()
	<-ended
	for _, m := range []struct {
		what string
		d    []time.Duration
	}{{"told", toldAfter}, {"start accepted", issuedAfter}, {"start job done", runningAfter}} {
		slices.Sort(m.d)
		fmt.Printf("LATENCY from SIGKILL to %s: median %d µs, p90 %d µs, worst %d µs of %d\n",
			m.what, m.d[len(m.d)/2].Microseconds(), m.d[len(m.d)*9/10].Microseconds(), m.d[len(m.d)-1].Microseconds(), len(m.d))
	}
	begin := time.Now()
	list, err := s.Units(t.Context(), "*.service")
	fmt.Printf("LATENCY all services: %d in %d µs, %v\n", len(list), time.Since(begin).Microseconds(), err)
}
