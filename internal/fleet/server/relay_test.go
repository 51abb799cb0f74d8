package server_test

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"fettle/internal/fettle"
	"fettle/internal/fleet/agent"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/server"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/wire"
	"fettle/internal/machine/loopback"
)

// pair is the servers of a fleet, of which a test says who leads.
type pair struct {
	server.Cluster
	mu     sync.Mutex
	leader store.Leader
	all    map[string]string
}

func (p *pair) Leader() (store.Leader, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.leader, p.leader.Name != ""
}

func (p *pair) lead(name, address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leader = store.Leader{Name: name, Address: address}
}

func (p *pair) Outside() (string, bool) { return "", false }

func (p *pair) Addresses(context.Context) (map[string]string, error) { return p.all, nil }

// two are the servers of a fleet: the first leads, the second passes on.
type two struct {
	*fleet
	pair   *pair
	second *server.Server
	at     string // the second's address
	end    func()
}

func newTwo(t *testing.T) *two {
	t.Helper()
	p := &pair{}
	f := newFleet(t, func(o *server.Options) { o.Cluster = p })
	o := f.options
	o.Dir = filepath.Join(f.dir, "second")
	s, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	l := loopback.Listen(t, "")
	d := &two{fleet: f, pair: p, second: s, at: l.Addr().String()}
	p.all = map[string]string{"first": f.address, "second": d.at}
	p.lead(f.server.Subject().Name(), f.address)
	if err := f.options.Register.Found(t.Context(), s.Subject().Name(), "second", time.Now()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	d.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(d.end)
	return d
}

// through makes the second server the one that everybody calls.
func (d *two) through() *fleet {
	other := *d.fleet
	other.address = d.at
	return &other
}

// TestPassedOn: a machine joins, is seen, and does a step by way of a server that does
// not lead; nothing shows but the address. It is told of both servers.
func TestPassedOn(t *testing.T) {
	d := newTwo(t)
	b := d.through().box("one")
	b.connected(0, true)
	b.seen(0, "the toy", true)
	out, err := d.server.Do(t.Context(), b.dispatch("k1", d.token(1)))
	if err != nil || out.Fate != fettle.Done {
		t.Errorf("a step: %+v, %v", out, err)
	}
	hosts, err := d.through().admin(pki.RoleViewer).Hosts(t.Context(), &wire.HostsRequest{})
	if err != nil || len(hosts.GetHosts()) != 1 || !hosts.GetHosts()[0].GetConnected() {
		t.Fatalf("hosts: %v, %v", hosts, err)
	}
	if a := hosts.GetHosts()[0].GetAddress(); !strings.HasPrefix(a, "127.0.0.1:") || a == d.at {
		t.Errorf("the agent is said to call from %s", a)
	}
}

// TestPassedOnRoles: who calls by way of another server may do what they may do, and
// no more; only a server's word is taken for whose call it is, and none's that was
// sent away.
func TestPassedOnRoles(t *testing.T) {
	d := newTwo(t)
	freeze := &wire.SetFreezeRequest{Why: "test"}
	if _, err := d.through().admin(pki.RoleOperator).SetFreeze(t.Context(), freeze); err != nil {
		t.Errorf("an operator: %v", err)
	}
	st, err := d.through().admin(pki.RoleViewer).Status(t.Context(), &wire.StatusRequest{})
	if err != nil || !strings.Contains(string(st.GetFreeze()), "ann") {
		t.Errorf("whose freeze it is was lost: %s, %v", st.GetFreeze(), err)
	}
	if _, err := d.through().admin(pki.RoleViewer).SetFreeze(t.Context(), freeze); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a viewer: %v", err)
	}
	boss, err := d.ca.Mint(pki.RoleAdmin, "boss", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	borrowed := metadata.AppendToOutgoingContext(t.Context(), "fettle-for-bin", string(boss.Certificate()), "fettle-from-bin", "1.2.3.4:5")
	for _, f := range []*fleet{d.fleet, d.through()} {
		if _, err := f.admin(pki.RoleViewer).SetFreeze(borrowed, freeze); status.Code(err) != codes.PermissionDenied {
			t.Errorf("a viewer that shows somebody else's certificate: %v", err)
		}
	}
	stranger, err := d.ca.Mint(pki.RoleServer, "was-never-let-in", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	api := wire.NewAdminServiceClient(d.dial(stranger))
	if _, err := api.SetFreeze(borrowed, freeze); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "sent away") {
		t.Errorf("a server that is not in the fleet: %v", err)
	}
	other, err := pki.Init(filepath.Join(t.TempDir(), "other"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.Mint(pki.RoleAdmin, "boss", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.options.Register.ForgetServer(t.Context(), d.second.Subject().Name()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.through().admin(pki.RoleAdmin).SetFreeze(t.Context(), freeze); status.Code(err) != codes.PermissionDenied {
		t.Errorf("by way of a server that was sent away: %v", err)
	}
	mine, err := d.ca.Mint(pki.RoleServer, "mine", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.options.Register.Found(t.Context(), "mine", "mine", time.Now()); err != nil {
		t.Fatal(err)
	}
	forged := metadata.AppendToOutgoingContext(t.Context(), "fettle-for-bin", string(foreign.Certificate()), "fettle-from-bin", "1.2.3.4:5")
	if _, err := wire.NewAdminServiceClient(d.dial(mine)).SetFreeze(forged, freeze); status.Code(err) != codes.Unauthenticated {
		t.Errorf("the certificate of another fleet, passed on by a server: %v", err)
	}
}

// TestLeaderChanges: the first server leads no more, the second does. Sessions end and
// begin anew by themselves, whichever way they went; what was passed on in vain is not
// passed on again.
func TestLeaderChanges(t *testing.T) {
	d := newTwo(t)
	b := d.through().box("one")
	b.connected(0, true)
	d.stop() // the first server is gone
	from := d.brain.mark()
	d.pair.lead(d.second.Subject().Name(), d.at)
	d.second.Led(d.at)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.second.Lead(ctx, d.brain) }()
	b.connected(from, true)
	b.seen(from, "the toy again", true)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	// Nobody leads, and the second is believed to: it does not pass calls to itself.
	short, end := context.WithTimeout(t.Context(), time.Second)
	defer end()
	_, err := d.through().admin(pki.RoleViewer).Status(short, &wire.StatusRequest{})
	if code := status.Code(err); code != codes.DeadlineExceeded && code != codes.Unavailable {
		t.Errorf("nobody leads: %v", err)
	}
}

// TestJoinPassedOn: a token works by way of any server, once.
func TestJoinPassedOn(t *testing.T) {
	d := newTwo(t)
	tok, err := d.options.Register.Invite(t.Context(), pki.RoleAgent, d.at, time.Now(), 0)
	if err != nil {
		t.Fatal(err)
	}
	join := func() error {
		_, err := agent.Join(t.Context(), agent.JoinOptions{Token: tok, Dir: filepath.Join(t.TempDir(), "id"), Label: "one", Wall: time.Now})
		return err
	}
	if err := join(); err != nil {
		t.Fatal(err)
	}
	if err := join(); err == nil || !strings.Contains(err.Error(), "used already") {
		t.Errorf("a second time: %v", err)
	}
	server, err := d.options.Register.Invite(t.Context(), pki.RoleServer, d.at, time.Now(), 0)
	if err != nil {
		t.Fatal(err)
	}
	tok = server
	if err := join(); err == nil || !strings.Contains(err.Error(), "one server") {
		t.Errorf("a server's token lets in a machine: %v", err)
	}
}
