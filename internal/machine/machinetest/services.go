package machinetest

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// patience bounds a wait for an event. It is reached only by a failing test.
const patience = 60 * time.Second

// ServicesUnderTest is a service manager with these units, loaded and inactive.
// Their main processes behave as their names say.
type ServicesUnderTest struct {
	Services machine.Services

	Steady     string // runs until SIGTERM, logs "steady began" first; enabled; reloads on SIGHUP
	Failing    string // is ready, and ends at once with status 3
	Brief      string // is ready, and ends at once with status 0
	NoProgram  string // its program does not exist
	NeverReady string // never says that it is ready
	Stubborn   string // ignores SIGTERM; its stop timeout is short
	Plain      string // as Steady, knows no reload
	Masked     string

	// Crash kills a main process as a bug in it would, not through Services.
	Crash func(t *testing.T, u machine.Unit)
	// StopAsPerson stops a unit as somebody at a terminal would.
	StopAsPerson func(t *testing.T, name string)
}

// RunServices runs the suite. open makes a fresh service manager for each test,
// or gives the same one with all units inactive and not failed.
func RunServices(t *testing.T, open func(t *testing.T) ServicesUnderTest) {
	tests := []struct {
		name string
		run  func(*testing.T, *servicesTest)
	}{
		{"Inactive", testInactive},
		{"StartAndStop", testStartAndStop},
		{"StartIsIdempotent", testStartIsIdempotent},
		{"Restart", testRestart},
		{"Crash", testCrash},
		{"ExitStatus", testExitStatus},
		{"CleanExit", testCleanExit},
		{"NoProgram", testNoProgram},
		{"StopByPerson", testStopByPerson},
		{"Stubborn", testStubborn},
		{"StopCancelsStart", testStopCancelsStart},
		{"ContextEndsWait", testContextEndsWait},
		{"Kill", testKill},
		{"ResetFailed", testResetFailed},
		{"Reload", testReload},
		{"Refusals", testRefusals},
		{"Log", testLog},
		{"Units", testUnits},
		{"WatchMissing", testWatchMissing},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			tt.run(t, &servicesTest{ServicesUnderTest: open(t), ctx: ctx})
		})
	}
}

type servicesTest struct {
	ServicesUnderTest
	ctx context.Context
}

func testInactive(t *testing.T, s *servicesTest) {
	u := s.unit(t, s.Steady)
	wantState(t, u, "inactive", "dead", "success")
	if u.LoadState != "loaded" || u.UnitFileState != "enabled" || u.MainPID != 0 || u.StoppedBy != "" || u.Restart != "no" {
		t.Errorf("never started: %+v", u)
	}
	if u := s.unit(t, s.Masked); u.LoadState != "masked" {
		t.Errorf("masked unit: LoadState %q", u.LoadState)
	}
}

func testStartAndStop(t *testing.T, s *servicesTest) {
	w := s.watch(t, s.Steady)
	u := s.start(t, s.Steady)
	wantState(t, u, "active", "running", "success")
	if u.MainPID <= 1 || len(u.InvocationID) != 32 || u.StateChanged.IsZero() {
		t.Errorf("running: pid %d, invocation %q, changed %v", u.MainPID, u.InvocationID, u.StateChanged)
	}
	if told := w.until(t, "active"); told.MainPID != u.MainPID || told.InvocationID != u.InvocationID {
		t.Errorf("told pid %d invocation %q, want those of the unit", told.MainPID, told.InvocationID)
	}
	r, err := s.Services.Stop(s.ctx, s.Steady)
	if err != nil || r.Result != "done" {
		t.Fatalf("Stop: %+v, %v", r, err)
	}
	u = s.unit(t, s.Steady)
	wantState(t, u, "inactive", "dead", "success")
	if u.MainPID != 0 || u.StoppedBy != machine.BySelf {
		t.Errorf("stopped: pid %d, by %q; want none, by %q", u.MainPID, u.StoppedBy, machine.BySelf)
	}
	if told := w.until(t, "inactive"); told.StoppedBy != machine.BySelf || told.ExecMainCode != 2 || told.ExecMainStatus != int(syscall.SIGTERM) {
		t.Errorf("told: by %q, code %d, status %d", told.StoppedBy, told.ExecMainCode, told.ExecMainStatus)
	}
	if r, err := s.Services.Stop(s.ctx, s.Steady); err != nil || r.Result != "done" {
		t.Errorf("Stop again: %+v, %v", r, err)
	}
}

func testStartIsIdempotent(t *testing.T, s *servicesTest) {
	a, b := s.start(t, s.Steady), s.start(t, s.Steady)
	if a.MainPID != b.MainPID || a.InvocationID != b.InvocationID {
		t.Errorf("a second start made another process: %d, %d", a.MainPID, b.MainPID)
	}
}

func testRestart(t *testing.T, s *servicesTest) {
	a := s.start(t, s.Steady)
	if r, err := s.Services.Restart(s.ctx, s.Steady); err != nil || r.Result != "done" {
		t.Fatalf("Restart: %+v, %v", r, err)
	}
	b := s.unit(t, s.Steady)
	wantState(t, b, "active", "running", "success")
	if a.MainPID == b.MainPID || a.InvocationID == b.InvocationID {
		t.Errorf("restart kept the process: %+v", b)
	}
}

func testCrash(t *testing.T, s *servicesTest) {
	w := s.watch(t, s.Steady)
	before := s.start(t, s.Steady)
	w.until(t, "active")
	s.Crash(t, before)
	u := w.until(t, "failed")
	wantState(t, u, "failed", "failed", "signal")
	if u.MainPID != 0 || u.ExecMainCode != 2 || u.ExecMainStatus != 9 || u.StoppedBy != "" {
		t.Errorf("after SIGKILL: pid %d, code %d, status %d, stopped by %q", u.MainPID, u.ExecMainCode, u.ExecMainStatus, u.StoppedBy)
	}
	if u.InvocationID != before.InvocationID {
		t.Errorf("a crash changed the invocation")
	}
	if after := s.start(t, s.Steady); after.InvocationID == before.InvocationID || after.Result != "success" {
		t.Errorf("started again: %+v", after)
	}
}

func testExitStatus(t *testing.T, s *servicesTest) {
	w := s.watch(t, s.Failing)
	s.Services.Start(s.ctx, s.Failing) // done or failed: the exit may overtake the job
	u := w.until(t, "failed")
	wantState(t, u, "failed", "failed", "exit-code")
	if u.ExecMainCode != 1 || u.ExecMainStatus != 3 {
		t.Errorf("code %d, status %d; want 1, 3", u.ExecMainCode, u.ExecMainStatus)
	}
}

func testCleanExit(t *testing.T, s *servicesTest) {
	w := s.watch(t, s.Brief)
	s.Services.Start(s.ctx, s.Brief)
	// The unit may never be told as active, but it is told as over.
	for {
		u := w.next(t)
		if u.ActiveState == "inactive" && u.ExecMainCode != 0 {
			wantState(t, u, "inactive", "dead", "success")
			if u.StoppedBy != "" {
				t.Errorf("ended by itself, but stopped by %q", u.StoppedBy)
			}
			return
		}
	}
}

func testNoProgram(t *testing.T, s *servicesTest) {
	r, err := s.Services.Start(s.ctx, s.NoProgram)
	if err != nil || r.Result != "failed" {
		t.Fatalf("Start: %+v, %v; want failed", r, err)
	}
	u := s.unit(t, s.NoProgram)
	wantState(t, u, "failed", "failed", "exit-code")
	if u.ExecMainCode != 1 || u.ExecMainStatus != 203 {
		t.Errorf("code %d, status %d; want 1, 203 (EXIT_EXEC)", u.ExecMainCode, u.ExecMainStatus)
	}
}

func testStopByPerson(t *testing.T, s *servicesTest) {
	w := s.watch(t, s.Steady)
	s.start(t, s.Steady)
	w.until(t, "active")
	s.StopAsPerson(t, s.Steady)
	if u := w.until(t, "inactive"); u.StoppedBy != machine.ByPerson {
		t.Errorf("told as stopped by %q, want %q", u.StoppedBy, machine.ByPerson)
	}
	if u := s.unit(t, s.Steady); u.StoppedBy != machine.ByPerson {
		t.Errorf("stopped by %q, want %q", u.StoppedBy, machine.ByPerson)
	}
	if u := s.start(t, s.Steady); u.StoppedBy != "" {
		t.Errorf("started again, still stopped by %q", u.StoppedBy)
	}
}

func testStubborn(t *testing.T, s *servicesTest) {
	w := s.watch(t, s.Stubborn)
	s.start(t, s.Stubborn)
	if r, err := s.Services.Stop(s.ctx, s.Stubborn); err != nil || r.Result != "done" {
		t.Fatalf("Stop: %+v, %v", r, err)
	}
	u := w.until(t, "failed")
	wantState(t, u, "failed", "failed", "timeout")
	if !slices.Contains(w.seen, "deactivating/stop-sigkill") {
		t.Errorf("states %v lack deactivating/stop-sigkill", w.seen)
	}
	if u.StoppedBy != machine.BySelf {
		t.Errorf("stopped by %q", u.StoppedBy)
	}
}

func testStopCancelsStart(t *testing.T, s *servicesTest) {
	w := s.watch(t, s.NeverReady)
	type answer struct {
		r   machine.JobResult
		err error
	}
	started := make(chan answer, 1)
	go func() {
		r, err := s.Services.Start(s.ctx, s.NeverReady)
		started <- answer{r, err}
	}()
	w.until(t, "activating")
	if r, err := s.Services.Stop(s.ctx, s.NeverReady); err != nil || r.Result != "done" {
		t.Fatalf("Stop: %+v, %v", r, err)
	}
	if a := <-started; a.err != nil || a.r.Result != "canceled" {
		t.Errorf("Start: %+v, %v; want canceled", a.r, a.err)
	}
	wantState(t, s.unit(t, s.NeverReady), "inactive", "dead", "success")
}

func testContextEndsWait(t *testing.T, s *servicesTest) {
	w := s.watch(t, s.NeverReady)
	ctx, cancel := context.WithCancel(s.ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := s.Services.Start(ctx, s.NeverReady)
		ended <- err
	}()
	w.until(t, "activating")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Start whose context ended: %v", err)
	}
	if u := s.unit(t, s.NeverReady); u.ActiveState != "activating" || u.Job != "start" {
		t.Errorf("the job should go on: %s, job %q", u.ActiveState, u.Job)
	}
	if _, err := s.Services.Stop(s.ctx, s.NeverReady); err != nil {
		t.Error(err)
	}
}

func testKill(t *testing.T, s *servicesTest) {
	if err := s.Services.Kill(s.ctx, s.Plain, 15); !errors.Is(err, machine.ErrNotRunning) {
		t.Errorf("Kill of an inactive unit: %v, want ErrNotRunning", err)
	}
	w := s.watch(t, s.Plain)
	s.start(t, s.Plain)
	w.until(t, "active")
	if err := s.Services.Kill(s.ctx, s.Plain, int(syscall.SIGABRT)); err != nil {
		t.Fatal(err)
	}
	u := w.until(t, "failed")
	if u.Result != "signal" && u.Result != "core-dump" || u.ExecMainStatus != int(syscall.SIGABRT) {
		t.Errorf("result %q, status %d", u.Result, u.ExecMainStatus)
	}
}

func testResetFailed(t *testing.T, s *servicesTest) {
	w := s.watch(t, s.Steady)
	s.Crash(t, s.start(t, s.Steady))
	w.until(t, "failed")
	if err := s.Services.ResetFailed(s.ctx, s.Steady); err != nil {
		t.Fatal(err)
	}
	wantState(t, w.until(t, "inactive"), "inactive", "dead", "success")
	wantState(t, s.unit(t, s.Steady), "inactive", "dead", "success")
	if err := s.Services.ResetFailed(s.ctx, s.Steady); err != nil {
		t.Errorf("ResetFailed of an inactive unit: %v", err)
	}
}

func testReload(t *testing.T, s *servicesTest) {
	before := s.start(t, s.Steady)
	if r, err := s.Services.Reload(s.ctx, s.Steady); err != nil || r.Result != "done" {
		t.Fatalf("Reload: %+v, %v", r, err)
	}
	if after := s.unit(t, s.Steady); after.MainPID != before.MainPID || after.ActiveState != "active" {
		t.Errorf("after reload: %+v", after)
	}
	s.start(t, s.Plain)
	if _, err := s.Services.Reload(s.ctx, s.Plain); !errors.Is(err, fettle.ErrNotSupported) {
		t.Errorf("Reload of a unit that knows none: %v, want ErrNotSupported", err)
	}
}

func testRefusals(t *testing.T, s *servicesTest) {
	const missing = "fettle-no-such.service"
	if u := s.unit(t, missing); u.LoadState != "not-found" || u.ActiveState != "inactive" {
		t.Errorf("missing unit: %+v", u)
	}
	if _, err := s.Services.Start(s.ctx, missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Start of a missing unit: %v, want fs.ErrNotExist", err)
	}
	if _, err := s.Services.Start(s.ctx, s.Masked); !errors.Is(err, machine.ErrMasked) {
		t.Errorf("Start of a masked unit: %v, want ErrMasked", err)
	}
	if _, err := s.Services.Units(s.ctx, "[a"); !errors.Is(err, path.ErrBadPattern) {
		t.Errorf("Units with a bad pattern: %v", err)
	}
	if err := s.Services.Watch(s.ctx, func(machine.Unit) {}, "[a"); !errors.Is(err, path.ErrBadPattern) {
		t.Errorf("Watch with a bad pattern: %v", err)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	if _, err := s.Services.Start(ctx, s.Steady); !errors.Is(err, context.Canceled) {
		t.Errorf("Start with an ended context: %v", err)
	}
	if u := s.unit(t, s.Steady); u.ActiveState != "inactive" {
		t.Errorf("Start with an ended context started the unit: %s", u.ActiveState)
	}
	if err := s.Services.DaemonReload(s.ctx); err != nil {
		t.Errorf("DaemonReload: %v", err)
	}
}

func testLog(t *testing.T, s *servicesTest) {
	s.start(t, s.Steady)
	deadline := time.Now().Add(patience)
	for { // what a process wrote reaches the log when the logger gets to it
		lines, err := s.Services.Log(s.ctx, s.Steady, 20)
		if err != nil {
			t.Fatal(err)
		}
		if len(lines) > 20 {
			t.Fatalf("%d lines, asked for 20", len(lines))
		}
		if slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "steady began") }) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the log lacks what the process said: %q", lines)
		}
		pause(10 * time.Millisecond)
	}
}

// pause is for the one thing that nothing tells of.
func pause(d time.Duration) { <-time.After(d) }

func testUnits(t *testing.T, s *servicesTest) {
	s.start(t, s.Steady)
	s.start(t, s.Plain)
	list, err := s.Services.Units(s.ctx, s.Steady, s.Plain)
	if err != nil || len(list) != 2 {
		t.Fatalf("two names: %d units, %v", len(list), err)
	}
	if !slices.IsSortedFunc(list, func(a, b machine.Unit) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("not sorted: %s, %s", list[0].Name, list[1].Name)
	}
	for _, u := range list {
		if got := s.unit(t, u.Name); got.MainPID != u.MainPID || got.ActiveState != "active" {
			t.Errorf("Units and Unit differ: %+v, %+v", u, got)
		}
	}
	list, err = s.Services.Units(s.ctx)
	if err != nil || !slices.ContainsFunc(list, func(u machine.Unit) bool { return u.Name == s.Steady && u.MainPID > 1 }) {
		t.Errorf("all services: %d units without %s, %v", len(list), s.Steady, err)
	}
	if list, err := s.Services.Units(s.ctx, "fettle-no-such-*"); err != nil || len(list) != 0 {
		t.Errorf("no match: %v, %v", list, err)
	}
}

func testWatchMissing(t *testing.T, s *servicesTest) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var got machine.Unit
	err := s.Services.Watch(ctx, func(u machine.Unit) { got = u; cancel() }, "fettle-no-such.service")
	if got.LoadState != "not-found" || !errors.Is(err, context.Canceled) {
		t.Errorf("watching a missing unit told %+v, ended with %v", got, err)
	}
}
