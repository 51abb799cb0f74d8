package procservices_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"fettle/internal/machine"
	"fettle/internal/machine/loopback"
	"fettle/internal/machine/machinetest"
	"fettle/internal/machine/procservices"
)

func TestMain(m *testing.M) {
	machinetest.Helper()
	if len(os.Args) > 1 && os.Args[1] == parentArg {
		beParent()
		return
	}
	goleak.VerifyTestMain(m)
}

// run makes a service manager that runs until the test ends.
func run(t *testing.T) *procservices.Services {
	t.Helper()
	s := procservices.New(time.Now)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

func self(t testing.TB) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

func define(t *testing.T, s *procservices.Services, d procservices.Definition) string {
	t.Helper()
	d.Name += ".service"
	if d.StopTimeout == 0 {
		d.StopTimeout = 10 * time.Second
	}
	if err := s.Define(d); err != nil {
		t.Fatal(err)
	}
	return d.Name
}

func TestServices(t *testing.T) {
	exe := self(t)
	helper := func(mode string) []string { return []string{exe, machinetest.HelperArg, mode} }
	notify := procservices.Ready{Notify: true}
	machinetest.RunServices(t, func(t *testing.T) machinetest.ServicesUnderTest {
		s := run(t)
		u := machinetest.ServicesUnderTest{
			Services:   s,
			Steady:     define(t, s, procservices.Definition{Name: "steady", Argv: helper("steady"), Ready: notify, Reload: int(syscall.SIGHUP)}),
			Failing:    define(t, s, procservices.Definition{Name: "failing", Argv: helper("exit3")}),
			Brief:      define(t, s, procservices.Definition{Name: "brief", Argv: helper("exit0")}),
			NoProgram:  define(t, s, procservices.Definition{Name: "noprogram", Argv: []string{"/nonexistent/program"}}),
			NeverReady: define(t, s, procservices.Definition{Name: "neverready", Argv: helper("neverready"), Ready: notify}),
			Stubborn:   define(t, s, procservices.Definition{Name: "stubborn", Argv: helper("stubborn"), Ready: notify, StopTimeout: 50 * time.Millisecond}),
			Plain:      define(t, s, procservices.Definition{Name: "plain", Argv: []string{"/bin/sleep", "1000000"}}),
			Masked:     define(t, s, procservices.Definition{Name: "masked", Argv: helper("steady")}),
			Crash: func(t *testing.T, u machine.Unit) {
				if err := syscall.Kill(u.MainPID, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			},
			StopAsPerson: func(t *testing.T, name string) {
				if _, err := s.StopAsPerson(t.Context(), name); err != nil {
					t.Fatal(err)
				}
			},
		}
		if err := s.Mask(u.Masked); err != nil {
			t.Fatal(err)
		}
		return u
	})
}

func start(t *testing.T, s machine.Services, name string) machine.Unit {
	t.Helper()
	if r, err := s.Start(t.Context(), name); err != nil || r.Result != "done" {
		log, _ := s.Log(t.Context(), name, 20)
		t.Fatalf("start %s: %+v, %v, log %q", name, r, err, log)
	}
	u, err := s.Unit(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func stop(t *testing.T, s machine.Services, name string) {
	t.Helper()
	if r, err := s.Stop(t.Context(), name); err != nil || r.Result != "done" {
		t.Fatalf("stop %s: %+v, %v", name, r, err)
	}
}

// waitLog follows the log until it has want.
func waitLog(t *testing.T, s machine.Services, name, want string) []string {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; <-time.After(5 * time.Millisecond) {
		lines, err := s.Log(t.Context(), name, 100)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("log %q, %v; want %q", lines, err, want)
		}
		if slices.Contains(lines, want) {
			return lines
		}
	}
}

// The environment file is read at each start.
func TestEnvironmentFile(t *testing.T) {
	s := run(t)
	file := filepath.Join(t.TempDir(), "env")
	name := define(t, s, procservices.Definition{
		Name: "env", EnvFile: file, Env: []string{"C=own"},
		Argv: []string{"/bin/sh", "-c", `echo "A=$A B=$B C=$C"; exec sleep 1000000`},
	})
	if r, err := s.Start(t.Context(), name); err != nil || r.Result != "failed" {
		t.Errorf("without its environment file: %+v, %v", r, err)
	}
	if u, _ := s.Unit(t.Context(), name); u.Result != "resources" {
		t.Errorf("result %q, want resources", u.Result)
	}
	for i := range 2 {
		if err := os.WriteFile(file, fmt.Appendf(nil, "A=%d\nB='x y'\nC=file\n", i), 0o600); err != nil {
			t.Fatal(err)
		}
		start(t, s, name)
		waitLog(t, s, name, fmt.Sprintf("A=%d B=x y C=own", i))
		stop(t, s, name)
	}
}

func TestReadyByTCP(t *testing.T) {
	s := run(t)
	address := loopback.Address(t)
	name := define(t, s, procservices.Definition{
		Name: "tcp", Argv: []string{"/bin/sleep", "1000000"}, Ready: procservices.Ready{TCP: address},
	})
	watch := make(chan machine.Unit, 10)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Watch(ctx, func(u machine.Unit) { watch <- u }, name) }()
	started := make(chan machine.JobResult, 1)
	go func() {
		r, _ := s.Start(t.Context(), name)
		started <- r
	}()
	for u := range watch {
		if u.ActiveState == "activating" && u.MainPID != 0 {
			break
		}
	}
	defer loopback.Listen(t, address).Close()
	if r := <-started; r.Result != "done" {
		t.Errorf("start: %+v", r)
	}
	cancel()
	<-ended
}

func TestLogFile(t *testing.T) {
	s := run(t)
	file := filepath.Join(t.TempDir(), "a.log")
	name := define(t, s, procservices.Definition{Name: "a", LogFile: file, Argv: []string{"/bin/sh", "-c", "echo one; echo two >&2"}})
	for range 2 {
		if _, err := s.Start(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		waitLog(t, s, name, "two")
		ctx, cancel := context.WithCancel(t.Context())
		s.Watch(ctx, func(u machine.Unit) {
			if u.ActiveState == "inactive" {
				cancel()
			}
		}, name)
	}
	if lines := waitLog(t, s, name, "two"); !slices.Equal(lines, []string{"one", "two"}) {
		t.Errorf("log %q, want that of the last start", lines)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "one\ntwo\none\ntwo\n" {
		t.Errorf("file %q, %v", data, err)
	}
}

func TestBadDefinitions(t *testing.T) {
	s := procservices.New(time.Now)
	for _, d := range []procservices.Definition{
		{Name: "a", Argv: []string{"/bin/true"}},
		{Name: "../a.service", Argv: []string{"/bin/true"}},
		{Name: "a.service"},
		{Name: "a.service", Argv: []string{"true"}},
		{Name: "a.service", Argv: []string{"/bin/true"}, Ready: procservices.Ready{TCP: "127.0.0.1:1", Notify: true}},
	} {
		if err := s.Define(d); err == nil {
			t.Errorf("accepted %+v", d)
		}
	}
}

// BenchmarkTold measures from SIGKILL to the watcher.
func BenchmarkTold(b *testing.B) {
	s := procservices.New(time.Now)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- s.Run(ctx) }()
	if err := s.Define(procservices.Definition{Name: "a.service", Argv: []string{"/bin/sleep", "1000000"}}); err != nil {
		b.Fatal(err)
	}
	failed := make(chan time.Time, 1)
	go func() {
		ended <- s.Watch(ctx, func(u machine.Unit) {
			if u.ActiveState == "failed" {
				failed <- time.Now()
			}
		}, "a.service")
	}()
	var total time.Duration
	for b.Loop() {
		if _, err := s.Start(ctx, "a.service"); err != nil {
			b.Fatal(err)
		}
		u, _ := s.Unit(ctx, "a.service")
		at := time.Now()
		syscall.Kill(u.MainPID, syscall.SIGKILL)
		total += (<-failed).Sub(at)
	}
	b.ReportMetric(float64(total.Microseconds())/float64(b.N), "µs/told")
	cancel()
	<-ended
	<-ended
}
