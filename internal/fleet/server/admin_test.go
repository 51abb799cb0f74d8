package server_test

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fettle"
	"fettle/internal/fleet/agent"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/store/storetest"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

func inputAbout(s fettle.Subject) func(incident.Input) bool {
	return func(in incident.Input) bool {
		return len(in.Observations) > 0 && in.Observations[0].Subject == s
	}
}

// host returns one host as Hosts tells it.
func host(t *testing.T, c wire.AdminServiceClient, id string) *wire.Host {
	t.Helper()
	r, err := c.Hosts(t.Context(), &wire.HostsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range r.GetHosts() {
		if h.GetId() == id {
			return h
		}
	}
	t.Fatalf("host %s is not among %v", id, r.GetHosts())
	return nil
}

func TestHostsAndForget(t *testing.T) {
	f := newFleet(t)
	b := f.box("one")
	b.seen(0, "the first look", true)
	away, _ := f.join("away")
	admin := f.admin(pki.RoleAdmin)
	h := host(t, admin, b.id.Name.ID)
	if !h.GetConnected() || h.GetLabel() != "box" || h.GetIncarnation() == "" || h.GetAgeNs() < 0 || h.GetVersion() != "test" || h.GetAddress() == "" {
		t.Errorf("one is %v", h)
	}
	if h := host(t, admin, away.Name.ID); h.GetConnected() || h.GetLabel() != "away" || h.GetAgeNs() != -1 {
		t.Errorf("away is %v", h)
	}
	if _, err := admin.Forget(t.Context(), &wire.ForgetRequest{Id: "nobody"}); status.Code(err) != codes.NotFound {
		t.Errorf("forget nobody: %v", err)
	}
	from := f.brain.mark()
	if _, err := admin.Forget(t.Context(), &wire.ForgetRequest{Id: b.id.Name.ID}); err != nil {
		t.Fatal(err)
	}
	f.brain.await(t, from, "its things are gone", func(o fettle.Observation) bool { return o.Subject == b.subject() && o.Gone })
	if err := call(t, f.dial(b.id), wire.AgentService_Session_FullMethodName); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "sent away") {
		t.Errorf("it comes back: %v", err)
	}
	if _, ok := f.server.Incarnation(b.host); ok {
		t.Error("it still has a session")
	}
}

func TestJoinToken(t *testing.T) {
	f := newFleet(t)
	r, err := f.admin(pki.RoleAdmin).JoinToken(t.Context(), &wire.JoinTokenRequest{})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := pki.ParseToken(r.GetToken())
	if err != nil || tok.Address != f.address {
		t.Fatalf("token %+v, %v; the server is at %s", tok, err, f.address)
	}
	if _, err := f.admin(pki.RoleAdmin).JoinToken(t.Context(), &wire.JoinTokenRequest{Address: "no port"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("for an address without a port: %v", err)
	}
}

// TestFreeze: the fleet's freeze reaches the mind and the agents, which confirm
// it; who has not is named; it is there for agents that come later.
func TestFreeze(t *testing.T) {
	f := newFleet(t)
	b := f.box("one")
	b.seen(0, "the first look", true)
	away, _ := f.join("away")
	admin := f.admin(pki.RoleAdmin)
	if _, err := f.admin(pki.RoleOperator).SetFreeze(t.Context(), &wire.SetFreezeRequest{Why: "maintenance"}); err != nil {
		t.Fatal(err)
	}
	in := f.brain.awaitInput(t, 0, "the freeze", func(in incident.Input) bool { return in.Freeze != nil })
	if in.Freeze.By != "ann" || in.Freeze.Why != "maintenance" {
		t.Errorf("frozen by %+v", in.Freeze)
	}
	confirmed := func(want bool) {
		t.Helper()
		for end := time.Now().Add(patience); host(t, admin, b.id.Name.ID).GetFrozen() != want; {
			if time.Now().After(end) {
				t.Fatalf("the agent did not confirm %v", want)
			}
		}
	}
	confirmed(true)
	s, err := admin.Status(t.Context(), &wire.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	freeze, err := wire.Unpack[guard.Freeze](s.GetFreeze())
	if err != nil || freeze.By != "ann" || len(s.GetNotFrozen()) != 1 || s.GetNotFrozen()[0] != string(away.Name.Host()) {
		t.Errorf("status %v; freeze %+v, %v", s, freeze, err)
	}
	if s.GetHosts() != 2 || s.GetConnected() != 1 || s.GetFleet() != f.ca.Fleet() {
		t.Errorf("status %v", s)
	}
	b.stop()
	from := f.brain.mark()
	b.start()
	b.connected(from, true)
	confirmed(true)
	if _, err := admin.Thaw(t.Context(), &wire.ThawRequest{}); err != nil {
		t.Fatal(err)
	}
	f.brain.awaitInput(t, from, "the thaw", func(in incident.Input) bool { return in.Thaw })
	confirmed(false)

	// Of a reason without an end the beginning is kept: it goes to every agent.
	from = f.brain.mark()
	if _, err := admin.SetFreeze(t.Context(), &wire.SetFreezeRequest{Why: strings.Repeat("because ", 1<<17)}); err != nil {
		t.Fatal(err)
	}
	in = f.brain.awaitInput(t, from, "the second freeze", func(in incident.Input) bool { return in.Freeze != nil })
	if n := len(in.Freeze.Why); n < 500 || n > 1500 {
		t.Errorf("of a reason of a mebibyte %d bytes are kept", n)
	}
}

// TestLocalFreeze: a file on the machine stops every step there, also one that
// the server allowed, and the server is told.
func TestLocalFreeze(t *testing.T) {
	f := newFleet(t)
	b := f.box("one")
	b.toy.setUp(false)
	b.seen(0, "down", false)
	if err := agent.Freeze(b.state, "hands off"); err != nil {
		t.Fatal(err)
	}
	out, err := f.server.Do(t.Context(), b.dispatch("k1", f.token(1)))
	if err != nil || out.Class != fettle.Refused || !strings.Contains(out.Error, "frozen") || b.toy.applications("k1") != 0 {
		t.Errorf("frozen: %+v, %v; applied %d times", out, err, b.toy.applications("k1"))
	}
	admin := f.admin(pki.RoleViewer)
	for end := time.Now().Add(patience); ; {
		if h := host(t, admin, b.id.Name.ID); h.GetFrozen() && h.GetFrozenWhy() == "hands off" {
			break
		} else if time.Now().After(end) {
			t.Fatalf("the server does not know: %v", h)
		}
	}
	if err := agent.Thaw(b.state); err != nil {
		t.Fatal(err)
	}
	if out, err := f.server.Do(t.Context(), b.dispatch("k2", f.token(1))); err != nil || out.Fate != fettle.Done || out.Class != "" {
		t.Errorf("thawed: %+v, %v", out, err)
	}
	if err := os.Mkdir(agent.FreezeFile(b.state), 0o700); err != nil { // not even a file
		t.Fatal(err)
	}
	if out, err := f.server.Do(t.Context(), b.dispatch("k3", f.token(1))); err != nil || out.Class != fettle.Refused {
		t.Errorf("what cannot be told is a freeze: %+v, %v", out, err)
	}
}

func TestAnswer(t *testing.T) {
	f := newFleet(t)
	c := f.admin(pki.RoleApprover)
	send := func(a incident.Answer, life time.Duration) error {
		data, err := wire.Pack(a)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Answer(t.Context(), &wire.AnswerRequest{Json: data, ForNs: int64(life)})
		return err
	}
	if err := send(incident.Answer{Incident: "a", Say: incident.SayApprove, Plan: "h", By: "somebody else", Until: time.Now().Add(1000 * time.Hour)}, time.Minute); err != nil {
		t.Fatal(err)
	}
	got := f.brain.answer[0]
	if got.By != "ann (somebody else)" || got.Plan != "h" || time.Until(got.Until) > time.Minute || time.Until(got.Until) < time.Minute/2 {
		t.Errorf("it came as %+v", got)
	}
	if err := send(incident.Answer{Incident: "none", Say: incident.SayRefuse}, 0); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "none of this name") {
		t.Errorf("an answer that cannot be taken: %v", err)
	}
	if _, err := c.Answer(t.Context(), &wire.AnswerRequest{Json: []byte("{")}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("rubbish: %v", err)
	}
}

// down makes an incident of a lost agent: the one condition that this mind knows.
func down(t *testing.T, f *fleet) fettle.Incident {
	t.Helper()
	o := fettle.Observation{Subject: "toy:x/y", Host: "host:x", Probe: "toy.state", Facts: fettle.Facts{"up": true, "note": "odd"}, Asked: time.Now()}
	f.brain.Feed(incident.Input{Observations: []fettle.Observation{o}})
	var list []fettle.Incident
	if err := f.brain.Ask(t.Context(), func(m *incident.Mind) { list = m.Incidents() }); err != nil || len(list) != 1 {
		t.Fatalf("incidents %v, %v", list, err)
	}
	return list[0]
}

func TestIncidentsAndGroups(t *testing.T) {
	f := newFleet(t)
	want := down(t, f)
	c := f.admin(pki.RoleViewer)
	one, err := c.Incident(t.Context(), &wire.IncidentRequest{Id: want.ID})
	if err != nil {
		t.Fatal(err)
	}
	got, err := wire.Unpack[fettle.Incident](one.GetJson())
	if err != nil || got.ID != want.ID || len(got.Story) != len(want.Story) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := c.Incident(t.Context(), &wire.IncidentRequest{Id: "nope"}); status.Code(err) != codes.NotFound {
		t.Errorf("an incident that is not there: %v", err)
	}
	list, err := c.Incidents(t.Context(), &wire.IncidentsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if n := drain(t, list.Recv); n != 1 {
		t.Errorf("%d incidents", n)
	}
	groups, err := c.Groups(t.Context(), &wire.GroupsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if n := drain(t, groups.Recv); n != 1 {
		t.Errorf("%d groups", n)
	}
	conds, err := c.Conditions(t.Context(), &wire.ConditionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if n := drain(t, conds.Recv); n != 1 {
		t.Errorf("%d conditions", n)
	}
	s, err := c.Status(t.Context(), &wire.StatusRequest{})
	if err != nil || s.GetOpenIncidents() != 1 || s.GetWaitingForPeople() != 1 {
		t.Errorf("status %v, %v", s, err)
	}
}

func drain[T any](t *testing.T, recv func() (T, error)) int {
	t.Helper()
	for n := 0; ; n++ {
		if _, err := recv(); errors.Is(err, io.EOF) {
			return n
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestLog(t *testing.T) {
	f := newFleet(t)
	h := f.options.History.(loop.Store)
	s, err := h.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Commit(t.Context(), loop.Txn{Token: s.Token, Log: []loop.Entry{storetest.Entry("1"), storetest.Entry("2"), storetest.Entry("3")}}); err != nil {
		t.Fatal(err)
	}
	c := f.admin(pki.RoleViewer)
	for _, l := range []struct {
		from, most int64
		want       int
	}{{0, 0, 3}, {2, 0, 2}, {1, 2, 2}, {4, 0, 0}} {
		log, err := c.Log(t.Context(), &wire.LogRequest{From: l.from, Most: l.most})
		if err != nil {
			t.Fatal(err)
		}
		if n := drain(t, log.Recv); n != l.want {
			t.Errorf("from %d at most %d: %d entries, want %d", l.from, l.most, n, l.want)
		}
	}
}

// TestWatch: what is open first, then every change; who does not read misses
// some, is told how many, and holds nobody up.
func TestWatch(t *testing.T) {
	f := newFleet(t)
	open := down(t, f)
	w, err := f.admin(pki.RoleViewer).Watch(t.Context(), &wire.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	next := func() (fettle.Incident, *wire.WatchResponse) {
		t.Helper()
		m, err := w.Recv()
		if err != nil {
			t.Fatal(err)
		}
		i, err := wire.Unpack[fettle.Incident](m.GetJson())
		if err != nil {
			t.Fatal(err)
		}
		return i, m
	}
	if i, _ := next(); i.ID != open.ID || len(i.Story) != 0 {
		t.Errorf("first came %+v", i)
	}
	f.server.Changed(storetest.Record("a", 3), []fettle.Event{{Kind: fettle.EvNote, Text: "hello"}})
	i, m := next()
	if i.ID != "a" || len(m.GetEvents()) != 1 || len(i.Story) != 0 {
		t.Errorf("then came %+v with %d events", i, len(m.GetEvents()))
	}
	long := strings.Repeat("x", 64<<10)
	const many = 2000 // more than buffers and flow control hold
	for range many {
		f.server.Changed(storetest.Record("b", 0), []fettle.Event{{Kind: fettle.EvNote, Text: long}})
	}
	seen, missed := int64(0), int64(0)
	for seen+missed < many {
		f.server.Changed(storetest.Record("end", 0), nil)
		i, m := next()
		missed += m.GetMissed()
		if i.ID == "end" {
			break
		}
		seen++
	}
	if missed == 0 || seen == 0 {
		t.Errorf("saw %d and missed %d of %d", seen, missed, many)
	}
}
