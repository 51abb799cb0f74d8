package systemd_test

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"fettle/internal/adapter/adaptertest"
	"fettle/internal/adapter/systemd"
	"fettle/internal/fettle"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
	"fettle/internal/machine/units"
	"fettle/runbooks"
)

const (
	web    = fettle.Subject("unit:h1/web.service")
	canary = "hunter2-in-the-log"
)

// server is a host with one service and a listener that accepts and says
// nothing.
type server struct {
	m      *memmachine.Machine
	listen net.Listener
	starts int
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{m: memmachine.New(memmachine.Options{Host: "h1"})}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.listen = l
	t.Cleanup(func() { l.Close() })
	s.m.Define(units.Definition{Unit: machine.Unit{Name: "web.service", UnitFileState: "enabled"}, CanReload: true},
		memmachine.Behaviour{OnStart: func() { s.starts++ }, Says: []string{"password=" + canary}})
	start(t, s.m)
	return s
}

func start(t *testing.T, m *memmachine.Machine) {
	t.Helper()
	if _, err := m.Ports().Services.Start(t.Context(), "web.service"); err != nil {
		t.Fatal(err)
	}
}

func rig(t *testing.T) (adaptertest.Rig, *server) {
	s := newServer(t)
	return adaptertest.Rig{
		Adapter: systemd.Adapter{}, Machine: s.m.Ports(), Canary: canary,
		State: func(ctx context.Context) string {
			u, err := s.m.Ports().Services.Unit(ctx, "web.service")
			return fmt.Sprint(u.ActiveState, " ", err)
		},
		Settle: func(ctx context.Context) {
			for ctx.Err() == nil {
				u, err := s.m.Ports().Services.Unit(ctx, "web.service")
				if err != nil || u.Job == "" && u.ActiveState != "activating" && u.ActiveState != "deactivating" {
					return
				}
				timer, stop := s.m.Ports().Clock.After(time.Millisecond)
				<-timer
				stop()
			}
		},
	}, s
}

// pin is the generation that a plan pins before a start.
func pin(ctx context.Context, t *testing.T, r adaptertest.Rig) []fettle.Generation {
	t.Helper()
	u, err := r.Machine.Services.Unit(ctx, "web.service")
	if err != nil {
		t.Fatal(err)
	}
	return []fettle.Generation{{Subject: web, Fact: "invocation_id", Value: u.InvocationID}}
}

func TestAdapter(t *testing.T) {
	crashed := func(ctx context.Context, t *testing.T, r adaptertest.Rig) []fettle.Generation {
		if err := r.Machine.Services.Kill(ctx, "web.service", 9); err != nil {
			t.Fatal(err)
		}
		r.Settle(ctx)
		return pin(ctx, t, r)
	}
	stopped := func(ctx context.Context, t *testing.T, r adaptertest.Rig) []fettle.Generation {
		if _, err := r.Machine.Services.Stop(ctx, "web.service"); err != nil {
			t.Fatal(err)
		}
		return pin(ctx, t, r)
	}
	running := func(ctx context.Context, t *testing.T, r adaptertest.Rig) []fettle.Generation { return pin(ctx, t, r) }
	adaptertest.Run(t, adaptertest.Suite{
		New:   func(t *testing.T) adaptertest.Rig { r, _ := rig(t); return r },
		Books: adaptertest.Books(runbooks.FS(), systemd.Adapter{}),
		Actions: []adaptertest.ActionCase{
			{Action: "systemd.start", Target: web, Prepare: stopped},
			{Action: "systemd.stop", Target: web, Prepare: running},
			{Action: "systemd.restart", Target: web, Prepare: running},
			{Action: "systemd.reset_failed", Target: web, Prepare: crashed},
			{Action: "systemd.reload", Target: web, Prepare: running},
		},
		Faults: []adaptertest.FaultCase{{Fault: "systemd.kill", Target: web}},
		Hang: func(t *testing.T) (adaptertest.Rig, []fettle.Look) {
			r, s := rig(t)
			// A TCP address that accepts is one that answers; only HTTP can
			// accept and then say nothing.
			r.Config = fmt.Appendf(nil, "health: [{unit: web.service, http: \"http://%s/\"}]", s.listen.Addr())
			return r, []fettle.Look{{Subject: web, Probe: "systemd.health"}}
		},
		ReadOnly: func(t *testing.T) adaptertest.Rig {
			r, _ := rig(t)
			r.Machine.Services = readOnly{r.Machine.Services}
			return r
		},
		Excused: map[string]string{
			"fault systemd.freeze": "a process in memory cannot be stopped by a signal; the lab does it to a real one",
		},
	})
}

// readOnly is a service manager that lets nobody change anything.
type readOnly struct{ machine.Services }

func denied(op string) (machine.JobResult, error) {
	return machine.JobResult{}, fmt.Errorf("%s: %w", op, fs.ErrPermission)
}

func (readOnly) Start(context.Context, string) (machine.JobResult, error)   { return denied("start") }
func (readOnly) Stop(context.Context, string) (machine.JobResult, error)    { return denied("stop") }
func (readOnly) Restart(context.Context, string) (machine.JobResult, error) { return denied("restart") }
func (readOnly) Reload(context.Context, string) (machine.JobResult, error)  { return denied("reload") }
func (readOnly) ResetFailed(context.Context, string) error {
	return fmt.Errorf("reset: %w", fs.ErrPermission)
}

// TestWatchTellsAtOnce: a crash is told by the manager, with what a judge needs.
func TestWatchTellsAtOnce(t *testing.T) {
	r, s := rig(t)
	in, err := systemd.Adapter{}.Open(t.Context(), r.Machine, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	told := make(chan fettle.Observation, 16)
	done := make(chan error, 1)
	go func() { done <- in.Watchers()[0].Watch(ctx, func(o fettle.Observation) { told <- o }) }()
	if o := <-told; o.Subject != web || o.Facts["active_state"] != "active" {
		t.Errorf("the first thing told should be the present state, is %v", o)
	}
	s.m.Crash("web.service", 9)
	for o := range told {
		if o.Facts["active_state"] != "failed" {
			continue
		}
		if o.Facts["result"] != "signal" || o.Facts["exec_status"] != int64(9) || o.Facts["stopped_by"] != "" {
			t.Errorf("a crash is told as %v", o.Facts)
		}
		break
	}
	cancel()
	<-done
}

func TestConfig(t *testing.T) {
	for _, c := range []struct{ src, want string }{
		{"", ""},
		{"units: ['a*.service']\nshould_run: [b.service]", ""},
		{"unit: [a]", "unknown field"},
		{"units: ['[']", "malformed"},
		{"health: [{unit: a}]", "one of tcp and http"},
		{"health: [{unit: a, tcp: nowhere}]", "host:port"},
		{"health: [{unit: a, http: 'ftp://x'}]", "http://"},
	} {
		_, err := systemd.ParseConfig([]byte(c.src))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%q: %v", c.src, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%q: %v; want %q", c.src, err, c.want)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("units: [a]"))
	f.Add([]byte("health: [{unit: a, tcp: '1:2'}]"))
	f.Fuzz(func(_ *testing.T, src []byte) { _, _ = systemd.ParseConfig(src) })
}

// restarting is a service manager that shows a unit as failed for an instant
// before it shows that it restarts it, as systemd does.
type restarting struct {
	machine.Services
	now machine.Unit // what it answers when it is asked
}

func (r restarting) Watch(_ context.Context, emit func(machine.Unit), _ ...string) error {
	u := machine.Unit{Name: "web.service", LoadState: "loaded", ActiveState: "active", Restart: "on-failure", InvocationID: "a"}
	emit(u)
	u.ActiveState, u.Result = "failed", "exit-code"
	emit(u)
	emit(r.now)
	return nil
}

func (r restarting) Unit(context.Context, string) (machine.Unit, error) { return r.now, nil }

// TestRestartIsNoFailure: a unit that its manager restarts has not failed, however
// shortly it is shown so; one that the manager gave up has.
func TestRestartIsNoFailure(t *testing.T) {
	for _, c := range []struct{ state, want string }{{"activating", "[active activating]"}, {"failed", "[active failed failed]"}} {
		r, _ := rig(t)
		r.Machine.Services = restarting{r.Machine.Services, machine.Unit{
			Name: "web.service", LoadState: "loaded", ActiveState: c.state, Restart: "on-failure", Result: "exit-code", InvocationID: "a",
		}}
		in, err := systemd.Adapter{}.Open(t.Context(), r.Machine, nil)
		if err != nil {
			t.Fatal(err)
		}
		var told []any
		if err := in.Watchers()[0].Watch(t.Context(), func(o fettle.Observation) { told = append(told, o.Facts["active_state"]) }); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(told); got != c.want {
			t.Errorf("%s: told %s, want %s", c.state, got, c.want)
		}
	}
}

// TestUsesItsMounts: a unit uses the filesystems that it requires.
func TestUsesItsMounts(t *testing.T) {
	r, _ := rig(t)
	r.Machine.Services = restarting{r.Machine.Services, machine.Unit{Name: "web.service", ActiveState: "active", Wants: []string{"srv-data.mount", "db.service", "basic.target"}}}
	in, err := systemd.Adapter{}.Open(t.Context(), r.Machine, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := in.Probes()[0].Observe(t.Context(), web)[0].Edges
	want := []fettle.Edge{
		{From: web, Rel: fettle.RunsOn, To: "host:h1"},
		{From: web, Rel: fettle.Uses, To: fettle.NewSubject(fettle.KindFilesystem, "h1", "/srv/data")},
		{From: web, Rel: fettle.Uses, To: "unit:h1/db.service"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("edges %v, want %v", got, want)
	}
}

// TestUnseenIsUnknown: a manager that cannot be asked any more makes what was
// known unknown.
func TestUnseenIsUnknown(t *testing.T) {
	r, _ := rig(t)
	mute := &muted{Services: r.Machine.Services}
	r.Machine.Services = mute
	in, err := systemd.Adapter{}.Open(t.Context(), r.Machine, nil)
	if err != nil {
		t.Fatal(err)
	}
	if list := in.Probes()[0].Observe(t.Context()); len(list) != 1 || !list[0].Known() {
		t.Fatalf("before: %+v", list)
	}
	mute.mute = true
	list := in.Probes()[0].Observe(t.Context())
	if len(list) != 1 || list[0].Subject != web || list[0].Known() {
		t.Errorf("a manager that does not answer leaves %+v; want web.service unknown", list)
	}
}

// muted is a service manager that may stop answering.
type muted struct {
	machine.Services
	mute bool
}

func (m *muted) Units(ctx context.Context, patterns ...string) ([]machine.Unit, error) {
	if m.mute {
		return nil, machine.ErrLost
	}
	return m.Services.Units(ctx, patterns...)
}
