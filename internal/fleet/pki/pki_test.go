package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fettle/internal/fettle"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func newCA(t *testing.T) *CA {
	t.Helper()
	ca, err := Init(filepath.Join(t.TempDir(), "pki"), now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func mustMint(t *testing.T, ca *CA, role Role, id string) *Identity {
	t.Helper()
	i, err := ca.Mint(role, id, now, AgentLife)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestInitOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	ca, err := Init(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Init(dir, now); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Init: %v, want fs.ErrExist", err)
	}
	again, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if again.Fleet() != ca.Fleet() || again.Pin() != ca.Pin() {
		t.Errorf("opened fleet %s pin %s, made %s %s", again.Fleet(), again.Pin(), ca.Fleet(), ca.Pin())
	}
	if _, err := Open(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open where there is none: %v, want fs.ErrNotExist", err)
	}
}

func TestKeysAreTheOwnersOnly(t *testing.T) {
	ca := newCA(t)
	reg, shelf := newRegister(t, ca)
	dir := filepath.Join(t.TempDir(), "admin")
	if _, err := ca.Issue(dir, RoleAdmin, "root", now, PersonLife); err != nil {
		t.Fatal(err)
	}
	if _, err := reg.Invite(t.Context(), RoleAgent, "h:1", now, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Import(filepath.Join(dir, "authority"), mustExport(t, ca), ca.Pin()); err != nil {
		t.Fatal(err)
	}
	files := 0
	for _, root := range []string{dir, string(shelf)} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			if info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
			if !d.IsDir() {
				files++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 3 {
		t.Errorf("looked at %d files only", files)
	}
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(open, now); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("Init in a folder that others may enter: %v", err)
	}
}

func TestIdentitySurvivesAndRenews(t *testing.T) {
	ca := newCA(t)
	dir := filepath.Join(t.TempDir(), "server")
	first, err := ca.Issue(dir, RoleServer, "s1", now, ServerLife)
	if err != nil {
		t.Fatal(err)
	}
	same, err := ca.Issue(dir, RoleServer, "other", now.Add(ServerLife/2), ServerLife)
	if err != nil {
		t.Fatal(err)
	}
	if same.Name != first.Name || same.cert.SerialNumber.Cmp(first.cert.SerialNumber) != 0 {
		t.Errorf("half-way through: got %s %x, want the one that is there: %s %x", same.Name, same.cert.SerialNumber, first.Name, first.cert.SerialNumber)
	}
	late := now.Add(ServerLife * 3 / 4)
	renewed, err := ca.Issue(dir, RoleServer, "other", late, ServerLife)
	if err != nil {
		t.Fatal(err)
	}
	if renewed.Name != first.Name || !renewed.Expires().After(first.Expires()) {
		t.Errorf("renewed %s until %v; was %s until %v", renewed.Name, renewed.Expires(), first.Name, first.Expires())
	}
	loaded, err := LoadIdentity(dir, RoleServer)
	if err != nil {
		t.Fatal(err)
	}
	if !loaded.Expires().Equal(renewed.Expires()) {
		t.Errorf("kept until %v, want %v", loaded.Expires(), renewed.Expires())
	}
}

func TestIssueRefusesAnotherFleetsIdentity(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "server")
	if _, err := newCA(t).Issue(dir, RoleServer, "s1", now, ServerLife); err != nil {
		t.Fatal(err)
	}
	if _, err := newCA(t).Issue(dir, RoleServer, "s1", now, ServerLife); err == nil || !strings.Contains(err.Error(), "is of fleet") {
		t.Errorf("got %v", err)
	}
}

func TestBrokenIdentityFiles(t *testing.T) {
	ca := newCA(t)
	a, b := mustMint(t, ca, RoleAgent, "a"), mustMint(t, ca, RoleAgent, "b")
	foreign := newCA(t)
	pem := func(key *ecdsa.PrivateKey, certs ...[]byte) []byte {
		data, err := encode(key, certs...)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for name, data := range map[string][]byte{
		"empty":               nil,
		"no key":              []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
		"another's key":       pem(a.key, b.cert.Raw, ca.use.cert.Raw),
		"no authority":        pem(a.key, a.cert.Raw),
		"another's authority": pem(a.key, a.cert.Raw, foreign.use.cert.Raw),
		"another role":        pem(mustMint(t, ca, RoleAdmin, "x").key, mustMint(t, ca, RoleAdmin, "x").cert.Raw, ca.use.cert.Raw),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(IdentityFile(dir, RoleAgent), data, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := LoadIdentity(dir, RoleAgent); err == nil || !strings.Contains(err.Error(), "join again") {
				t.Errorf("got %v, want an error with a hint", err)
			}
		})
	}
}

func TestTokenWorksOnceInItsTime(t *testing.T) {
	reg, shelf := newRegister(t, newCA(t))
	invite := func() Token {
		tok, err := reg.Invite(t.Context(), RoleAgent, "[::1]:7401", now, 0)
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	tok := invite()
	data, err := os.ReadFile(shelf.file(shelfTokens, tok.ID))
	if err != nil || strings.Contains(string(data), tok.Secret) {
		t.Fatalf("the secret is kept in the clear (%v)", err)
	}
	refused := func(id, secret string, at time.Time, want string) {
		t.Helper()
		if _, err := reg.Redeem(t.Context(), RoleAgent, id, secret, at); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want ErrToken with %q", err, want)
		}
	}
	refused(tok.ID, strings.Repeat("a", secretLength), now, "wrong")
	refused("../../etc/pwd", tok.Secret, now, "not whole")
	refused(strings.Repeat("a", idLength), tok.Secret, now, "unknown")
	refused(tok.ID, tok.Secret, now.Add(TokenLife), "expired")
	if _, err := reg.Redeem(t.Context(), RoleServer, tok.ID, tok.Secret, now); !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "one agent") {
		t.Errorf("a host's token lets in a server: %v", err)
	}
	if _, err := reg.Redeem(t.Context(), RoleAgent, tok.ID, tok.Secret, now.Add(TokenLife-1)); err != nil {
		t.Fatalf("a good token: %v", err)
	}
	refused(tok.ID, tok.Secret, now, "used already")

	race := invite()
	var won sync.Map
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if _, err := reg.Redeem(t.Context(), RoleAgent, race.ID, race.Secret, now); err == nil {
				won.Store(i, true)
			}
		})
	}
	wg.Wait()
	n := 0
	won.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("16 at once: %d got in, want 1", n)
	}

	old := invite()
	if _, err := reg.Invite(t.Context(), RoleAgent, "h:1", now.Add(48*time.Hour), 0); err != nil {
		t.Fatal(err)
	}
	refused(old.ID, old.Secret, now.Add(48*time.Hour), "unknown")
}

func TestTokenText(t *testing.T) {
	reg, _ := newRegister(t, newCA(t))
	tok, err := reg.Invite(t.Context(), RoleAgent, "[fe80::1]:7401", now, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseToken("  " + tok.String() + "\n")
	if err != nil || got != tok {
		t.Errorf("got %+v (%v), want %+v", got, err, tok)
	}
	text := tok.String()
	for _, bad := range []string{"", "x", text[1:], text[:len(text)-1], strings.Replace(text, ".", "", 1), "fettle-join:" + text[strings.Index(text, tok.ID):], strings.Replace(text, "[fe80::1]:7401", "host", 1)} {
		if _, err := ParseToken(bad); err == nil {
			t.Errorf("no error for %q", bad)
		} else if strings.Contains(err.Error(), tok.Secret) {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
	if _, err := reg.Invite(t.Context(), RoleAgent, "nowhere", now, 0); err == nil {
		t.Error("a token for an address without a port was made")
	}
}

func FuzzParseToken(f *testing.F) {
	pin := strings.Repeat("0f", pinLength/2)
	f.Add("fettle-join:h:7401:" + strings.Repeat("a", idLength) + "." + strings.Repeat("b", secretLength) + ":" + pin)
	f.Add("fettle-join:[::1]:1:x.y:" + pin)
	f.Add("fettle-join:::::")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := ParseToken(text)
		if err != nil {
			return
		}
		again, err := ParseToken(tok.String())
		if err != nil || again != tok {
			t.Errorf("%q: read as %+v, and that as %+v (%v)", text, tok, again, err)
		}
	})
}

func FuzzParseName(f *testing.F) {
	f.Add("spiffe://abc/agent/h1")
	f.Add("spiffe://abc/agent/h1/x")
	f.Add("spiffe:///agent/..")
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseName(text)
		if err != nil {
			return
		}
		if n.String() != text || !n.Role.known() || n.ID == "" {
			t.Errorf("%q read as %+v", text, n)
		}
	})
}

func TestRoles(t *testing.T) {
	order := []Role{RoleViewer, RoleOperator, RoleApprover, RoleAdmin}
	for i, r := range order {
		for j, need := range order {
			if got, want := r.Includes(need), i >= j; got != want {
				t.Errorf("%s includes %s: %v", r, need, got)
			}
		}
		for _, machine := range []Role{RoleServer, RoleAgent, "", "god"} {
			if r.Includes(machine) || machine.Includes(r) {
				t.Errorf("%s and %q include one another", r, machine)
			}
		}
	}
	if Role("").Includes("") {
		t.Error("no role includes no role")
	}
	if _, err := newCA(t).Mint("god", "x", now, time.Hour); err == nil {
		t.Error("a certificate for an unknown role was signed")
	}
}

// TestHandshake connects real sockets: who is let in, who is not, and who is
// known to be whom.
func TestHandshake(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	server := mustMint(t, ca, RoleServer, "s1")
	agent := mustMint(t, ca, RoleAgent, "h1")
	clock := func() time.Time { return now }
	fixed := func(id *Identity) func() *Identity { return func() *Identity { return id } }
	expired := now.Add(AgentLife + time.Hour)

	cases := map[string]struct {
		server *Identity
		client *tls.Config
		at     time.Time // at the server
		want   string    // part of either side's error, "" for none
		is     error
	}{
		"agent":           {server, ClientTLS(fixed(agent), clock), now, "", nil},
		"expired":         {server, ClientTLS(fixed(agent), clock), expired, "expired at", ErrExpired},
		"not begun":       {server, ClientTLS(fixed(agent), clock), now.Add(-2 * time.Hour), "set the clock", ErrExpired},
		"other fleet":     {server, ClientTLS(fixed(mustMint(t, other, RoleAgent, "h1")), clock), now, "unknown authority", nil},
		"agent as server": {agent, ClientTLS(fixed(agent), clock), now, "certificate", nil},
		"stranger":        {server, stranger(t, ca), now, "not of this fleet", ErrStranger},
		"joining":         {server, JoinTLS(ca.Pin(), clock), now, "none was shown", ErrStranger},
		"wrong pin":       {server, JoinTLS(other.Pin(), clock), now, "check the address", ErrStranger},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := handshake(t, c.server, c.client, c.at)
			switch {
			case c.want == "" && (err != nil || got != agent.Name):
				t.Errorf("got %v, %v", got, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			case c.is != nil && !errors.Is(err, c.is):
				t.Errorf("got %v, want %v", err, c.is)
			}
		})
	}
}

// stranger has a certificate with a name of the fleet, which it signed itself.
func stranger(t *testing.T, ca *CA) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := Name{Fleet: ca.fleet, Role: RoleAgent, ID: "h1"}.id()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial(), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	template.URIs = append(template.URIs, id.URL())
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := JoinTLS(ca.Pin(), func() time.Time { return now })
	cfg.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	return cfg
}

// handshake connects both over a socket and returns whom the server takes the
// client for, or the errors of both sides.
func handshake(t *testing.T, server *Identity, client *tls.Config, at time.Time) (Name, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	errs := make(chan error, 1)
	go func() {
		raw, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			errs <- err
			return
		}
		c := tls.Client(raw, client)
		defer c.Close()
		err = c.HandshakeContext(t.Context())
		if err == nil {
			_, _ = c.Read(make([]byte, 1)) // until the server closes
		}
		errs <- err
	}()
	raw, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	cfg := ServerTLS(func() *Identity { return server })
	cfg.Time = func() time.Time { return at }
	c := tls.Server(raw, cfg)
	serr := c.HandshakeContext(t.Context())
	var name Name
	if serr == nil {
		name, _, serr = server.Peer(c.ConnectionState(), at)
	}
	_ = c.Close()
	return name, errors.Join(serr, <-errs)
}

func TestJoin(t *testing.T) {
	ca := newCA(t)
	reg, _ := newRegister(t, ca)
	req, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	h, cert, err := reg.Admit(t.Context(), req.CSR, "web1", now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := req.Complete(cert, ca.use.cert.Raw, strings.Repeat("0", pinLength)); err == nil {
		t.Error("an authority with another pin was taken")
	}
	id, err := req.Complete(cert, ca.use.cert.Raw, ca.Pin())
	if err != nil {
		t.Fatal(err)
	}
	if id.Name.Host() != fettle.HostSubject(h.ID) || id.Name.Role != RoleAgent {
		t.Errorf("joined as %s, admitted %s", id.Name, h.ID)
	}
	dir := filepath.Join(t.TempDir(), "agent")
	if err := id.Save(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadIdentity(dir, RoleAgent); err != nil {
		t.Error(err)
	}

	renewal, err := id.Renewal()
	if err != nil {
		t.Fatal(err)
	}
	if !SameKey(renewal.CSR, id.cert) || SameKey(mustRequest(t).CSR, id.cert) || SameKey([]byte("x"), id.cert) {
		t.Error("SameKey cannot tell a renewal")
	}

	list, err := reg.Hosts(t.Context())
	if err != nil || len(list) != 1 || list[0].Label != "web1" {
		t.Errorf("hosts %v, %v", list, err)
	}
	admitted := func(role Role, id string) bool {
		ok, err := reg.Admitted(t.Context(), Name{Fleet: ca.Fleet(), Role: role, ID: id})
		if err != nil {
			t.Error(err)
		}
		return ok
	}
	if !admitted(RoleAgent, h.ID) || admitted(RoleAgent, "nobody") || admitted(RoleServer, h.ID) || !admitted(RoleViewer, "anna") {
		t.Error("Admitted is wrong")
	}
	if err := reg.Forget(t.Context(), h.ID); err != nil || admitted(RoleAgent, h.ID) {
		t.Errorf("forget: %v", err)
	}
	if err := reg.Forget(t.Context(), h.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("forget again: %v", err)
	}
	bad := append([]byte(nil), req.CSR...)
	bad[len(bad)-1] ^= 1
	if _, _, err := reg.Admit(t.Context(), bad, "x", now); err == nil {
		t.Error("a request with a broken signature was signed")
	}
}

// TestServersJoin: the first server needs nobody to let it in; a later one does,
// gets the authority, and can be sent away, for good.
func TestServersJoin(t *testing.T) {
	ca := newCA(t)
	reg, _ := newRegister(t, ca)
	admitted := func(id string) bool {
		ok, err := reg.Admitted(t.Context(), Name{Fleet: ca.Fleet(), Role: RoleServer, ID: id})
		return ok && err == nil
	}
	if err := reg.Found(t.Context(), "first", "h1", now); err != nil || !admitted("first") {
		t.Fatalf("the first server: %v", err)
	}
	h, _, err := reg.AdmitServer(t.Context(), mustRequest(t).CSR, "h2", now)
	if err != nil || !admitted(h.ID) {
		t.Fatalf("the second server: %v", err)
	}
	if err := reg.ForgetServer(t.Context(), h.ID); err != nil || admitted(h.ID) {
		t.Errorf("sent away: %v", err)
	}
	if err := reg.Found(t.Context(), h.ID, "h2", now); err != nil || admitted(h.ID) {
		t.Errorf("it is back by itself: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := Import(dir, mustExport(t, ca), newCA(t).Pin()); err == nil {
		t.Error("an authority with another pin was taken over")
	}
	other, err := Import(dir, mustExport(t, ca), ca.Pin())
	if err != nil || other.Fleet() != ca.Fleet() {
		t.Fatalf("taken over: %v", err)
	}
	if _, err := Import(dir, mustExport(t, ca), ca.Pin()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second authority in one folder: %v", err)
	}
}

func mustExport(t *testing.T, ca *CA) []byte {
	t.Helper()
	data, err := ca.Export()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func newRegister(t *testing.T, ca *CA) (*Register, Folder) {
	t.Helper()
	shelf := Folder(filepath.Join(t.TempDir(), "register"))
	return NewRegister(ca, shelf), shelf
}

func mustRequest(t *testing.T) *Request {
	t.Helper()
	r, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	return r
}
