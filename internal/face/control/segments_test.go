package control

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/store"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
	"fettle/internal/machine/linuxmachine"
	"fettle/internal/machine/loopback"
)

// running is a server that runs.
type running struct {
	*Server
	t    *testing.T
	o    Options
	stop func()
}

// start runs a server, a further one with a token, until the test ends or it is stopped.
func start(t *testing.T, o Options) *running {
	t.Helper()
	ready := make(chan string, 1)
	o.OnReady = func(address string) { ready <- address }
	c, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.Run(ctx); err != nil {
			t.Errorf("server in %s: %v", o.Dir, err)
		}
	}()
	<-ready
	o.Peers.Join = nil
	r := &running{Server: c, t: t, o: o}
	r.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		if err := c.Close(); err != nil {
			t.Logf("close: %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// until waits until something is so; looking is cheap.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.NewTimer(time.Minute)
	defer end.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for !ok() {
		select {
		case <-look.C:
		case <-end.C:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// record puts so many entries into the log, by way of whichever of the servers leads: on a
// slow machine that changes now and then.
func record(t *testing.T, n int, servers ...*running) {
	t.Helper()
	for i := range n {
		until(t, "an entry is recorded", func() bool {
			return slices.ContainsFunc(servers, func(r *running) bool {
				return leads(r) && r.Loop().Record(t.Context(), "run", fmt.Sprint("entry ", i), nil) == nil
			})
		})
	}
}

func (r *running) segments() []string {
	list, err := filepath.Glob(filepath.Join(StoreDir(r.o.Dir), "segments", "*.jsonl"))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range list {
		list[i] = filepath.Base(list[i])
	}
	return list
}

func (r *running) verify() int64 {
	r.t.Helper()
	n, err := r.st.Check(r.t.Context())
	if err != nil {
		r.t.Error(err)
	}
	return n
}

// TestServerThatWasAwayGetsTheFiles: three servers, one of them away while entries leave
// the store. It gets the files over the servers' own wire when it is back, and the log is
// whole on each, from its first entry on, also when it is that one that leads.
func TestServerThatWasAwayGetsTheFiles(t *testing.T) {
	host, err := linuxmachine.Open(t.Context(), linuxmachine.Config{Host: "server"})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	options := func(join *pki.Token) Options {
		peer := loopback.Address(t)
		return Options{
			Dir: t.TempDir(), Listen: loopback.Address(t), Label: "test", Clock: host.Ports().Clock, Version: "test",
			Books: func(env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
				return runbook.Load(fstest.MapFS{}, env, cats)
			},
			Limits: store.Limits{SegmentEntries: 20, KeepEntries: 10},
			Peers:  &Peers{Listen: peer, Join: join},
		}
	}
	a := start(t, options(nil))
	until(t, "the first leads", func() bool { _, leads := a.st.Tip(t.Context()); return leads == nil })
	join := func() *running {
		t.Helper()
		token, err := a.register.Invite(t.Context(), pki.RoleServer, a.o.Listen, a.o.Clock.Wall(), 0)
		if err != nil {
			t.Fatal(err)
		}
		r := start(t, options(&token))
		until(t, "it has a vote", func() bool {
			list, err := a.st.Members(t.Context())
			for _, m := range list {
				if m.Name == r.srv.Subject().Name() {
					return err == nil && !m.Learner
				}
			}
			return false
		})
		return r
	}
	b, c := join(), join()
	c.stop()
	record(t, 150, a, b)
	until(t, "most entries are in files", func() bool { u, _ := a.st.Usage(); return u.InFiles >= 120 })
	if len(c.segments()) != 0 {
		t.Fatalf("it was away and has %v", c.segments())
	}

	c = start(t, c.o)
	until(t, "it has what the others have", func() bool { return strings.Join(c.segments(), " ") == strings.Join(a.segments(), " ") })
	n := a.verify()
	if got := c.verify(); got < n || n < 150 {
		t.Errorf("%d entries at the one that was away, %d at the leader", got, n)
	}

	b.stop() // then only that one can lead with the first one's vote
	a.stop()
	b = start(t, b.o)
	until(t, "another leads", func() bool {
		for _, r := range []*running{b, c} {
			if leads(r) {
				a = r
				return true
			}
		}
		return false
	})
	if got := a.verify(); got < n {
		t.Errorf("%d entries with another leader, %d before", got, n)
	}
	record(t, 1, b, c)
	if hash, err := a.st.HashAt(t.Context(), 1); err != nil || hash == "" {
		t.Errorf("the first entry: %q, %v", hash, err)
	}
}

// leads reports whether a server's mind runs: its loop answers.
func leads(r *running) bool {
	ctx, cancel := context.WithTimeout(r.t.Context(), 100*time.Millisecond)
	defer cancel()
	return r.Loop().Ask(ctx, func(*incident.Mind) {}) == nil
}
