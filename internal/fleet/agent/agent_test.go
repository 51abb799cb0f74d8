package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
	}
	goleak.VerifyTestMain(m)
}

const patience = 20 * time.Second

// lamp is a made-up adapter: each configuration names a lamp, which is on or off.
type lamp struct {
	mu    sync.Mutex
	found []machine.Found
	fail  map[string]error
	lit   map[string]int // applied, by lamp
	blind bool           // sees nothing yet
	eager bool           // previews for any target
	heat  func() int64   // nil: that is not known
}

func (l *lamp) Catalogue() fettle.Catalogue {
	return fettle.Catalogue{
		Adapter: "lamp", Kinds: []fettle.KindSpec{{Kind: "lamp", Doc: "HOST/NAME"}},
		Probes: []fettle.ProbeSpec{{Name: "lamp.state", Kind: "lamp", Interval: time.Hour, Timeout: time.Second, Doc: "it looks",
			Facts: []fettle.FactSpec{{Name: "on", Type: fettle.BoolFact, Doc: "it shines"}, {Name: "heat", Type: fettle.IntFact, Doc: "how hot"}}}},
		Conditions: []fettle.ConditionSpec{{Code: "lamp.off", Title: "off", Kind: "lamp", Layer: fettle.HostLayer, Severity: fettle.Notice,
			Scope: fettle.HostScope, Probe: "lamp.state", Raise: "!self.on", NotMended: "it is a lamp", Doc: "off"}, {
			Code: "lamp.hot", Title: "hot", Kind: "lamp", Layer: fettle.HostLayer, Severity: fettle.Notice,
			Scope: fettle.HostScope, Probe: "lamp.state", Raise: "self.heat > 90", Clear: "self.heat < 80", NotMended: "it is a lamp", Doc: "hot"}},
		Actions: []fettle.ActionSpec{{Name: "lamp.light", Version: 1, Target: "lamp", Risk: fettle.LowRisk, Scope: fettle.HostScope, Timeout: time.Second, Undo: true, Doc: "light it"}},
	}
}

func (l *lamp) Discover(context.Context, machine.Machine) ([]machine.Found, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.found), nil
}

func (l *lamp) Open(_ context.Context, m machine.Machine, config []byte) (fettle.Instance, error) {
	var name string
	for line := range strings.Lines(string(config)) {
		if !strings.HasPrefix(line, "#") {
			name = strings.TrimSpace(line)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.fail[name]; err != nil {
		return nil, err
	}
	return &oneLamp{lamp: l, name: name, subject: fettle.NewSubject("lamp", m.Identity.Host.Root(), name)}, nil
}

type oneLamp struct {
	*lamp
	name    string
	subject fettle.Subject
}

func (o *oneLamp) Probes() []fettle.Probe     { return []fettle.Probe{o} }
func (o *oneLamp) Watchers() []fettle.Watcher { return nil }
func (o *oneLamp) Actions() map[string]fettle.Action {
	return map[string]fettle.Action{"lamp.light": o}
}
func (o *oneLamp) Faults() map[string]fettle.Fault { return nil }
func (o *oneLamp) Close() error                    { return nil }
func (o *oneLamp) Spec() fettle.ProbeSpec          { return o.Catalogue().Probes[0] }

func (o *oneLamp) Observe(context.Context, ...fettle.Subject) []fettle.Observation {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.blind {
		return nil
	}
	facts := fettle.Facts{"on": o.lit[o.name] > 0}
	if o.heat != nil {
		facts["heat"] = o.heat()
	}
	return []fettle.Observation{{Subject: o.subject, Facts: facts}}
}

func (o *oneLamp) Preview(_ context.Context, s fettle.Step) (fettle.Preview, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.Target != o.subject && !o.eager {
		return fettle.Preview{}, fettle.Refuse("lamp.light", s.Target, "ask another", "it is not this lamp")
	}
	return fettle.Preview{Would: []string{"light " + o.name}}, nil
}

func (o *oneLamp) Apply(context.Context, fettle.Dispatch) (fettle.Result, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lit == nil {
		o.lit = map[string]int{}
	}
	o.lit[o.name]++
	return fettle.Result{Notes: []string{o.name}}, nil
}

func (o *oneLamp) Recover(context.Context, fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	return fettle.Done, fettle.Result{Notes: []string{o.name}}, nil
}

func (o *oneLamp) Undo(context.Context, fettle.Dispatch) (fettle.Result, error) {
	return fettle.Result{}, fettle.ErrNotSupported
}

func found(names ...string) []machine.Found {
	var list []machine.Found
	for _, n := range names {
		list = append(list, machine.Found{Name: n, Config: []byte(n + "\n"), Why: "it hangs there"})
	}
	return list
}

// options are those of an agent whose server is nowhere.
func options(t *testing.T, l *lamp) Options {
	t.Helper()
	ca, err := pki.Init(filepath.Join(t.TempDir(), "pki"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	id, err := ca.Mint(pki.RoleAgent, "h1", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Server: "127.0.0.1:1", Identity: id, StateDir: filepath.Join(t.TempDir(), "state"), ConfigDir: t.TempDir(),
		Machine: memmachine.New(memmachine.Options{Host: "h1"}).Ports(), Adapters: []machine.Adapter{l}, Rediscover: 10 * time.Millisecond,
	}
}

func start(t *testing.T, o Options, change ...func(*Agent)) (*Agent, func()) {
	t.Helper()
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(a)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("agent: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return a, stop
}

// settled waits until the agent has looked at everything that is open, and that
// is so many configurations.
func settled(t *testing.T, a *Agent, n int) {
	t.Helper()
	wait(t, "everything was looked at", func() bool {
		a.crew.mu.Lock()
		defer a.crew.mu.Unlock()
		once := 0
		for _, h := range a.crew.hands {
			if h.once.Load() {
				once++
			}
		}
		return once == n
	})
}

// wait waits for something that has no channel.
func wait(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); !is(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s: it never was", what)
		}
	}
}

func open(a *Agent) []string {
	a.crew.mu.Lock()
	defer a.crew.mu.Unlock()
	var list []string
	for key := range a.crew.hands {
		list = append(list, key)
	}
	slices.Sort(list)
	return list
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestWorksWithoutServer: it observes and judges, and a picture is there for the
// server's return.
func TestWorksWithoutServer(t *testing.T) {
	a, _ := start(t, options(t, &lamp{found: found("hall", "attic")}))
	settled(t, a, 2)
	a.picture.link()
	p := a.picture.pending()
	var off []string
	for _, c := range p.conditions {
		if c.Code == "lamp.off" && c.Raised() {
			off = append(off, string(c.Subject))
		}
	}
	if want := []string{"lamp:h1/attic", "lamp:h1/hall"}; !slices.Equal(off, want) {
		t.Errorf("off: %v, want %v", off, want)
	}
	if len(p.observations) < 2 {
		t.Errorf("observations %v", p.observations)
	}
}

// TestFoundWhileItIsThere: what was found is open after a restart, also when it
// cannot be found then; what appears later is opened; what vanishes stays.
func TestFoundWhileItIsThere(t *testing.T) {
	l := &lamp{found: found("hall")}
	o := options(t, l)
	a, stop := start(t, o)
	settled(t, a, 1)
	l.mu.Lock()
	l.found = found("attic")
	l.mu.Unlock()
	settled(t, a, 2)
	stop()
	l.mu.Lock()
	l.found = nil
	l.mu.Unlock()
	a, _ = start(t, o)
	settled(t, a, 2)
	if got, want := open(a), []string{"lamp-attic", "lamp-hall"}; !slices.Equal(got, want) {
		t.Errorf("open %v, want %v", got, want)
	}
}

// TestFilesComeFirst: an adapter with a file is not asked what it finds; an empty
// file turns it off; one for nobody is an error.
func TestFilesComeFirst(t *testing.T) {
	l := &lamp{found: found("hall")}
	o := options(t, l)
	write(t, o.ConfigDir, "lamp-desk.yaml", "desk\n")
	write(t, o.ConfigDir, "lamp-attic.yaml", "# off\n")
	write(t, o.ConfigDir, "notes.txt", "not ours")
	a, stop := start(t, o)
	settled(t, a, 1)
	if got, want := open(a), []string{"lamp-desk"}; !slices.Equal(got, want) {
		t.Errorf("open %v, want %v", got, want)
	}
	stop()
	write(t, o.ConfigDir, "lump.yaml", "x\n")
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "lump") || !strings.Contains(err.Error(), "fettle adapters") {
		t.Errorf("a file for nobody: %v", err)
	}
}

// TestOneThatCannotBeOpened keeps no other from working, is tried again, and
// while it is missing nothing is said to be gone.
func TestOneThatCannotBeOpened(t *testing.T) {
	l := &lamp{found: found("hall", "attic"), fail: map[string]error{"attic": errors.New("the ladder is missing")}}
	o := options(t, l)
	var said strings.Builder
	var mu sync.Mutex
	o.Log = slog.New(slog.NewTextHandler(lockedWriter{&mu, &said}, nil))
	a, _ := start(t, o)
	settled(t, a, 1)
	if a.crew.settled.Load() {
		t.Error("it counts as settled")
	}
	wait(t, "the log", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(said.String(), "the ladder is missing")
	})
	l.mu.Lock()
	l.fail = nil
	l.mu.Unlock()
	settled(t, a, 2)
	wait(t, "settled", a.crew.settled.Load)
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(said.String(), "the ladder is missing"); n != 1 {
		t.Errorf("it was said %d times", n)
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	b  *strings.Builder
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

// TestEachStepToItsOwn: of two configurations of one adapter the one that sees the
// target acts; before any has seen it, the one that knows it; else nobody.
func TestEachStepToItsOwn(t *testing.T) {
	for _, blind := range []bool{false, true} {
		l := &lamp{found: found("hall", "attic"), blind: blind}
		a, stop := start(t, options(t, l))
		settled(t, a, 2)
		act := a.actions()["lamp.light"]
		step := func(target fettle.Subject) fettle.Dispatch {
			return fettle.Dispatch{Key: "k", Step: fettle.Step{Action: "lamp.light", Target: target}}
		}
		r, err := act.Apply(t.Context(), step("lamp:h1/attic"))
		if err != nil || !slices.Equal(r.Notes, []string{"attic"}) {
			t.Errorf("blind %v: apply %+v, %v", blind, r, err)
		}
		fate, r, err := act.Recover(t.Context(), step("lamp:h1/hall"))
		if err != nil || fate != fettle.Done || !slices.Equal(r.Notes, []string{"hall"}) {
			t.Errorf("blind %v: recover %v %+v, %v", blind, fate, r, err)
		}
		if _, err := act.Apply(t.Context(), step("lamp:h1/cellar")); fettle.ClassOf(err) != fettle.Refused {
			t.Errorf("blind %v: a lamp that nobody has: %v", blind, err)
		}
		if fate, _, err := act.Recover(t.Context(), step("lamp:h1/cellar")); fate != fettle.UnknownFate || err == nil {
			t.Errorf("blind %v: recover of a lamp that nobody has: %v, %v", blind, fate, err)
		}
		stop()
	}
}

// TestNoStepByGuess: where two configurations would both act, the one that sees the
// target does; where neither sees it, nobody.
func TestNoStepByGuess(t *testing.T) {
	for _, blind := range []bool{false, true} {
		l := &lamp{found: found("hall", "attic"), eager: true, blind: blind}
		a, stop := start(t, options(t, l))
		settled(t, a, 2)
		r, err := a.actions()["lamp.light"].Apply(t.Context(), fettle.Dispatch{Key: "k", Step: fettle.Step{Action: "lamp.light", Target: "lamp:h1/hall"}})
		if blind && (fettle.ClassOf(err) != fettle.Refused || len(l.lit) != 0) {
			t.Errorf("nobody sees it: %+v, %v; lit %v", r, err, l.lit)
		}
		if !blind && (err != nil || !slices.Equal(r.Notes, []string{"hall"})) {
			t.Errorf("hall sees it: %+v, %v", r, err)
		}
		stop()
	}
}

func TestNewRefuses(t *testing.T) {
	o := options(t, &lamp{})
	o.Machine = memmachine.New(memmachine.Options{Host: "another"}).Ports()
	if _, err := New(o); err == nil || !strings.Contains(err.Error(), "join") {
		t.Errorf("an identity of another machine: %v", err)
	}
}

// TestSilentServer: one that welcomes and then says nothing is left, and called
// again.
func TestSilentServer(t *testing.T) {
	ca, err := pki.Init(filepath.Join(t.TempDir(), "pki"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	o := options(t, &lamp{})
	if o.Identity, err = ca.Mint(pki.RoleAgent, "h1", time.Now(), time.Hour); err != nil {
		t.Fatal(err)
	}
	id, err := ca.Mint(pki.RoleServer, "s1", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.Server = l.Addr().String()
	mute := &mute{fleet: ca.Fleet(), came: make(chan struct{}, 16)}
	g := grpc.NewServer(wire.ServerOptions(pki.ServerTLS(func() *pki.Identity { return id }), wire.NewTurnstile(), nil)...)
	wire.RegisterAgentServiceServer(g, mute)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	_, stop := start(t, o)
	late := time.After(patience)
	for range 2 {
		select {
		case <-mute.came:
		case <-late:
			t.Fatal("the agent did not come again")
		}
	}
	stop()
	g.Stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

type mute struct {
	wire.UnimplementedAgentServiceServer
	fleet string
	came  chan struct{}
}

func (m *mute) Session(s wire.AgentService_SessionServer) error {
	if _, err := s.Recv(); err != nil {
		return err
	}
	err := s.Send(&wire.SessionResponse{What: &wire.SessionResponse_Welcome{Welcome: &wire.Welcome{Schema: wire.Schema, Fleet: m.fleet, IntervalNs: int64(100 * time.Millisecond)}}})
	m.came <- struct{}{}
	<-s.Context().Done()
	return err
}
