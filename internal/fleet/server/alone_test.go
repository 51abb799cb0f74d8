package server_test

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fettle/internal/act/journal"
	"fettle/internal/adapter/systemd"
	"fettle/internal/fettle"
	"fettle/internal/fleet/agent"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
	"fettle/internal/loop"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
	"fettle/internal/machine/units"
)

// cutOff is a spine whose agent works alone soon after the server has gone.
func cutOff(t *testing.T, change ...func(*agent.Options)) (*spine, func()) {
	t.Helper()
	s, stop := newSpine(t)
	s.lone(change...)
	s.know(t, s.unit("web.service"))
	s.keepsPermit(t)
	return s, stop
}

// lone starts an agent that works alone where it must.
func (s *spine) lone(change ...func(*agent.Options)) {
	s.t.Helper()
	books := only(s.t.(*testing.T), "systemd")
	s.box.start(append([]func(*agent.Options){func(o *agent.Options) {
		o.Machine, o.Adapters = s.machine.Ports(), []machine.Adapter{systemd.Adapter{}}
		o.AloneAfter = 200 * time.Millisecond
		o.Books = func(env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
			return runbook.Load(books, env, cats)
		}
	}}, change...)...)
}

func (s *spine) unit(name string) fettle.Subject {
	return fettle.NewSubject(fettle.KindUnit, s.box.id.Name.ID, name)
}

// keepsPermit waits until the server has heard that the agent keeps a permit.
func (s *spine) keepsPermit(t *testing.T) {
	t.Helper()
	s.soon(t, "the agent to keep a permit", func() bool {
		r, err := s.admin(pki.RoleViewer).Permits(t.Context(), &wire.PermitsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range r.GetHosts() {
			if h.GetId() == s.box.id.Name.ID && h.GetSerial() != "" && time.Duration(h.GetLeftNs()) > 23*time.Hour {
				return len(r.GetGrants()) > 0
			}
		}
		return false
	})
}

// soon waits for what has no channel.
func (s *spine) soon(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); !is(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (s *spine) state(t *testing.T, unit string) machine.Unit {
	t.Helper()
	u, err := s.machine.Ports().Services.Unit(t.Context(), unit)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// merged are the entries of the one log that came from the agent's own.
func (s *spine) merged(t *testing.T) []loop.Entry {
	t.Helper()
	var list []loop.Entry
	if err := s.store.Log(t.Context(), 0, func(e loop.Entry) error {
		if e.Kind == "alone" {
			list = append(list, e)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

// alone waits for the incident that the agent went through alone.
func (s *spine) alone(t *testing.T) fettle.Incident {
	t.Helper()
	var found fettle.Incident
	s.soon(t, "the story to be told", func() bool {
		var list []fettle.Incident
		if err := s.loop.Ask(t.Context(), func(m *incident.Mind) { list = m.Incidents() }); err != nil {
			t.Fatal(err)
		}
		for _, i := range list {
			if i.Alone != nil {
				found = i
				return true
			}
		}
		return false
	})
	return found
}

// TestMendsAlone: the server is away, a service fails, and is started by its own
// agent under the standing permit; when the server is back it has the story, once, in
// one log that verifies.
func TestMendsAlone(t *testing.T) {
	var said lines
	s, stop := cutOff(t, func(o *agent.Options) { o.Log = said.logger() })
	stop()
	s.machine.Crash("web.service", 9)
	s.soon(t, "the service to run again", func() bool { return s.state(t, "web.service").ActiveState == "active" })
	s.up(t, s.address)
	in := s.alone(t)
	if in.State != fettle.Resolved || in.Cause.Subject != s.unit("web.service") || in.Alone.Host != s.box.host || in.Alone.Permit == "" {
		t.Errorf("the incident is %s of %s, %+v: %s", in.State, in.Cause, in.Alone, in.Why)
	}
	lines := s.merged(t)
	kinds := map[string]int{}
	for _, e := range lines {
		var data struct{ Host, Kind, Permit string }
		if err := json.Unmarshal(e.Data, &data); err != nil || data.Host != string(s.box.host) || data.Permit == "" || !strings.Contains(e.Text, "alone") {
			t.Errorf("a line of the story: %+v, %v", e, err)
		}
		kinds[data.Kind]++
	}
	for _, kind := range []string{"start", "alone", "raised", "intent", "done", "verified", "resolved"} {
		if kinds[kind] != 1 {
			t.Errorf("the story has %d lines %q, want 1: %v", kinds[kind], kind, kinds)
		}
	}
	if n, err := s.store.Check(t.Context()); err != nil || n < int64(len(lines)) {
		t.Errorf("the log has %d entries, %v", n, err)
	}
	s.soon(t, "the agent to let it go", func() bool { return strings.Contains(said.String(), "is in the fleet's log") })
	s.box.stop()
	st, err := store.OpenFile(t.Context(), filepath.Join(s.box.state, "alone"), s.ca.Fleet(), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if st.Entries() != 0 {
		t.Errorf("its own log has %d entries still", st.Entries())
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestNotForEverAlone: each time that the server is away the service fails, and is
// started; until it comes and goes. What was told to the server meanwhile is forgotten
// by nobody.
func TestNotForEverAlone(t *testing.T) {
	t.Parallel() // it waits for an outage to be one
	var said lines
	s, stop := cutOff(t, func(o *agent.Options) { o.Log = said.logger() })
	const most = 3 // per_subject of the default
	for n := range most {
		stop()
		s.machine.Crash("web.service", 9)
		s.soon(t, "the service to run again", func() bool { return s.state(t, "web.service").ActiveState == "active" })
		stop = s.up(t, s.address)
		s.soon(t, "the story to be let go", func() bool { return strings.Count(said.String(), "is in the fleet's log") == n+1 })
		s.keepsPermit(t)
	}
	stop()
	s.machine.Crash("web.service", 9)
	s.soon(t, "the step to be refused", func() bool { return strings.Contains(said.String(), "event=refused") })
	if u := s.state(t, "web.service"); u.ActiveState != "failed" {
		t.Errorf("the service is %s", u.ActiveState)
	}
	s.up(t, s.address)
	chains := map[string]int{}
	s.soon(t, "everything to be told", func() bool { return strings.Count(said.String(), "is in the fleet's log") == most+1 })
	for _, e := range s.merged(t) {
		var data struct{ Chain, Kind string }
		if err := json.Unmarshal(e.Data, &data); err != nil {
			t.Fatal(err)
		}
		if data.Kind == "intent" || data.Kind == "refused" {
			chains[data.Chain]++
		}
	}
	if len(chains) != most+1 {
		t.Errorf("the log tells of %d times: %v", len(chains), chains)
	}
	if _, err := s.store.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestDoneAloneIsTakenBack: what an agent did alone a person can take back, as
// anything that was done.
func TestDoneAloneIsTakenBack(t *testing.T) {
	s, stop := cutOff(t)
	stop()
	s.machine.Crash("web.service", 9)
	s.soon(t, "the service to run again", func() bool { return s.state(t, "web.service").ActiveState == "active" })
	s.up(t, s.address)
	in := s.alone(t)
	s.know(t, s.unit("web.service"))
	s.soon(t, "the agent to have told everything", func() bool {
		var settled bool
		if err := s.loop.Ask(t.Context(), func(m *incident.Mind) { settled, _ = m.View().Facts(s.box.host).Bool("settled") }); err != nil {
			t.Fatal(err)
		}
		return settled
	})
	if err := s.loop.Answer(t.Context(), incident.Answer{Incident: in.ID, Say: incident.SayUndo, By: "ann"}); err != nil {
		t.Fatal(err)
	}
	s.soon(t, "the start to be taken back", func() bool { return s.state(t, "web.service").ActiveState == "inactive" })
}

// lines is a log that a test reads.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// TestNothingAloneWithoutAPermit: a host that has none observes, and does nothing.
func TestNothingAloneWithoutAPermit(t *testing.T) {
	s, stop := cutOff(t)
	s.box.stop()
	stop()
	if err := os.Remove(filepath.Join(s.box.state, "permit")); err != nil {
		t.Fatal(err)
	}
	var said lines
	s.lone(func(o *agent.Options) { o.Log = said.logger() })
	s.machine.Crash("web.service", 9)
	s.soon(t, "the agent to say why it does nothing", func() bool { return strings.Contains(said.String(), "may do nothing by itself") })
	if u := s.state(t, "web.service"); u.ActiveState != "failed" {
		t.Errorf("the service is %s", u.ActiveState)
	}
}

// TestLeftAloneWhenFrozen: what was frozen when a server was last heard stays so,
// also over a restart of the agent.
func TestLeftAloneWhenFrozen(t *testing.T) {
	s, stop := cutOff(t)
	if _, err := s.admin(pki.RoleOperator).SetFreeze(t.Context(), &wire.SetFreezeRequest{Why: "work"}); err != nil {
		t.Fatal(err)
	}
	s.soon(t, "the agent to have confirmed the freeze", func() bool {
		st, err := s.admin(pki.RoleViewer).Status(t.Context(), &wire.StatusRequest{})
		return err == nil && len(st.GetNotFrozen()) == 0
	})
	s.box.stop()
	stop()
	var said lines
	s.lone(func(o *agent.Options) { o.Log = said.logger() })
	s.machine.Crash("web.service", 9)
	s.soon(t, "the step to be refused", func() bool { return strings.Contains(said.String(), "the fleet was frozen") })
	if u := s.state(t, "web.service"); u.ActiveState != "failed" {
		t.Errorf("the service is %s", u.ActiveState)
	}
}

// TestStoppedByAPersonStaysAlone: a person's change wins, with or without a server.
func TestStoppedByAPersonStaysAlone(t *testing.T) {
	s, stop := cutOff(t)
	s.machine.Define(units.Definition{Unit: machine.Unit{Name: "other.service", UnitFileState: "enabled"}}, memmachine.Behaviour{})
	if _, err := s.machine.Ports().Services.Start(t.Context(), "other.service"); err != nil {
		t.Fatal(err)
	}
	if err := s.machine.StopAsPerson(t.Context(), "web.service"); err != nil {
		t.Fatal(err)
	}
	stop()
	s.machine.Crash("other.service", 9)
	s.soon(t, "the other service to run again", func() bool { return s.state(t, "other.service").ActiveState == "active" })
	if u := s.state(t, "web.service"); u.ActiveState != "inactive" {
		t.Errorf("what a person stopped is %s", u.ActiveState)
	}
}
