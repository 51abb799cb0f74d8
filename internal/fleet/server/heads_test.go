package server_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/loghead"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/server"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/wire"
	"fettle/internal/loop"
)

// logged is a fleet whose log a test writes, and a host's identity.
type logged struct {
	*fleet
	history *store.Memory
	token   fettle.Token
	id      *pki.Identity
}

func newLogged(t *testing.T) *logged {
	t.Helper()
	l := &logged{}
	l.fleet = newFleet(t, func(o *server.Options) {
		l.history = store.NewMemory(o.CA.Fleet())
		o.History = l.history
	})
	state, err := l.history.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.token = state.Token
	l.id, _ = l.join("one")
	return l
}

func (l *logged) write(entries int) loop.Tip {
	l.t.Helper()
	for range entries {
		if err := l.history.Commit(l.t.Context(), loop.Txn{Token: l.token, Log: []loop.Entry{{At: time.Now(), Kind: "note", Text: "x"}}}); err != nil {
			l.t.Fatal(err)
		}
	}
	tip, err := l.history.Tip(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	return tip
}

// open verifies a head as an agent does.
func (l *logged) open(h *wire.SignedHead) loghead.Statement {
	l.t.Helper()
	v, err := l.id.ServerNotes(h.GetCertificate(), time.Now())
	if err != nil {
		l.t.Fatal(err)
	}
	st, err := loghead.Open(h.GetNote(), v)
	if err != nil {
		l.t.Fatal(err)
	}
	if st.Fleet != l.ca.Fleet() {
		l.t.Errorf("it is of fleet %s", st.Fleet)
	}
	return st
}

// session says hello with a head, and returns the stream and the welcome.
func (l *logged) session(kept *wire.LogHead) (wire.AgentService_SessionClient, *wire.Welcome) {
	l.t.Helper()
	stream, err := l.fleet.session(l.t.Context(), l.id)
	if err != nil {
		l.t.Fatal(err)
	}
	h := hello(l.id.Name.Host())
	h.GetHello().Log = kept
	if err := stream.Send(h); err != nil {
		l.t.Fatal(err)
	}
	m, err := stream.Recv()
	if err != nil {
		l.t.Fatal(err)
	}
	return stream, m.GetWelcome()
}

// TestShowsItsLog: a session begins with the head of the log and with what stands at
// the place of the agent's; each dispatch has the head with all that was written
// before it, and a ping one that has moved, once. An agent of the version before,
// which says nothing of a head, is let in like any other.
func TestShowsItsLog(t *testing.T) {
	l := newLogged(t)
	stream, w := l.session(nil)
	if st := l.open(w.GetLog()); st.Entries != 0 || st.Hash != "" || st.Epoch != 1 || st.Place != nil {
		t.Errorf("an empty log is shown as %+v", st)
	}
	second := l.write(2)
	var moved loghead.Statement
	for pings := 0; pings < 3; {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		p := m.GetPing()
		if p == nil {
			continue
		}
		if err := stream.Send(&wire.SessionRequest{What: &wire.SessionRequest_Pong{Pong: &wire.Pong{Id: p.GetId()}}}); err != nil {
			t.Fatal(err)
		}
		if p.GetLog() == nil {
			if moved.Entries == 2 {
				pings++
			}
			continue
		}
		if moved = l.open(p.GetLog()); pings > 0 {
			t.Errorf("a head that has not moved is shown again: %+v", moved)
		}
	}
	if moved.Hash != second.Hash {
		t.Errorf("it moved to %+v, want %+v", moved, second)
	}
	third := l.write(1)
	go func() {
		_, _ = l.server.Do(t.Context(), fettle.Dispatch{Schema: 1, Key: "k", Incarnation: "i1", Token: l.token, Deadline: time.Now().Add(patience),
			Step: fettle.Step{ID: "s", Action: "toy.start", Version: 1, Target: "toy:x/y", Host: l.id.Name.Host(), Timeout: patience}})
	}()
	for {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if d := m.GetDispatch(); d != nil {
			if st := l.open(d.GetLog()); st.Entries != 3 || st.Hash != third.Hash {
				t.Errorf("the dispatch has %+v, want %+v", st, third)
			}
			break
		}
	}

	for _, c := range []struct {
		name string
		kept *wire.LogHead
		want loghead.Place
	}{
		{"what it has", &wire.LogHead{Epoch: 1, Entries: 2, Hash: second.Hash}, loghead.Place{Seq: 2, Hash: second.Hash}},
		{"another", &wire.LogHead{Epoch: 1, Entries: 2, Hash: strings.Repeat("00", 32)}, loghead.Place{Seq: 2, Hash: second.Hash}},
		{"more than it has", &wire.LogHead{Epoch: 1, Entries: 7, Hash: second.Hash}, loghead.Place{Seq: 7}},
		{"an empty one", &wire.LogHead{Epoch: 1}, loghead.Place{}},
		{"nonsense", &wire.LogHead{Epoch: 1, Entries: -5, Hash: "?"}, loghead.Place{}},
	} {
		_, w := l.session(c.kept)
		if st := l.open(w.GetLog()); st.Entries != 3 || st.Place == nil || *st.Place != c.want {
			t.Errorf("%s: it is shown %+v, %+v", c.name, st, st.Place)
		}
	}
}

// TestWhoRefusesIsShown: people are told which host takes no steps, and why, until it
// connects anew.
func TestWhoRefusesIsShown(t *testing.T) {
	l := newLogged(t)
	admin := l.admin(pki.RoleViewer)
	stream, _ := l.session(nil)
	why := strings.Repeat("é", 2000) // cut off within a character, it is still text
	if err := stream.Send(&wire.SessionRequest{What: &wire.SessionRequest_LogState{LogState: &wire.LogState{Refused: why}}}); err != nil {
		t.Fatal(err)
	}
	shown := func() string { return host(t, admin, l.id.Name.ID).GetLogRefused() }
	for late := time.Now().Add(patience); !strings.HasPrefix(shown(), "éé"); {
		if time.Now().After(late) {
			t.Fatal("it never was shown")
		}
	}
	if got := shown(); len(got) > 1000 {
		t.Errorf("%d bytes of it are kept", len(got))
	}
	if l.session(nil); shown() != "" {
		t.Errorf("after it has connected anew: %.20s", shown())
	}
}

// gap is a log in which one entry cannot be read any more.
type gap struct{ *store.Memory }

func (gap) HashAt(_ context.Context, seq int64) (string, error) {
	return "", &store.Broken{Seq: seq, Why: "the disk has lost it"}
}

// TestSaysNothingOfWhatItCannotRead: a log with a gap does not keep agents away; the
// server says nothing of what it cannot read, and each agent draws its conclusion.
func TestSaysNothingOfWhatItCannotRead(t *testing.T) {
	l := newLogged(t)
	l.stop()
	l.options.History = gap{l.history}
	tip := l.write(2)
	l.start(l.address)
	_, w := l.session(&wire.LogHead{Epoch: 1, Entries: 1, Hash: tip.Hash})
	if st := l.open(w.GetLog()); st.Entries != 2 || st.Hash != tip.Hash || st.Place != nil {
		t.Errorf("it shows %+v, %+v", st, st.Place)
	}
}
