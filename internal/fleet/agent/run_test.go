package agent

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/warrant"
	"fettle/internal/fleet/wire"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
)

// hands is a server whose one session a test drives by hand.
type hands struct {
	wire.UnimplementedAgentServiceServer
	t     *testing.T
	fleet string
	ann   *pki.Identity
	came  chan *played
	over  chan struct{}
}

func (h *hands) Session(s wire.AgentService_SessionServer) error {
	first, err := s.Recv()
	if err != nil {
		return err
	}
	err = s.Send(&wire.SessionResponse{What: &wire.SessionResponse_Welcome{Welcome: &wire.Welcome{Schema: wire.Schema, Fleet: h.fleet, IntervalNs: int64(time.Minute)}}})
	select {
	case h.came <- &played{s, h.ann, first.GetHello().GetNonce()}:
	default: // a second session, after the test's
	}
	select {
	case <-s.Context().Done():
	case <-h.over:
	}
	return err
}

// played is a session that a test drives by hand, and the person in it.
type played struct {
	wire.AgentService_SessionServer
	ann   *pki.Identity
	nonce string
}

// byHand connects an agent on a machine in memory, on which every program is run,
// to a server that the test plays.
func byHand(t *testing.T, does func(machine.Command) (machine.Output, error)) *played {
	t.Helper()
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
	m := memmachine.New(memmachine.Options{Host: "h1"})
	m.Program("note", does)
	o.Machine = m.Ports()
	o.RunFile = filepath.Join(t.TempDir(), "run.yaml")
	if err := os.WriteFile(o.RunFile, []byte("allow:\n  - {people: [ann], any: true, as: me}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.Server = l.Addr().String()
	ann, err := ca.Mint(pki.RoleAdmin, "ann", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	h := &hands{t: t, fleet: ca.Fleet(), ann: ann, came: make(chan *played, 1), over: make(chan struct{})}
	g := grpc.NewServer(wire.ServerOptions(pki.ServerTLS(func() *pki.Identity { return id }), wire.NewTurnstile(), nil)...)
	wire.RegisterAgentServiceServer(g, h)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	_, stop := start(t, o)
	t.Cleanup(func() {
		close(h.over)
		stop()
		g.Stop()
		<-done
	})
	select {
	case s := <-h.came:
		return s
	case <-time.After(patience):
		t.Fatal("the agent did not come")
		return nil
	}
}

// next returns the next message about a command.
func next(t *testing.T, s *played) *wire.SessionRequest {
	t.Helper()
	for {
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetCommandEnd() != nil || len(m.GetCommandOutput().GetData()) > 0 || m.GetPong() != nil {
			return m
		}
	}
}

func tell(t *testing.T, s *played, m *wire.SessionResponse) {
	t.Helper()
	if err := s.Send(m); err != nil {
		t.Fatal(err)
	}
}

// program is a command of ann's, signed by her.
func (s *played) program(t *testing.T, id uint64, limit int64) *wire.SessionResponse {
	t.Helper()
	body, err := warrant.Program{Argv: []string{"note", "x"}}.Body()
	if err != nil {
		t.Fatal(err)
	}
	w, err := warrant.SignRun(warrant.Run{Fleet: s.ann.Name.Fleet, Run: fmt.Sprintf("run%d", id), Host: "host:h1", Name: "h1", Nonce: s.nonce, Within: time.Minute, Body: warrant.HashOf(body)}, s.ann)
	if err != nil {
		t.Fatal(err)
	}
	return &wire.SessionResponse{What: &wire.SessionResponse_Command{Command: &wire.Command{
		Id: id, Program: body, Signed: &wire.SignedCommand{Note: w.Note, Certificate: w.Certificate}, Limit: limit}}}
}

func ping(id uint64) *wire.SessionResponse {
	return &wire.SessionResponse{What: &wire.SessionResponse_Ping{Ping: &wire.Ping{Id: id}}}
}

// TestCommandOnce: a command that arrives again is not run again, whether the first
// has ended or not.
func TestCommandOnce(t *testing.T) {
	var ran atomic.Int32
	hold := make(chan struct{})
	s := byHand(t, func(c machine.Command) (machine.Output, error) {
		ran.Add(1)
		<-hold
		return machine.Output{Stdout: []byte(c.User)}, nil
	})
	tell(t, s, s.program(t, 7, 100))
	tell(t, s, s.program(t, 7, 100))
	tell(t, s, ping(1))
	if m := next(t, s); m.GetPong().GetId() != 1 { // both have been taken in
		t.Fatalf("%v", m)
	}
	close(hold)
	if m := next(t, s).GetCommandOutput(); string(m.GetData()) != "me" || m.GetId() != 7 {
		t.Errorf("%v", m)
	}
	if end := next(t, s).GetCommandEnd(); end.GetId() != 7 || end.GetRefused() != "" || end.GetExit() != 0 {
		t.Errorf("%v", end)
	}
	tell(t, s, s.program(t, 7, 100))
	tell(t, s, ping(2))
	if m := next(t, s); m.GetPong().GetId() != 2 {
		t.Errorf("after its end: %v", m)
	}
	if n := ran.Load(); n != 1 {
		t.Errorf("it ran %d times", n)
	}
}

// TestCommandWindow: output comes no faster than it is asked for, and no more than
// was asked for.
func TestCommandWindow(t *testing.T) {
	s := byHand(t, func(machine.Command) (machine.Output, error) {
		return machine.Output{Stdout: []byte(strings.Repeat("x", 3*wire.CommandChunk))}, nil
	})
	tell(t, s, s.program(t, 1, wire.CommandChunk+10))
	if m := next(t, s).GetCommandOutput(); len(m.GetData()) != wire.CommandChunk {
		t.Fatalf("the first has %d bytes", len(m.GetData()))
	}
	for i := range uint64(3) {
		tell(t, s, ping(i+1))
		if m := next(t, s); m.GetPong().GetId() != i+1 {
			t.Fatalf("unasked came %v", m)
		}
	}
	more := &wire.SessionResponse{What: &wire.SessionResponse_CommandMore{CommandMore: &wire.CommandMore{Id: 1}}}
	tell(t, s, more)
	if m := next(t, s).GetCommandOutput(); len(m.GetData()) != 10 {
		t.Errorf("then come %d bytes", len(m.GetData()))
	}
	tell(t, s, more)
	tell(t, s, more) // one too many does no harm
	if m := next(t, s); m.GetCommandEnd() == nil {
		t.Errorf("the rest is wanted by nobody: %v", m)
	}
}

// atOnce is how many commands an executor runs at once.
const atOnce = 16

// TestTooManyCommands: what one machine runs at once is bounded, and the one too
// many is refused, not queued.
func TestTooManyCommands(t *testing.T) {
	hold := make(chan struct{})
	s := byHand(t, func(machine.Command) (machine.Output, error) { <-hold; return machine.Output{}, nil })
	for i := range uint64(atOnce + 1) {
		tell(t, s, s.program(t, i+1, 1))
	}
	if end := next(t, s).GetCommandEnd(); end.GetId() == 0 || !strings.Contains(end.GetRefused(), "run on this host already") {
		t.Errorf("%v", end)
	}
	close(hold)
	for range atOnce {
		if end := next(t, s).GetCommandEnd(); end == nil || end.GetRefused() != "" {
			t.Errorf("%v", end)
		}
	}
}

// TestCommandOfUnfollowedServer: a server that this agent does not obey gets no
// command run.
func TestCommandOfUnfollowedServer(t *testing.T) {
	o := options(t, &lamp{})
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	x := &session{a: a}
	if end := x.runCommand(&command{ctx: t.Context()}, &wire.Command{}, "its log forked"); !strings.Contains(end.GetRefused(), "does not obey the server: its log forked") {
		t.Error(end)
	}
}

// TestCommandOfOlderServer: what only the server says a person wants is not run.
func TestCommandOfOlderServer(t *testing.T) {
	s := byHand(t, func(machine.Command) (machine.Output, error) {
		t.Error("it ran")
		return machine.Output{}, nil
	})
	tell(t, s, &wire.SessionResponse{What: &wire.SessionResponse_Command{Command: &wire.Command{Id: 1, Argv: []string{"note"}, By: "ann", Role: "admin", Limit: 10}}})
	if end := next(t, s).GetCommandEnd(); !strings.Contains(end.GetRefused(), "no person has signed this command") || !strings.Contains(end.GetHint(), "upgrade") {
		t.Errorf("%v", end)
	}
}

// TestFresh: numbers are remembered for long enough, not for ever.
func TestFresh(t *testing.T) {
	c := &commands{}
	for i := range uint64(10 * rememberedCommands) {
		if !c.fresh(i + 1) {
			t.Fatalf("%d was taken for known", i+1)
		}
	}
	for _, id := range []uint64{1, rememberedCommands, 9 * rememberedCommands, 10 * rememberedCommands} {
		if c.fresh(id) {
			t.Errorf("%d was taken for new", id)
		}
	}
	if n := len(c.known); n > 2*rememberedCommands {
		t.Errorf("%d are remembered", n)
	}
	if fmt.Sprint(c.highest) != fmt.Sprint(10*rememberedCommands) {
		t.Error(c.highest)
	}
}
