package executor_test

import (
	"context"
	"encoding/json"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"fettle/internal/fettle"
	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/loghead"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/warrant"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	light = "lamp.light" // gives only
	smash = "lamp.smash" // takes capacity away, and is forward-only
)

func catalogue() fettle.Catalogue {
	return fettle.Catalogue{
		Adapter: "lamp", Kinds: []fettle.KindSpec{{Kind: "lamp", Doc: "HOST/NAME"}},
		Actions: []fettle.ActionSpec{
			{Name: light, Version: 1, Target: "lamp", Risk: fettle.LowRisk, Scope: fettle.HostScope, Timeout: time.Minute, Undo: true, Doc: "light it",
				Params: []fettle.ParamSpec{{Name: "watts", Type: fettle.IntFact}}},
			{Name: smash, Version: 1, Target: "lamp", Risk: fettle.MediumRisk, Scope: fettle.HostScope, Timeout: time.Minute, Undo: true, Takes: []fettle.Taking{fettle.TakesCapacity}, Doc: "smash it",
				Params: []fettle.ParamSpec{{Name: "with", Type: fettle.StringFact}}},
		},
	}
}

// lamp counts what is done to it.
type lamp struct {
	mu    sync.Mutex
	done  []string
	asked int
}

func (l *lamp) asks() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked
}

func (l *lamp) did(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = append(l.done, what)
}

func (l *lamp) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.done)
}

func (l *lamp) Preview(context.Context, fettle.Step) (fettle.Preview, error) {
	return fettle.Preview{Would: []string{"do it"}}, nil
}

func (l *lamp) Apply(_ context.Context, d fettle.Dispatch) (fettle.Result, error) {
	l.did(d.Step.Action + " " + d.Key)
	return fettle.Result{}, nil
}

func (l *lamp) Recover(context.Context, fettle.Dispatch) (fettle.Fate, fettle.Result, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	return fettle.UnknownFate, fettle.Result{}, nil
}

func (l *lamp) Undo(_ context.Context, d fettle.Dispatch) (fettle.Result, error) {
	l.did("undo " + d.Key)
	return fettle.Result{}, nil
}

// clock is the machine's, with the wall and the boot clock set off.
type clock struct {
	machine.Clock
	mu   sync.Mutex
	off  time.Duration // of Now
	wall time.Duration
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Clock.Now().Add(c.off)
}

func (c *clock) Wall() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Clock.Wall().Add(c.wall)
}

func (c *clock) pass(now, wall time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off += now
	c.wall += wall
}

// fleet is an authority with a server and people.
type fleet struct {
	t          testing.TB
	ca         *pki.CA
	server     *pki.Identity
	approver   *pki.Identity
	operator   *pki.Identity
	compromise *pki.Identity // the agent's own
}

func newFleet(t testing.TB) *fleet {
	t.Helper()
	ca, err := pki.Init(filepath.Join(t.TempDir(), "pki"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, ca: ca}
	for role, into := range map[pki.Role]**pki.Identity{pki.RoleServer: &f.server, pki.RoleApprover: &f.approver, pki.RoleOperator: &f.operator, pki.RoleAgent: &f.compromise} {
		if *into, err = ca.Mint(role, "h1", time.Now(), 24*time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// host is an executor as it runs in its own process.
type host struct {
	*fleet
	dir   string
	lamp  *lamp
	clock *clock
	ex    *executor.Executor
	head  int64 // entries of the server's log
	stop  func()
}

func (f *fleet) open(dir string, change ...func(*executor.Options)) *host {
	f.t.Helper()
	h := &host{fleet: f, dir: dir, lamp: &lamp{}, clock: &clock{Clock: memmachine.New(memmachine.Options{}).Ports().Clock}, head: 1}
	trust, err := pki.NewTrust(f.ca.Fleet(), 0, f.server.Authority())
	if err != nil {
		f.t.Fatal(err)
	}
	o := executor.Options{
		Host: fettle.HostSubject("h1"), StateDir: dir, Trust: func() *pki.Trust { return trust }, Clock: h.clock, Catalogues: []fettle.Catalogue{catalogue()},
		Actions: map[string]fettle.Action{light: h.lamp, smash: h.lamp}, ActionsFile: filepath.Join(f.t.TempDir(), "actions.yaml"),
		Filesystems: memmachine.New(memmachine.Options{}).Ports().Filesystems,
	}
	for _, c := range change {
		c(&o)
	}
	if h.ex, err = executor.Open(f.t.Context(), o); err != nil {
		f.t.Fatal(err)
	}
	var once sync.Once
	h.stop = func() {
		once.Do(func() {
			if err := h.ex.Close(context.Background()); err != nil {
				f.t.Error(err)
			}
		})
	}
	f.t.Cleanup(h.stop)
	return h
}

// host is an executor that has met the server.
func (f *fleet) host(dir string, change ...func(*executor.Options)) *host {
	f.t.Helper()
	h := f.open(dir, change...)
	g, err := h.ex.Greet(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	st := h.statement()
	if g.Head != nil {
		st.Place = &loghead.Place{Seq: g.Head.Entries, Hash: g.Head.Hash}
	}
	if why, err := h.ex.Meet(f.t.Context(), executor.Introduction{Asked: g.Head, Log: h.shown(st)}); err != nil || why != "" {
		f.t.Fatal(why, err)
	}
	return h
}

// log is the server's head.
func (h *host) log() *warrant.Signed {
	h.t.Helper()
	return h.shown(h.statement())
}

func (h *host) statement() loghead.Statement {
	return loghead.Statement{Fleet: h.ca.Fleet(), Epoch: 1, Entries: h.head, Hash: warrant.HashOf([]byte{byte(h.head)})}
}

func (h *host) shown(st loghead.Statement) *warrant.Signed {
	h.t.Helper()
	note, err := loghead.Sign(st, h.server.NoteSigner())
	if err != nil {
		h.t.Fatal(err)
	}
	return &warrant.Signed{Note: note, Certificate: h.server.Certificate()}
}

// dispatch is one of an action for this executor.
func (h *host) dispatch(key, action string) fettle.Dispatch {
	h.t.Helper()
	g, err := h.ex.Greet(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return fettle.Dispatch{Schema: 1, Key: key, Incarnation: g.Incarnation, Token: fettle.Token{Fleet: h.ca.Fleet(), Epoch: 1, Revision: 5}, Incident: "tap5fdsz",
		Step: fettle.Step{ID: "one", Action: action, Version: 1, Target: "lamp:h1/hall", Host: "host:h1"}}
}

// order signs a dispatch, as the server does, with a nonce of now.
func (h *host) order(d fettle.Dispatch) executor.Order {
	h.t.Helper()
	body, err := json.Marshal(d)
	if err != nil {
		h.t.Fatal(err)
	}
	return executor.Order{Body: body, Signed: h.sign(h.server, warrant.Order{Say: warrant.Do, Body: warrant.HashOf(body)}), Log: h.log()}
}

func (h *host) sign(by *pki.Identity, o warrant.Order) *warrant.Signed {
	h.t.Helper()
	if o.Nonce == "" {
		p, err := h.ex.Pulse(h.t.Context())
		if err != nil {
			h.t.Fatal(err)
		}
		o.Nonce = p.Nonce
	}
	if o.Fleet == "" {
		o.Fleet = h.ca.Fleet()
	}
	if o.Within == 0 {
		o.Within = 10 * time.Second
	}
	s, err := warrant.SignOrder(o, by)
	if err != nil {
		h.t.Fatal(err)
	}
	return &s
}

func (h *host) do(hands executor.Hands, o executor.Order) fettle.Outcome {
	h.t.Helper()
	out, err := hands.Do(h.t.Context(), o)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}
