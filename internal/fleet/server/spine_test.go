package server_test

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"fettle/internal/adapter/systemd"
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
	"fettle/internal/machine/memmachine"
	"fettle/internal/machine/units"
	"fettle/runbooks"
)

// spine is everything that `fettle up` is, over real sockets, certificates and an
// embedded etcd, on a machine in memory.
type spine struct {
	*fleet
	machine *memmachine.Machine
	store   *store.Etcd
	loop    *loop.Loop
	box     *box
}

// only is the runbooks of one adapter: those of others name what is not here.
func only(t *testing.T, adapter string) fs.FS {
	t.Helper()
	out := fstest.MapFS{}
	err := fs.WalkDir(runbooks.FS(), adapter, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(runbooks.FS(), path)
		out[path] = &fstest.MapFile{Data: data}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// up starts store, loop and server on what they left behind.
func (s *spine) up(t *testing.T, address string) func() {
	t.Helper()
	var err error
	if s.store, err = store.OpenEtcd(t.Context(), store.EtcdOptions{Dir: filepath.Join(s.dir, "store"), Fleet: s.ca.Fleet()}); err != nil {
		t.Fatal(err)
	}
	cats := []fettle.Catalogue{server.Catalogue(), systemd.Catalogue()}
	mind, err := incident.New(incident.Options{
		Catalogues: cats, Evaluates: []fettle.Scope{fettle.ClusterScope},
		Books: func(env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
			return runbook.Load(only(t, "systemd"), env, cats)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	o := s.options
	o.History, o.Catalogues = s.store, cats
	srv, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	s.loop = loop.New(loop.Options{Mind: mind, Store: s.store, Hands: srv, Clock: s.clock, OnChange: srv.Changed})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.loop.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("loop: %v", err)
		}
	})
	s.run(srv, s.loop, address)
	stopServer := s.stop
	var once sync.Once
	stop := func() {
		once.Do(func() {
			stopServer()
			cancel()
			wg.Wait()
			if err := s.store.Close(); err != nil {
				t.Errorf("store: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func newSpine(t *testing.T) (*spine, func()) {
	t.Helper()
	f := newFleet(t)
	f.stop()
	s := &spine{fleet: f}
	stop := s.up(t, f.address)
	id, dir := f.join("one")
	s.machine = memmachine.New(memmachine.Options{Host: id.Name.ID})
	s.machine.Define(units.Definition{Unit: machine.Unit{Name: "web.service", UnitFileState: "enabled"}}, memmachine.Behaviour{})
	if _, err := s.machine.Ports().Services.Start(t.Context(), "web.service"); err != nil {
		t.Fatal(err)
	}
	s.box = &box{f: f, id: id, dir: dir, state: filepath.Join(t.TempDir(), "state"), host: id.Name.Host(), toy: newToy("none")}
	return s, stop
}

func (s *spine) agent() {
	s.box.start(func(o *agent.Options) {
		o.Machine, o.Adapters = s.machine.Ports(), []machine.Adapter{systemd.Adapter{}}
	})
}

// await waits until an incident is as wanted, and returns it.
func (s *spine) await(t *testing.T, what string, want func(fettle.Incident) bool) fettle.Incident {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := s.admin(pki.RoleViewer)
	w, err := c.Watch(ctx, &wire.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := w.Recv()
		if err != nil {
			var list []fettle.Incident
			_ = s.loop.Ask(t.Context(), func(m *incident.Mind) { list = m.Incidents() })
			for _, i := range list {
				for _, e := range i.Story {
					t.Log(i.ID, e.Kind, e.Text)
				}
			}
			t.Fatalf("%s: %v", what, err)
		}
		i, err := wire.Unpack[fettle.Incident](m.GetJson())
		if err != nil {
			t.Fatal(err)
		}
		if want(i) {
			return i
		}
	}
}

// TestMendsThroughServerAndAgent: a service is killed on the machine, and started
// again by way of agent, server, store and agent.
func TestMendsThroughServerAndAgent(t *testing.T) {
	s, _ := newSpine(t)
	s.agent()
	unit := fettle.NewSubject(fettle.KindUnit, s.box.id.Name.ID, "web.service")
	s.know(t, unit)
	s.machine.Crash("web.service", 9)
	mended := s.await(t, "mended", func(i fettle.Incident) bool { return i.State == fettle.Resolved })
	if mended.Cause.Subject != unit {
		t.Errorf("mended %v", mended.Cause)
	}
	u, err := s.machine.Ports().Services.Unit(t.Context(), "web.service")
	if err != nil || u.ActiveState != "active" {
		t.Errorf("the unit is %+v, %v", u, err)
	}
	if n, err := s.store.Check(t.Context()); err != nil || n == 0 {
		t.Errorf("the log has %d entries, %v", n, err)
	}
}

// know waits until the mind has seen a subject.
func (s *spine) know(t *testing.T, subject fettle.Subject) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		known := false
		if err := s.loop.Ask(t.Context(), func(m *incident.Mind) { known = m.View().Known(subject) }); err != nil {
			t.Fatal(err)
		}
		if known {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s was never seen", subject)
		}
	}
}

// TestIncidentSurvivesTheServer: the server is restarted in the middle of an
// incident, and goes on with it from its store.
func TestIncidentSurvivesTheServer(t *testing.T) {
	s, stop := newSpine(t)
	s.agent()
	unit := fettle.NewSubject(fettle.KindUnit, s.box.id.Name.ID, "web.service")
	s.know(t, unit)
	s.machine.Crash("web.service", 9)
	acting := s.await(t, "acting", func(i fettle.Incident) bool { return i.State == fettle.Acting || i.State == fettle.Verifying })
	stop()
	s.up(t, s.address)
	mended := s.await(t, "mended", func(i fettle.Incident) bool { return i.State == fettle.Resolved })
	if mended.ID != acting.ID {
		t.Errorf("incident %s was mended, %s had begun", mended.ID, acting.ID)
	}
	if n, err := s.store.Check(t.Context()); err != nil || n == 0 {
		t.Errorf("the log has %d entries, %v", n, err)
	}
}
