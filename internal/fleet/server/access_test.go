package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fettle"
	"fettle/internal/fleet/agent"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
)

// call makes one call and returns its error, of a stream the first one.
func call(t *testing.T, conn *connection, method string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, d := range services() {
		for _, s := range d.Streams {
			if method != "/"+d.ServiceName+"/"+s.StreamName {
				continue
			}
			stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: s.ClientStreams}, method)
			if err != nil {
				return err
			}
			if !s.ClientStreams {
				if err := stream.SendMsg(&wire.StatusRequest{}); err != nil && !errors.Is(err, io.EOF) {
					return err
				}
			}
			_ = stream.CloseSend()
			err = stream.RecvMsg(&wire.StatusResponse{})
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
	return conn.Invoke(ctx, method, &wire.StatusRequest{}, &wire.StatusResponse{})
}

func services() []*grpc.ServiceDesc {
	return []*grpc.ServiceDesc{&wire.EnrolService_ServiceDesc, &wire.AgentService_ServiceDesc, &wire.AdminService_ServiceDesc, &wire.ServerService_ServiceDesc}
}

func methods() []string {
	var list []string
	for _, d := range services() {
		for _, m := range d.Methods {
			list = append(list, "/"+d.ServiceName+"/"+m.MethodName)
		}
		for _, s := range d.Streams {
			list = append(list, "/"+d.ServiceName+"/"+s.StreamName)
		}
	}
	return list
}

// TestWhoMayCallWhat asks every method of every service in every role, and of
// strangers: exactly those of the table get past the door.
func TestWhoMayCallWhat(t *testing.T) {
	f := newFleet(t)
	mint := func(role pki.Role, id string) *pki.Identity {
		i, err := f.ca.Mint(role, id, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	joined, _ := f.join("one")
	if err := f.options.Register.Found(t.Context(), "s", "server", time.Now()); err != nil {
		t.Fatal(err)
	}
	ids := map[string]*pki.Identity{
		"agent":      joined,
		"unadmitted": mint(pki.RoleAgent, "never-joined"),
		"server":     mint(pki.RoleServer, "s"),
		"stranger":   mint(pki.RoleServer, "never-a-server"),
		"viewer":     mint(pki.RoleViewer, "v"),
		"operator":   mint(pki.RoleOperator, "o"),
		"approver":   mint(pki.RoleApprover, "a"),
		"admin":      mint(pki.RoleAdmin, "r"),
	}
	who := map[string]*connection{}
	for name, id := range ids {
		who[name] = f.dial(id)
	}
	nobody, err := wire.Dial(f.address, pki.JoinTLS(f.ca.Pin(), time.Now))
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	who["nobody"] = nobody

	may := map[string]string{} // who gets in, by method
	for _, m := range []string{"Status", "Incidents", "Incident", "Hosts", "Groups", "Conditions", "Log", "Permits"} {
		may["/fettle.wire.v1.AdminService/"+m] = "viewer operator approver admin"
	}
	may["/fettle.wire.v1.AdminService/SetFreeze"] = "operator approver admin"
	may["/fettle.wire.v1.AdminService/BeginMaintenance"] = "operator approver admin"
	may["/fettle.wire.v1.AdminService/EndMaintenance"] = "approver admin"
	may["/fettle.wire.v1.AdminService/ListMaintenance"] = "viewer operator approver admin"
	may["/fettle.wire.v1.AdminService/Thaw"] = "approver admin"
	may["/fettle.wire.v1.AdminService/Answer"] = "approver admin"
	may["/fettle.wire.v1.AdminService/Forget"] = "admin"
	may["/fettle.wire.v1.AdminService/JoinToken"] = "admin"
	may["/fettle.wire.v1.AdminService/Watch"] = "viewer operator approver admin"
	may["/fettle.wire.v1.AgentService/Session"] = "agent"
	may["/fettle.wire.v1.EnrolService/Renew"] = "agent"
	may["/fettle.wire.v1.EnrolService/AuthorityKey"] = "server" // that is in the register
	may["/fettle.wire.v1.AdminService/Renew"] = "viewer operator approver admin"
	may["/fettle.wire.v1.AdminService/Authorities"] = "viewer operator approver admin"
	may["/fettle.wire.v1.AdminService/Servers"] = "viewer operator approver admin"
	may["/fettle.wire.v1.AdminService/RemoveServer"] = "admin"
	may["/fettle.wire.v1.AdminService/Backup"] = "admin"
	may["/fettle.wire.v1.AdminService/Rotate"] = "admin"
	may["/fettle.wire.v1.AdminService/Run"] = "operator approver admin" // and each host's own list
	may["/fettle.wire.v1.AdminService/RunSigned"] = "operator approver admin"
	may["/fettle.wire.v1.AdminService/Check"] = "viewer operator approver admin"
	may["/fettle.wire.v1.EnrolService/JoinServer"] = "nobody agent unadmitted server stranger viewer operator approver admin"
	may["/fettle.wire.v1.EnrolService/Join"] = "nobody agent unadmitted server stranger viewer operator approver admin"
	may["/fettle.wire.v1.ServerService/Segment"] = "server"
	if len(may) != len(methods()) {
		t.Errorf("%d methods are expected here, there are %d: %v", len(may), len(methods()), methods())
	}
	for _, method := range methods() {
		for name, conn := range who {
			allowed := strings.Contains(" "+may[method]+" ", " "+name+" ")
			if allowed && strings.HasSuffix(method, "/Watch") {
				continue // it would wait for ever; TestWatch
			}
			err := call(t, conn, method)
			shut := status.Code(err) == codes.PermissionDenied || status.Code(err) == codes.Unauthenticated && !strings.Contains(err.Error(), "join token")
			if strings.HasSuffix(method, "/Renew") && allowed { // this request is for no key at all
				shut = !strings.Contains(err.Error(), "same key")
			}
			if shut == allowed {
				t.Errorf("%s as %s: %v", method, name, err)
			}
			if shut && !strings.Contains(err.Error(), "(") {
				t.Errorf("%s as %s: %v has no hint", method, name, err)
			}
		}
	}
	// And a session on a connection of its own.
	confs := map[string]*tls.Config{"nobody": pki.JoinTLS(f.ca.Pin(), time.Now)}
	for name, id := range ids {
		confs[name] = pki.ClientTLS(func() *pki.Identity { return id }, time.Now)
	}
	for name, conf := range confs {
		stream, err := wire.Dialer(nil).Direct(t.Context(), f.address, conf)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(hello(joined.Name.Host())); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		m, err := stream.Recv()
		if name == "agent" {
			if m.GetWelcome() == nil {
				t.Errorf("a session as %s: %v", name, err)
			}
		} else if code := status.Code(err); code != codes.PermissionDenied && code != codes.Unauthenticated || !strings.Contains(err.Error(), "(") {
			t.Errorf("a session as %s: %v", name, err)
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
	}
	if err := nobody.Invoke(t.Context(), "/fettle.wire.v1.AdminService/NoSuch", &wire.StatusRequest{}, &wire.StatusResponse{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("a method that is not there: %v", err)
	}
}

// TestOtherFleetsCertificate: refused by both sides, with words.
func TestOtherFleetsCertificate(t *testing.T) {
	f, other := newFleet(t), newFleet(t)
	id, err := other.ca.Mint(pki.RoleAdmin, "ann", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := call(t, f.dial(id), wire.AdminService_Status_FullMethodName); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("a person of another fleet: %v", err)
	}
	// One who does not check whom he talks to, with a certificate of the other
	// fleet.
	conf := pki.JoinTLS(f.ca.Pin(), time.Now)
	conf.GetClientCertificate = pki.ClientTLS(func() *pki.Identity { return id }, time.Now).GetClientCertificate
	conn, err := wire.Dial(f.address, conf)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := call(t, conn, wire.AdminService_Status_FullMethodName); err == nil {
		t.Error("a certificate of another fleet was accepted")
	}
}

func TestExpired(t *testing.T) {
	f := newFleet(t)
	b := f.box("one")
	b.seen(0, "the first look", true)
	b.stop()
	f.clock.set(pki.AgentLife + time.Hour) // the server's wall clock; the identity's own still says that it is valid
	stream, err := f.session(t.Context(), b.id)
	if err != nil {
		t.Fatal(err)
	}
	_, direct := stream.Recv()
	for _, err := range []error{direct, call(t, f.dial(b.id), wire.AgentService_Session_FullMethodName)} {
		if status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "expired at") || !strings.Contains(err.Error(), "join again") {
			t.Errorf("got %v", err)
		}
	}
	old, err := f.ca.Mint(pki.RoleAgent, b.id.Name.ID, time.Now().Add(-48*time.Hour), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	b.id = old
	a, err := agent.New(b.options())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); !errors.Is(err, pki.ErrExpired) || !strings.Contains(err.Error(), "join again") {
		t.Errorf("an agent with an expired certificate: %v", err)
	}
}

// TestSessionEndsWithItsCertificate: a session is not longer than the certificate
// that it was begun with, nor is it cut while the certificate holds.
func TestSessionEndsWithItsCertificate(t *testing.T) {
	eachWay(t, func(t *testing.T, f *fleet, session begin) {
		b := f.box("one")
		b.connected(0, true)
		b.stop()
		from := f.brain.mark()
		short, err := f.ca.Mint(pki.RoleAgent, b.id.Name.ID, time.Now(), 1200*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := session(t.Context(), short)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(hello(b.host)); err != nil {
			t.Fatal(err)
		}
		b.connected(from, true)
		for {
			m, err := stream.Recv()
			if err != nil {
				if !strings.Contains(err.Error(), "expired") {
					t.Errorf("the session ended with %v", err)
				}
				break
			}
			if p := m.GetPing(); p != nil {
				if err := stream.Send(&wire.SessionRequest{What: &wire.SessionRequest_Pong{Pong: &wire.Pong{Id: p.GetId()}}}); err != nil && !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
			}
		}
		if short.InTime(time.Now()) == nil {
			t.Error("the session ended before its certificate")
		}
	})
}

func hello(host fettle.Subject) *wire.SessionRequest {
	return &wire.SessionRequest{NowNs: time.Now().UnixNano(), What: &wire.SessionRequest_Hello{Hello: &wire.Hello{Schema: wire.Schema, Host: string(host), Incarnation: "i1", Label: "x"}}}
}

// TestSilentAgent: one that answers no ping is taken for lost, however well its
// connection looks.
func TestSilentAgent(t *testing.T) {
	eachWay(t, func(t *testing.T, f *fleet, session begin) {
		id, _ := f.join("silent")
		stream, err := session(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(hello(id.Name.Host())); err != nil {
			t.Fatal(err)
		}
		pings := 0
		for {
			m, err := stream.Recv()
			if err != nil {
				if !strings.Contains(err.Error(), "silent") || pings < 3 {
					t.Errorf("after %d pings it ended with %v", pings, err)
				}
				return
			}
			if m.GetPing() != nil {
				pings++
			}
		}
	})
}

// TestRenewal: an agent whose certificate is in its last third gets a new one, of
// the same key, and keeps it.
func TestRenewal(t *testing.T) {
	f := newFleet(t)
	b := f.box("one")
	b.connected(0, true)
	b.stop()
	from := f.brain.mark()
	late := pki.AgentLife * 3 / 4
	f.clock.set(late)
	b.start(func(o *agent.Options) {
		o.Machine.Clock = &skewed{Clock: o.Machine.Clock, off: late}
	})
	b.connected(from, true)
	b.seen(from, "a look after the renewal", true)
	b.stop()
	kept, err := pki.LoadIdentity(b.dir, pki.RoleAgent)
	if err != nil {
		t.Fatal(err)
	}
	if !kept.Expires().After(b.id.Expires()) || kept.Name != b.id.Name {
		t.Errorf("kept %s until %v; before until %v", kept.Name, kept.Expires(), b.id.Expires())
	}
}

func TestJoinRefused(t *testing.T) {
	f, other := newFleet(t), newFleet(t)
	join := func(tok pki.Token) error {
		_, err := agent.Join(t.Context(), agent.JoinOptions{Token: tok, Dir: filepath.Join(t.TempDir(), "id"), Label: "x", Wall: time.Now})
		return err
	}
	invite := func(at time.Time) pki.Token {
		tok, err := f.options.Register.Invite(t.Context(), pki.RoleAgent, f.address, at, 0)
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	good := invite(time.Now())
	if err := join(good); err != nil {
		t.Fatalf("a good token: %v", err)
	}
	wrong := invite(time.Now())
	wrong.Secret = good.Secret
	elsewhere := invite(time.Now())
	elsewhere.Address = other.address
	nowhere := invite(time.Now())
	nowhere.Address = "127.0.0.1:1"
	for name, c := range map[string]struct {
		tok  pki.Token
		want string
	}{
		"used twice":    {good, "used already"},
		"wrong secret":  {wrong, "secret is wrong"},
		"expired":       {invite(time.Now().Add(-time.Hour)), "expired"},
		"another fleet": {elsewhere, "check the address"},
		"nobody there":  {nowhere, "refused"},
	} {
		if err := join(c.tok); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		} else if strings.Contains(err.Error(), c.tok.Secret) {
			t.Errorf("%s: the error tells the secret: %v", name, err)
		}
	}
	id, dir := f.join("y")
	tok := invite(time.Now())
	_, err := agent.Join(t.Context(), agent.JoinOptions{Token: tok, Dir: dir, Label: "y", Wall: time.Now})
	if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), string(id.Name.Host())) {
		t.Errorf("a machine that has joined: %v", err)
	}
	if err := join(tok); err != nil {
		t.Errorf("the token was used up by a machine that did not need it: %v", err)
	}
}

// TestTooLarge: a message of 10 MB is refused, and the server goes on.
func TestTooLarge(t *testing.T) {
	f := newFleet(t)
	b := f.box("one")
	b.seen(0, "the first look", true)
	id, _ := f.join("two")
	stream, err := wire.NewAgentServiceClient(f.dial(id)).Session(t.Context(), grpc.MaxCallSendMsgSize(64<<20))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(hello(id.Name.Host())); err != nil {
		t.Fatal(err)
	}
	big := &wire.SessionRequest{What: &wire.SessionRequest_Report{Report: &wire.Report{Observations: []*wire.Observation{{Json: bytes.Repeat([]byte("x"), 10<<20)}}}}}
	if err := stream.Send(big); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v", err)
	}
	own, err := tls.Dial("tcp", f.address, direct(id))
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	// Its end, if it is told: who sends so much may be cut off before it listens.
	if _, err := own.Write(append(binary.BigEndian.AppendUint32([]byte{0}, 10<<20), bytes.Repeat([]byte("x"), 10<<20)...)); err == nil {
		t.Error("10 MB were taken")
	}
	from := f.brain.mark()
	b.toy.setUp(false)
	b.seen(from, "the other agent's next word", false)
}

// direct is how a session's own connection is begun.
func direct(id *pki.Identity) *tls.Config {
	conf := pki.ClientTLS(func() *pki.Identity { return id }, time.Now)
	conf.NextProtos = []string{wire.DirectProtocol}
	return conf
}

// TestBadSessions: what an agent may not say ends its session, or is passed over,
// and never the server.
func TestBadSessions(t *testing.T) {
	eachWay(t, func(t *testing.T, f *fleet, session begin) {
		id, _ := f.join("bad")
		host := id.Name.Host()
		other := hello("host:other")
		old := hello(host)
		old.GetHello().Schema = wire.Oldest - 1
		nameless := hello(host)
		nameless.GetHello().Incarnation = ""
		report := func(json string) *wire.SessionRequest {
			return &wire.SessionRequest{NowNs: time.Now().UnixNano(), What: &wire.SessionRequest_Report{Report: &wire.Report{Observations: []*wire.Observation{{Json: []byte(json), AgeNs: -5}}}}}
		}
		for name, c := range map[string]struct {
			send []*wire.SessionRequest
			want codes.Code
			text string
		}{
			"no hello":         {[]*wire.SessionRequest{report("{}")}, codes.InvalidArgument, "Hello"},
			"another's name":   {[]*wire.SessionRequest{other}, codes.PermissionDenied, string(host)},
			"too old":          {[]*wire.SessionRequest{old}, codes.FailedPrecondition, "upgrade"},
			"no incarnation":   {[]*wire.SessionRequest{nameless}, codes.InvalidArgument, "incarnation"},
			"two hellos":       {[]*wire.SessionRequest{hello(host), hello(host)}, codes.InvalidArgument, "second"},
			"digest of naught": {[]*wire.SessionRequest{hello(host), {What: &wire.SessionRequest_Digest{Digest: &wire.Digest{Seen: []*wire.Seen{{Subject: "toy:x", Probe: "p"}}}}}}, codes.FailedPrecondition, "digest"},
			"rubbish": {[]*wire.SessionRequest{hello(host), report("{"), report(`{"subject":"no subject","probe":"p"}`), report(`{"subject":"toy:a/b"}`),
				report(`{"subject":"toy:a/b","probe":"fettle.agent","facts":{"connected":false}}`), report(`{"subject":"toy:a/b","probe":"p","edges":[{"from":"x","rel":"in","to":""}]}`),
				report(`{"subject":"toy:a/b","probe":"p","facts":{"a":1.5}}`), {}, {What: &wire.SessionRequest_Outcome{}},
				{What: &wire.SessionRequest_LookAnswer{LookAnswer: &wire.LookAnswer{Id: 7}}}, {What: &wire.SessionRequest_Pong{}},
				hello(host)}, codes.InvalidArgument, "second"}, // it lived until the second hello
		} {
			t.Run(name, func(t *testing.T) {
				from := f.brain.mark()
				stream, err := session(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range c.send {
					if err := stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
						t.Fatal(err)
					}
				}
				for err == nil {
					_, err = stream.Recv()
				}
				if status.Code(err) != c.want || !strings.Contains(err.Error(), c.text) {
					t.Errorf("got %v, want %v with %q", err, c.want, c.text)
				}
				f.brain.mu.Lock()
				defer f.brain.mu.Unlock()
				for _, in := range f.brain.fed[from:] {
					for _, o := range in.Observations {
						if o.Host != f.server.Subject() { // what the server itself sees is
							t.Errorf("this was taken in: %+v", o)
						}
					}
				}
			})
		}
	})
}

// TestSpeaksForItsOwnHost: whatever host an observation names, it is the agent's.
func TestSpeaksForItsOwnHost(t *testing.T) {
	eachWay(t, func(t *testing.T, f *fleet, session begin) {
		id, _ := f.join("liar")
		stream, err := session(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(hello(id.Name.Host())); err != nil {
			t.Fatal(err)
		}
		m := &wire.SessionRequest{NowNs: time.Now().UnixNano(), What: &wire.SessionRequest_Report{Report: &wire.Report{
			Observations: []*wire.Observation{{Json: []byte(`{"subject":"toy:x/y","host":"host:victim","probe":"toy.state","facts":{"up":false}}`), AgeNs: int64(time.Hour)}},
			Conditions:   [][]byte{[]byte(`{"code":"toy.odd","subject":"toy:x/y","state":"yes"}`), []byte(`{"code":"toy.down","subject":"toy:x/y","state":"yes"}`)},
		}}}
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
		in := f.brain.awaitInput(t, 0, "the report", inputAbout("toy:x/y"))
		if o := in.Observations[0]; o.Host != id.Name.Host() || time.Since(o.Asked) < time.Hour {
			t.Errorf("it came as %+v", o)
		}
		if len(in.Conditions) != 1 || in.Conditions[0].Code != "toy.down" {
			t.Errorf("conditions %+v: the cluster's is not an agent's to judge", in.Conditions)
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
	})
}
