package server_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"fettle/internal/fettle"
	"fettle/internal/fleet/agent"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/server"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
	"fettle/internal/loop"
	"fettle/internal/machine"
	"fettle/internal/machine/loopback"
	"fettle/internal/machine/memmachine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds the wait for an event that must come; a test that fails waits
// this long.
const patience = 20 * time.Second

// brain records what it is fed, and answers questions from a mind that knows no
// runbook.
type brain struct {
	mind *incident.Mind

	mu     sync.Mutex
	fed    []incident.Input
	more   chan struct{} // closed and renewed with each input
	answer []incident.Answer
	kept   []kept // by Record
}

func newBrain(t testing.TB, cats ...fettle.Catalogue) *brain {
	t.Helper()
	m, err := incident.New(incident.Options{
		Catalogues: cats, Evaluates: []fettle.Scope{fettle.ClusterScope},
		Books: func(env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
			return runbook.Load(fstest.MapFS{}, env, cats)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &brain{mind: m, more: make(chan struct{})}
}

func (b *brain) Feed(in incident.Input) {
	b.mu.Lock()
	defer b.mu.Unlock()
	in.At = time.Now()
	b.mind.Take(in)
	b.fed = append(b.fed, in)
	close(b.more)
	b.more = make(chan struct{})
}

func (b *brain) Ask(_ context.Context, f func(*incident.Mind)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(b.mind)
	return nil
}

func (b *brain) Answer(_ context.Context, a incident.Answer) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = append(b.answer, a)
	if a.Incident == "none" {
		return errors.New("incident none: there is none of this name")
	}
	return nil
}

// mark is where in what was fed a wait begins.
func (b *brain) mark() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.fed)
}

// await returns the first observation from a mark on that fits.
func (b *brain) await(t testing.TB, from int, what string, fits func(fettle.Observation) bool) fettle.Observation {
	t.Helper()
	var got fettle.Observation
	b.awaitInput(t, from, what, func(in incident.Input) bool {
		for _, o := range in.Observations {
			if fits(o) {
				got = o
				return true
			}
		}
		return false
	})
	return got
}

func (b *brain) awaitCondition(t testing.TB, from int, what string, fits func(fettle.Condition) bool) fettle.Condition {
	t.Helper()
	var got fettle.Condition
	b.awaitInput(t, from, what, func(in incident.Input) bool {
		for _, c := range in.Conditions {
			if fits(c) {
				got = c
				return true
			}
		}
		return false
	})
	return got
}

func (b *brain) awaitInput(t testing.TB, from int, what string, fits func(incident.Input) bool) incident.Input {
	t.Helper()
	late := time.After(patience)
	for {
		b.mu.Lock()
		fed, more := b.fed, b.more
		b.mu.Unlock()
		for ; from < len(fed); from++ {
			if fits(fed[from]) {
				return fed[from]
			}
		}
		select {
		case <-more:
		case <-late:
			t.Fatalf("%s: it never came", what)
		}
	}
}

// fleet is a server on a loopback port with its authority.
type fleet struct {
	t       testing.TB
	ca      *pki.CA
	dir     string
	address string
	brain   *brain
	clock   *skewed
	server  *server.Server
	stop    func()
	options server.Options
}

// skewed is a clock with the wall set off.
type skewed struct {
	machine.Clock
	mu  sync.Mutex
	off time.Duration
}

func (s *skewed) Wall() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Clock.Wall().Add(s.off)
}

func (s *skewed) set(off time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = off
}

func newFleet(t testing.TB, change ...func(*server.Options)) *fleet {
	t.Helper()
	dir := t.TempDir()
	ca, err := pki.Init(filepath.Join(dir, "pki"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, ca: ca, dir: dir, brain: newBrain(t, server.Catalogue(), toyCatalogue()), clock: &skewed{Clock: memmachine.New(memmachine.Options{}).Ports().Clock}}
	f.options = server.Options{
		CA: ca, Register: pki.NewRegister(ca, pki.Folder(dir)), Dir: filepath.Join(dir, "server"), History: store.NewMemory(ca.Fleet()), Clock: f.clock, Version: "test",
		Catalogues: []fettle.Catalogue{server.Catalogue(), toyCatalogue()},
		Interval:   100 * time.Millisecond, LostAfter: 200 * time.Millisecond, Log: logger(t),
	}
	for _, c := range change {
		c(&f.options)
	}
	f.start("")
	return f
}

// start starts a server; the one before must have been stopped.
func (f *fleet) start(address string) {
	f.t.Helper()
	s, err := server.New(f.options)
	if err != nil {
		f.t.Fatal(err)
	}
	f.run(s, f.brain, address)
}

func (f *fleet) run(s *server.Server, b server.Brain, address string) {
	f.t.Helper()
	l := loopback.Listen(f.t, address)
	f.server, f.address = s, l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, b, l) }()
	var once sync.Once
	f.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				f.t.Errorf("server: %v", err)
			}
		})
	}
	f.t.Cleanup(f.stop)
}

// logger writes to the test's log until the test ends.
func logger(t testing.TB) *slog.Logger {
	w := &testWriter{t: t}
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.over = true
	})
	return slog.New(slog.NewTextHandler(w, nil))
}

type testWriter struct {
	t    testing.TB
	mu   sync.Mutex
	over bool
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

// admin connects as a person of this role.
func (f *fleet) admin(role pki.Role) wire.AdminServiceClient {
	f.t.Helper()
	id, err := f.ca.Mint(role, "ann", time.Now(), pki.PersonLife)
	if err != nil {
		f.t.Fatal(err)
	}
	return &person{wire.NewAdminServiceClient(f.dial(id)), id}
}

// person is somebody who calls, and can sign.
type person struct {
	wire.AdminServiceClient
	id *pki.Identity
}

func (f *fleet) dial(id *pki.Identity) *connection {
	f.t.Helper()
	conn, err := wire.Dial(f.address, pki.ClientTLS(func() *pki.Identity { return id }, time.Now))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// begin begins a session as an agent.
type begin func(ctx context.Context, id *pki.Identity) (wire.AgentService_SessionClient, error)

// session is how an agent of today begins one: on a connection of its own.
func (f *fleet) session(ctx context.Context, id *pki.Identity) (wire.AgentService_SessionClient, error) {
	return wire.Dialer(nil).Direct(ctx, f.address, pki.ClientTLS(func() *pki.Identity { return id }, time.Now))
}

// eachWay runs a test with both ways to begin a session: today's, and that of an agent
// of an older version, which calls by gRPC.
func eachWay(t *testing.T, test func(t *testing.T, f *fleet, session begin)) {
	t.Helper()
	t.Run("its own connection", func(t *testing.T) {
		f := newFleet(t)
		test(t, f, f.session)
	})
	t.Run("a call", func(t *testing.T) {
		f := newFleet(t)
		test(t, f, func(ctx context.Context, id *pki.Identity) (wire.AgentService_SessionClient, error) {
			return wire.NewAgentServiceClient(f.dial(id)).Session(ctx)
		})
	})
}

// join lets a machine in, over the socket.
func (f *fleet) join(label string) (*pki.Identity, string) {
	f.t.Helper()
	tok, err := f.options.Register.Invite(f.t.Context(), pki.RoleAgent, f.address, time.Now(), 0)
	if err != nil {
		f.t.Fatal(err)
	}
	dir := filepath.Join(f.t.TempDir(), "id")
	id, err := agent.Join(f.t.Context(), agent.JoinOptions{Token: tok, Dir: dir, Label: label, Wall: time.Now})
	if err != nil {
		f.t.Fatal(err)
	}
	return id, dir
}

// box is a machine with a toy on it and an agent.
type box struct {
	f     *fleet
	toy   *toy
	id    *pki.Identity
	dir   string // of the identity
	state string
	host  fettle.Subject
	stop  func()
}

func (f *fleet) box(label string) *box {
	f.t.Helper()
	id, dir := f.join(label)
	b := &box{f: f, id: id, dir: dir, state: filepath.Join(f.t.TempDir(), "state"), host: id.Name.Host(), toy: newToy("main")}
	b.start()
	return b
}

// start starts the agent; the one before must have been stopped.
func (b *box) start(change ...func(*agent.Options)) {
	b.f.t.Helper()
	o := b.options()
	for _, c := range change {
		c(&o)
	}
	a, err := agent.New(o)
	if err != nil {
		b.f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	var once sync.Once
	b.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				b.f.t.Errorf("agent: %v", err)
			}
		})
	}
	b.f.t.Cleanup(b.stop)
}

func (b *box) options() agent.Options {
	m := memmachine.New(memmachine.Options{Host: b.id.Name.ID, Hostname: "box"}).Ports()
	return agent.Options{
		Server: b.f.address, Identity: b.id, IdentityDir: b.dir, StateDir: b.state, Machine: m,
		Adapters: []machine.Adapter{b.toy}, Catalogues: []fettle.Catalogue{server.Catalogue()}, Version: "test", Log: logger(b.f.t),
		Rediscover: 50 * time.Millisecond, Digest: 50 * time.Millisecond,
	}
}

// subject is the toy of this box.
func (b *box) subject() fettle.Subject { return fettle.NewSubject("toy", b.id.Name.ID, b.toy.name) }

// seen waits until the toy was seen like this.
func (b *box) seen(from int, what string, up bool) fettle.Observation {
	b.f.t.Helper()
	return b.f.brain.await(b.f.t, from, what, func(o fettle.Observation) bool {
		is, known := o.Facts.Bool("up")
		return o.Subject == b.subject() && known && is == up
	})
}

// connected waits until the agent is connected, or not.
func (b *box) connected(from int, is bool) fettle.Observation {
	b.f.t.Helper()
	return b.f.brain.await(b.f.t, from, fmt.Sprintf("connected %v", is), func(o fettle.Observation) bool {
		c, _ := o.Facts.Bool("connected")
		return o.Probe == server.AgentProbe && o.Subject == b.host && c == is
	})
}

// dispatch makes a dispatch of the toy's action for the present agent.
func (b *box) dispatch(key string, token fettle.Token) fettle.Dispatch {
	b.f.t.Helper()
	inc, ok := b.f.server.Incarnation(b.host)
	if !ok {
		b.f.t.Fatal("the agent is not connected")
	}
	return b.dispatchTo(inc, key, token)
}

// dispatchTo makes a dispatch for an agent that was connected a moment ago.
func (b *box) dispatchTo(inc, key string, token fettle.Token) fettle.Dispatch {
	return fettle.Dispatch{Schema: 1, Key: key, Incarnation: inc, Token: token, Deadline: time.Now().Add(patience),
		Step: fettle.Step{ID: "s", Action: "toy.start", Version: 1, Target: b.subject(), Host: b.host, Timeout: patience}}
}

func (f *fleet) token(revision uint64) fettle.Token {
	return fettle.Token{Fleet: f.ca.Fleet(), Epoch: 1, Revision: revision}
}

var _ loop.Hands = (*server.Server)(nil)
