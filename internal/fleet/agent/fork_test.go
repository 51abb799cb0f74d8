package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"fettle/internal/fettle"
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

// site is a server with its loop and its store on disk, and a machine with a lamp.
type site struct {
	t        *testing.T
	ca       *pki.CA
	register *pki.Register
	dir      string
	open     func(ctx context.Context, dir, fleet string) (loop.Store, error)
	lamp     *lamp
	agent    Options

	store  *spied
	server *server.Server
	down   func()
}

// spied is a store that tells under which token its loop works.
type spied struct {
	loop.Store
	mu    sync.Mutex
	token fettle.Token
}

func (s *spied) Load(ctx context.Context) (loop.State, error) {
	state, err := s.Store.Load(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = state.Token
	return state, err
}

// Tip and HashAt are the store's.
func (s *spied) Tip(ctx context.Context) (loop.Tip, error) {
	return s.Store.(interface {
		Tip(context.Context) (loop.Tip, error)
	}).Tip(ctx)
}

func (s *spied) HashAt(ctx context.Context, seq int64) (string, error) {
	return s.Store.(interface {
		HashAt(context.Context, int64) (string, error)
	}).HashAt(ctx, seq)
}

// Charter is the store's.
func (s *spied) Charter(ctx context.Context) ([]byte, error) {
	c, ok := s.Store.(interface {
		Charter(context.Context) ([]byte, error)
	})
	if !ok {
		return nil, nil
	}
	return c.Charter(ctx)
}

func openEtcd(ctx context.Context, dir, fleet string) (loop.Store, error) {
	return store.OpenEtcd(ctx, store.EtcdOptions{Dir: dir, Fleet: fleet})
}

func newSite(t *testing.T, open func(context.Context, string, string) (loop.Store, error)) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), open: open, lamp: &lamp{found: found("hall")}}
	var err error
	if s.ca, err = pki.Init(filepath.Join(s.dir, "pki"), time.Now()); err != nil {
		t.Fatal(err)
	}
	s.register = pki.NewRegister(s.ca, pki.Folder(s.dir))
	id := admitted(t, s.ca, s.register)
	s.agent = Options{
		Identity: id, StateDir: filepath.Join(s.dir, "state"), Rediscover: 10 * time.Millisecond,
		Machine: memmachine.New(memmachine.Options{Host: id.Name.ID}).Ports(), Adapters: []machine.Adapter{s.lamp},
		Catalogues: []fettle.Catalogue{server.Catalogue()},
	}
	return s
}

// admitted lets a machine in.
func admitted(t *testing.T, ca *pki.CA, in *pki.Register) *pki.Identity {
	t.Helper()
	authority, err := ca.Mint(pki.RoleServer, "s", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	req, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	_, cert, err := in.Admit(t.Context(), req.CSR, "one", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	id, err := req.Complete(cert, authority.Authority(), ca.Pin())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// lampIs is the subject of the lamp.
func (s *site) lampIs() fettle.Subject {
	return fettle.NewSubject("lamp", s.agent.Identity.Name.ID, "hall")
}

// up starts store, loop and server on what is kept; the ones before are down.
func (s *site) up() {
	s.t.Helper()
	st, err := s.open(s.t.Context(), s.storeDir(), s.ca.Fleet())
	if err != nil {
		s.t.Fatal(err)
	}
	s.store = &spied{Store: st}
	cats := []fettle.Catalogue{server.Catalogue(), s.lamp.Catalogue()}
	mind, err := incident.New(incident.Options{
		Catalogues: cats, Evaluates: []fettle.Scope{fettle.ClusterScope},
		Books: func(env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
			return runbook.Load(fstest.MapFS{}, env, cats)
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if s.server, err = server.New(server.Options{
		CA: s.ca, Register: s.register, Dir: filepath.Join(s.dir, "server"), History: s.store, Catalogues: cats, Clock: s.agent.Machine.Clock,
		Interval: 100 * time.Millisecond,
	}); err != nil {
		s.t.Fatal(err)
	}
	// What the agent tells is not fed into the loop: its incidents are not what is
	// tested, and the log is then only what the test writes.
	l := loop.New(loop.Options{Mind: mind, Store: s.store, Hands: s.server, Clock: s.agent.Machine.Clock})
	listener := loopback.Listen(s.t, s.agent.Server)
	s.agent.Server = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := l.Run(ctx); err != nil {
			s.t.Errorf("loop: %v", err)
		}
	})
	serve, stopServing := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.server.Run(serve, deaf{l}, listener) }()
	var once sync.Once
	s.down = func() {
		once.Do(func() {
			stopServing()
			if err := <-served; err != nil {
				s.t.Errorf("server: %v", err)
			}
			cancel()
			wg.Wait()
			if err := st.Close(); err != nil {
				s.t.Errorf("store: %v", err)
			}
		})
	}
	s.t.Cleanup(s.down)
	if err := l.Ask(s.t.Context(), func(*incident.Mind) {}); err != nil { // it has loaded
		s.t.Fatal(err)
	}
}

// deaf is a loop that is told nothing.
type deaf struct{ *loop.Loop }

func (deaf) Feed(incident.Input) {}

func (s *site) storeDir() string { return filepath.Join(s.dir, "store") }

// decide writes so many entries to the log.
func (s *site) decide(n int, what string) {
	s.t.Helper()
	s.store.mu.Lock()
	token := s.store.token
	s.store.mu.Unlock()
	for range n {
		if err := s.store.Commit(s.t.Context(), loop.Txn{Token: token, Log: []loop.Entry{{At: time.Now(), Kind: "note", Text: what}}}); err != nil {
			s.t.Fatal(err)
		}
	}
}

// step has the lamp lit under a key, as the loop would: its intent first.
func (s *site) step(key string) fettle.Outcome {
	s.t.Helper()
	host := s.agent.Identity.Name.Host()
	var incarnation string
	wait(s.t, "the agent is connected", func() (ok bool) {
		incarnation, ok = s.server.Incarnation(host)
		return ok
	})
	wait(s.t, "the lamp is looked after", func() bool {
		got := s.server.Look(s.t.Context(), []fettle.Look{{Subject: s.lampIs(), Probe: "lamp.state"}})
		return len(got) == 1 && got[0].Known()
	})
	s.decide(1, "intent of "+key)
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	out, err := s.server.Do(s.t.Context(), fettle.Dispatch{
		Schema: 1, Key: key, Incarnation: incarnation, Token: s.store.token, Deadline: time.Now().Add(patience),
		Step: fettle.Step{ID: "s", Action: "lamp.light", Version: 1, Target: s.lampIs(), Host: host, Timeout: time.Second},
	})
	if err != nil {
		s.t.Fatalf("step %s: %v", key, err)
	}
	return out
}

func (s *site) lit() int {
	s.lamp.mu.Lock()
	defer s.lamp.mu.Unlock()
	return s.lamp.lit["hall"]
}

// refuses returns what the server says of this host to people.
func (s *site) refuses() string {
	s.t.Helper()
	admin, err := s.ca.Mint(pki.RoleViewer, "ann", time.Now(), time.Hour)
	if err != nil {
		s.t.Fatal(err)
	}
	conn, err := wire.Dial(s.agent.Server, pki.ClientTLS(func() *pki.Identity { return admin }, time.Now))
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	r, err := wire.NewAdminServiceClient(conn).Hosts(s.t.Context(), &wire.HostsRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, h := range r.GetHosts() {
		if h.GetId() == s.agent.Identity.Name.ID {
			return h.GetLogRefused()
		}
	}
	return ""
}

// forked makes a site whose server's store was restored from a copy, after which an
// agent had done a step and the log had gone on; and on which as many other decisions
// were then written. Its leader's token is the same as before: nothing but the log
// tells the difference. The agent runs.
func forked(t *testing.T, others int, change func(*Agent)) (s *site, said func() string) {
	t.Helper()
	s = newSite(t, openEtcd)
	var mu sync.Mutex
	var text strings.Builder
	s.agent.Log = slog.New(slog.NewTextHandler(lockedWriter{&mu, &text}, &slog.HandlerOptions{Level: slog.LevelError}))
	s.up()
	s.decide(3, "before the copy")
	s.down()
	if err := os.CopyFS(filepath.Join(s.dir, "copy"), os.DirFS(s.storeDir())); err != nil {
		t.Fatal(err)
	}
	s.up()
	_, stop := start(t, s.agent)
	s.decide(2, "after the copy")
	if out := s.step("k1"); out.Fate != fettle.Done || out.Class != "" || s.lit() != 1 {
		t.Fatalf("before the fork: %+v, lit %d times", out, s.lit())
	}
	token := s.store.token
	stop()
	s.down()
	if err := os.Rename(s.storeDir(), filepath.Join(s.dir, "newest")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(s.storeDir(), os.DirFS(filepath.Join(s.dir, "copy"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.storeDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	s.up()
	s.decide(others, "of another history")
	if s.store.token != token {
		t.Fatalf("the token is %+v, it was %+v: something else than the log tells the difference", s.store.token, token)
	}
	a, err := New(s.agent)
	if err != nil {
		t.Fatal(err)
	}
	change(a)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("agent: %v", err)
		}
	})
	return s, func() string {
		mu.Lock()
		defer mu.Unlock()
		return text.String()
	}
}

// TestForkedServerIsNotObeyed: a server whose store was restored from an older copy
// gets no step done, whether its log is now shorter or has gone on otherwise; the
// agent says why to who asked, to its log (once), and to people; it goes on observing;
// and it obeys again when the newest store is back.
func TestForkedServerIsNotObeyed(t *testing.T) {
	for _, others := range []int{0, 9} {
		t.Run(fmt.Sprintf("%d other decisions", others), func(t *testing.T) {
			s, said := forked(t, others, func(*Agent) {})
			for i := range 2 {
				out := s.step(fmt.Sprint("k2-", i))
				if out.Fate != fettle.NeverWillBe || out.Class != fettle.Refused || s.lit() != 1 {
					t.Fatalf("the forked server's step: %+v, lit %d times", out, s.lit())
				}
				if !strings.Contains(out.Error, "forked") || !strings.Contains(out.Error, "new epoch") {
					t.Errorf("it does not say why, or what to do: %s", out.Error)
				}
			}
			if got := s.server.Look(t.Context(), []fettle.Look{{Subject: s.lampIs(), Probe: "lamp.state"}}); len(got) != 1 || !got[0].Known() {
				t.Errorf("it does not observe any more: %+v", got)
			}
			wait(t, "people can see it", func() bool { return strings.Contains(s.refuses(), "forked") })
			if n := strings.Count(said(), "is not obeyed"); n != 1 {
				t.Errorf("its log says so %d times: %s", n, said())
			}
			// The newest store is back.
			s.down()
			if err := errors.Join(os.RemoveAll(s.storeDir()), os.Rename(filepath.Join(s.dir, "newest"), s.storeDir())); err != nil {
				t.Fatal(err)
			}
			s.up()
			if out := s.step("k3"); out.Fate != fettle.Done || out.Class != "" || s.lit() != 2 {
				t.Errorf("with the newest store: %+v, lit %d times", out, s.lit())
			}
			if why := s.refuses(); why != "" {
				t.Errorf("with the newest store people are told: %s", why)
			}
		})
	}
}

// TestForkWithoutTheCheck: with the comparison of heads stubbed to allow, the forked
// server gets its step done: nothing else stops it, so the comparison is needed.
func TestForkWithoutTheCheck(t *testing.T) {
	s, _ := forked(t, 9, func(a *Agent) { a.unbound = true })
	if out := s.step("k2"); out.Fate != fettle.Done || out.Class != "" || s.lit() != 2 {
		t.Errorf("something else than the head refuses it: %+v, lit %d times", out, s.lit())
	}
}
