package agent

import (
	"bytes"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"fettle/internal/fettle"
	"fettle/internal/fleet/loghead"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
)

// TestHeads: what an agent does about the heads that a server shows it, good, bad and
// missing. Each server has the agent light its lamp.
func TestHeads(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	type shown struct {
		agent, server, stranger *pki.Identity
		hello                   *wire.Hello
	}
	sign := func(by *pki.Identity, st loghead.Statement) *wire.SignedHead {
		st.Fleet, st.Epoch = by.Name.Fleet, max(1, st.Epoch)
		msg, err := loghead.Sign(st, by.NoteSigner())
		if err != nil {
			t.Error(err)
		}
		return &wire.SignedHead{Note: msg, Certificate: by.Certificate()}
	}
	good := func(s shown) *wire.SignedHead { return sign(s.server, loghead.Statement{Entries: 4, Hash: hash}) }
	tampered := func(s shown) *wire.SignedHead {
		h := good(s)
		h.Note = bytes.Replace(h.Note, []byte("entries 4"), []byte("entries 5"), 1)
		return h
	}
	none := func(shown) *wire.SignedHead { return nil }
	for _, c := range []struct {
		name          string
		kept          bool // the agent has been shown a head before
		welcome, with func(shown) *wire.SignedHead
		why           string // "": the step is done
	}{
		{name: "a server of the version before", welcome: none, with: none},
		{name: "good", welcome: good, with: good},
		{name: "good, and none with the step", welcome: good, with: none},
		{name: "tampered with", welcome: tampered, with: none, why: "cannot be believed"},
		{name: "tampered with later", welcome: good, with: tampered, why: "cannot be believed"},
		{name: "signed by another fleet", welcome: func(s shown) *wire.SignedHead { return sign(s.stranger, loghead.Statement{}) }, with: none, why: "cannot be believed"},
		{name: "signed by an agent", welcome: func(s shown) *wire.SignedHead { return sign(s.agent, loghead.Statement{}) }, with: none, why: "cannot be believed"},
		{name: "of nobody", welcome: func(s shown) *wire.SignedHead { return &wire.SignedHead{Note: good(s).GetNote()} }, with: none, why: "cannot be believed"},
		{name: "goes back", welcome: good, with: func(s shown) *wire.SignedHead { return sign(s.server, loghead.Statement{Entries: 3, Hash: hash}) }, why: "shorter"},
		{name: "none any more", kept: true, welcome: none, with: none, why: "shows no head"},
		{name: "not a word of what is kept", kept: true, welcome: good, with: none, why: "does not say what stands at entry"},
		{name: "what is kept is there", kept: true, welcome: func(s shown) *wire.SignedHead {
			kept := s.hello.GetLog()
			return sign(s.server, loghead.Statement{Entries: 9, Hash: hash, Place: &loghead.Place{Seq: kept.GetEntries(), Hash: kept.GetHash()}})
		}, with: none},
	} {
		t.Run(c.name, func(t *testing.T) {
			fleet, other := minted(t), minted(t)
			server := newScripted(t, fleet)
			l := &lamp{found: found("hall")}
			o := options(t, l)
			o.Server, o.Identity = server.address, fleet.agent
			s := shown{fleet.agent, fleet.server, other.server, nil}
			play := func(welcome, with func(shown) *wire.SignedHead) (fettle.Outcome, string) {
				server.welcome = func(h *wire.Hello) *wire.Welcome {
					s.hello = h
					return &wire.Welcome{Schema: wire.Schema, Fleet: fleet.server.Name.Fleet, IntervalNs: int64(time.Second), Log: welcome(s)}
				}
				server.log = func() *wire.SignedHead { return with(s) }
				_, stop := start(t, o)
				defer stop()
				return server.outcome(t)
			}
			lit := 0
			if c.kept {
				lit++
				if out, why := play(good, good); out.Fate != fettle.Done || why != "" {
					t.Fatalf("the first server: %+v, %s", out, why)
				}
			}
			out, told := play(c.welcome, c.with)
			if c.why == "" {
				lit++
				if out.Fate != fettle.Done || out.Class != "" || told != "" {
					t.Errorf("%+v; told %q", out, told)
				}
			} else if out.Class != fettle.Refused || !strings.Contains(out.Error, c.why) || !strings.Contains(told, c.why) {
				t.Errorf("%+v; told %q; want %q", out, told, c.why)
			}
			if l.lit["hall"] != lit {
				t.Errorf("the lamp was lit %d times, want %d", l.lit["hall"], lit)
			}
		})
	}
}

// identities are of one fleet.
type identities struct{ agent, server *pki.Identity }

func minted(t *testing.T) identities {
	t.Helper()
	ca, err := pki.Init(filepath.Join(t.TempDir(), "pki"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var out identities
	if out.agent, err = ca.Mint(pki.RoleAgent, "h1", time.Now(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if out.server, err = ca.Mint(pki.RoleServer, "s1", time.Now(), time.Hour); err != nil {
		t.Fatal(err)
	}
	return out
}

// scriptedServer is a scripted one that listens.
type scriptedServer struct {
	*scripted
	address string
}

func newScripted(t *testing.T, of identities) *scriptedServer {
	t.Helper()
	s := &scripted{told: make(chan *wire.SessionRequest, 64)}
	return &scriptedServer{s, serve(t, of, s)}
}

// serve runs a server of the test's own until the test ends.
func serve(t *testing.T, of identities, s wire.AgentServiceServer) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(wire.ServerOptions(pki.ServerTLS(func() *pki.Identity { return of.server }), wire.NewTurnstile(), nil)...)
	wire.RegisterAgentServiceServer(g, s)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// outcome waits for what came of the step, and returns why the agent said before that
// it takes none; of the last session only.
func (s *scriptedServer) outcome(t *testing.T) (fettle.Outcome, string) {
	t.Helper()
	why := ""
	late := time.After(patience)
	for {
		select {
		case m := <-s.told:
			if l := m.GetLogState(); l != nil {
				why = l.GetRefused()
			}
			if o := m.GetOutcome(); o != nil {
				out, err := wire.Unpack[fettle.Outcome](o.GetJson())
				if err != nil {
					t.Fatal(err)
				}
				return out, why
			}
		case <-late:
			t.Fatal("nothing came of the step")
		}
	}
}

// scripted is a server that welcomes with what a test says, then has the lamp lit.
type scripted struct {
	wire.UnimplementedAgentServiceServer
	welcome func(*wire.Hello) *wire.Welcome
	log     func() *wire.SignedHead // with the dispatch
	told    chan *wire.SessionRequest
}

func (s *scripted) Session(stream wire.AgentService_SessionServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	w := s.welcome(first.GetHello())
	if err := stream.Send(&wire.SessionResponse{What: &wire.SessionResponse_Welcome{Welcome: w}}); err != nil {
		return err
	}
	data, err := wire.Pack(fettle.Dispatch{
		Schema: 1, Key: "k-" + first.GetHello().GetIncarnation(), Incarnation: first.GetHello().GetIncarnation(),
		Token: fettle.Token{Fleet: w.GetFleet(), Epoch: 1, Revision: 5}, Deadline: time.Now().Add(patience),
		Step: fettle.Step{ID: "s", Action: "lamp.light", Version: 1, Target: "lamp:h1/hall", Host: "host:h1", Timeout: time.Second},
	})
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if m.GetSettled() != nil {
			if err := stream.Send(&wire.SessionResponse{What: &wire.SessionResponse_Dispatch{Dispatch: &wire.Dispatch{Id: 1, Json: data, Log: s.log()}}}); err != nil {
				return err
			}
		}
		select {
		case s.told <- m:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
