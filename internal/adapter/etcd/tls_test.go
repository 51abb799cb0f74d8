package etcd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fettle"
	"fettle/internal/machine"
	"fettle/internal/machine/loopback"
	"fettle/internal/machine/procservices"
)

// authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{}
	a.pem, _ = a.issue(t, "authority", time.Now().Add(240*time.Hour))
	return a
}

// issue makes a certificate, of the authority itself when it has none.
func (a *authority) issue(t testing.TB, name string, end time.Time) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: end, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		parent, signer = c, k
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &k.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert == nil {
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		a.key = k
	}
	raw, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})
}

// TestTLS: a member that asks its clients for a certificate is seen by who has one,
// and is neither down nor well to who has none; when the first certificate ends is
// known.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t)
	cert, key := ca.issue(t, "m1", time.Now().Add(72*time.Hour))
	for name, data := range map[string][]byte{"ca": ca.pem, "cert": cert, "key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	ports := loopback.Ports(t, 2)
	client := fmt.Sprintf("https://127.0.0.1:%d", ports[0])
	r := newRig(t, rigOptions{members: 1, ports: ports, tls: fmt.Sprintf("tls: {ca: %s, cert: %s, key: %s}\n", file("ca"), file("cert"), file("key")), extra: map[string]string{
		"LISTEN_CLIENT_URLS": client, "ADVERTISE_CLIENT_URLS": client, "CLIENT_CERT_AUTH": "true",
		"TRUSTED_CA_FILE": file("ca"), "CERT_FILE": file("cert"), "KEY_FILE": file("key"),
	}})
	m := r.members[0]
	o := r.observe(m, memberProbe, m.in.member)
	if o.Facts["answers"] != true || o.Facts["health"] != true {
		t.Fatalf("with a certificate: %+v", o)
	}
	local := r.observe(m, localProbe, m.in.member)
	left, _ := local.Facts.Int("cert_expires_s")
	if left < 71*3600 || left > 72*3600 || local.Facts["cert_expired"] != false || local.Facts["cert_file"] != file("cert") {
		t.Errorf("its certificate: %+v", local.Facts)
	}
	for what, config := range map[string]string{"no certificate": fmt.Sprintf("tls: {ca: %s}\n", file("ca")), "no authority": ""} {
		in, err := New().Open(r.ctx, m.m, []byte(fmt.Sprintf("system: sys\nunit: %s\nenv_file: %s\n%s", m.unit, m.env, config)))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // also when the connection has been failing for a while
			list := memberLooker{in.(*instance).cluster}.Observe(r.ctx, m.in.member)
			if len(list) != 1 || list[0].Reason != fettle.PermissionDenied {
				t.Errorf("%s: %+v", what, list)
			}
		}
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestCertificateEnded: the connection that stands stays; a new one is refused, and
// that is said of the member, with which file it is. What is refused because the
// adapter's own certificate has ended says nothing of the member. A new file is
// taken without a restart.
func TestCertificateEnded(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	ca := newAuthority(t)
	issue := func(name string, end time.Time) {
		cert, key := ca.issue(t, name, end)
		for f, data := range map[string][]byte{"ca": ca.pem, name + ".pem": append(cert, key...)} {
			if err := os.WriteFile(file(f), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	good, ended := time.Now().Add(72*time.Hour), time.Now().Add(-time.Minute)
	issue("server", good)
	issue("client", good)
	ports := loopback.Ports(t, 2)
	client := fmt.Sprintf("https://127.0.0.1:%d", ports[0])
	tls := fmt.Sprintf("tls: {ca: %s, cert: %[2]s, key: %[2]s}\n", file("ca"), file("client.pem"))
	r := newRig(t, rigOptions{members: 1, ports: ports, tls: tls, extra: map[string]string{
		"LISTEN_CLIENT_URLS": client, "ADVERTISE_CLIENT_URLS": client, "CLIENT_CERT_AUTH": "true",
		"TRUSTED_CA_FILE": file("ca"), "CERT_FILE": file("server.pem"), "KEY_FILE": file("server.pem"),
	}})
	m := r.members[0]
	anew := func(do func(*instance)) {
		t.Helper()
		in, err := New().Open(r.ctx, m.m, fmt.Appendf(nil, "system: sys\nunit: %s\nenv_file: %s\n%s", m.unit, m.env, tls))
		if err != nil {
			t.Fatal(err)
		}
		do(in.(*instance))
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	}
	one := func(in *instance) fettle.Observation {
		t.Helper()
		list := memberLooker{in.cluster}.Observe(r.ctx, m.in.member)
		if len(list) != 1 {
			t.Fatalf("%+v", list)
		}
		return list[0]
	}

	issue("server", ended)
	if o := r.observe(m, localProbe, m.in.member); o.Facts["cert_expired"] != true || o.Facts["cert_file"] != file("server.pem") || o.Facts["cert_not_after"] != ended.UTC().Format(time.RFC3339) {
		t.Errorf("from its own machine: %+v", o.Facts)
	}
	if o := r.observe(m, memberProbe, m.in.member); o.Facts["answers"] != true {
		t.Errorf("over the connection that stands: %+v", o)
	}
	anew(func(in *instance) {
		for range 2 { // also when the connection has been failing for a while
			if o := one(in); !o.Known() || o.Facts["answers"] != false || !strings.Contains(o.Detail, "certificate has expired") {
				t.Errorf("over a new one: %+v", o)
			}
		}
		// It may well serve over connections that stand.
		q := in.cluster.observeCluster(r.ctx, in.cluster.poll).Quorum
		if v, ok := q.Member(m.in.member); !ok || v.Serving != fettle.Unknown {
			t.Errorf("quorum: %+v", q)
		}
		d := r.dispatch(m, "etcd.defrag", m.in.member, nil)
		if _, err := in.Actions()["etcd.defrag"].Apply(r.ctx, d); fettle.ClassOf(err) != fettle.Refused {
			t.Errorf("an action: %v", err)
		}
	})

	issue("server", good)
	issue("client", ended)
	anew(func(in *instance) {
		for range 2 {
			if o := one(in); o.Reason != fettle.PermissionDenied {
				t.Errorf("with a certificate of our own that has ended: %+v", o)
			}
		}
		list := localLooker{in}.Observe(r.ctx)
		if len(list) != 1 || list[0].Facts["cert_file"] != file("client.pem") || list[0].Facts["cert_expired"] != true {
			t.Errorf("our own is named: %+v", list)
		}
	})
	issue("client", good)
	anew(func(in *instance) {
		if o := one(in); o.Facts["answers"] != true {
			t.Errorf("renewed: %+v", o)
		}
	})
}

// TestSilentTLS: a member that accepts and says nothing, not even in a handshake,
// does not answer; it has refused nobody.
func TestSilentTLS(t *testing.T) {
	t.Parallel()
	m := machine.Machine{
		Identity: machine.Identity{Host: fettle.HostSubject("h1")}, Clock: wallClock{}, Files: osFiles{},
		Services: procservices.New(wallClock{}.Now), Filesystems: oneFilesystem{}, Commands: osCommands{},
	}
	in, err := New().Open(t.Context(), m, fmt.Appendf(nil, "system: sys\nname: m1\ndata_dir: %s\nclient_endpoint: https://%s\n", t.TempDir(), silent(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for range 2 {
		list := memberLooker{in.(*instance).cluster}.Observe(t.Context(), fettle.NewSubject(KindMember, "sys", "m1"))
		if len(list) != 1 || !list[0].Known() || list[0].Facts["answers"] != false {
			t.Errorf("%+v", list)
		}
	}
}

// TestAuthorityEnd: of several authorities in a file the last to end counts.
func TestAuthorityEnd(t *testing.T) {
	old, young := &authority{}, &authority{}
	soon, late := time.Now().Add(time.Hour).Truncate(time.Second), time.Now().Add(48*time.Hour).Truncate(time.Second)
	first, key := old.issue(t, "old", soon)
	second, _ := young.issue(t, "young", late)
	both := slices.Concat(key, first, second)
	if end, err := authorityEnd(both); err != nil || !end.Equal(late) {
		t.Errorf("authorities: %v, %v", end, err)
	}
	if end, err := certEnd(both); err != nil || !end.Equal(soon) {
		t.Errorf("own: %v, %v", end, err)
	}
	for _, bad := range [][]byte{nil, []byte("no PEM"), key, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")} {
		if end, err := authorityEnd(bad); err == nil {
			t.Errorf("%q: %v", bad, end)
		}
	}
}

// TestDenied: what a user without the right is told.
func TestDenied(t *testing.T) {
	for _, err := range []error{
		status.Error(codes.PermissionDenied, "etcdserver: permission denied"),
		status.Error(codes.Unauthenticated, "etcdserver: invalid auth token"),
		status.Error(codes.Unavailable, "connection error: desc = \"transport: authentication handshake failed: tls: failed to verify certificate\""),
		status.Error(codes.Unavailable, "connection error: desc = \"error reading server preface: remote error: tls: certificate required\""),
	} {
		if got := fettle.ClassOf(outcome("etcd.x", "etcd:s", err)); got != fettle.Denied {
			t.Errorf("%v: %s", err, got)
		}
	}
	for _, err := range []error{
		status.Error(codes.Unavailable, "connection error: desc = \"transport: authentication handshake failed: context deadline exceeded\""),
		status.Error(codes.DeadlineExceeded, "latest balancer error: connection error: desc = \"transport: authentication handshake failed: EOF\""),
	} {
		if got := fettle.ClassOf(outcome("etcd.x", "etcd:s", err)); got != fettle.NoAnswer {
			t.Errorf("%v: %s", err, got)
		}
	}
}

// TestBadCertificates: files that are not what they should be are named.
func TestBadCertificates(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []TLS{{CA: text}, {CA: filepath.Join(dir, "missing")}, {Cert: text, Key: text}} {
		if _, err := loadTLS(t.Context(), osFiles{}, c); err == nil || !strings.Contains(err.Error(), "tls.") {
			t.Errorf("%+v: %v", c, err)
		} else if c.CA != text && c.Cert == "" && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
