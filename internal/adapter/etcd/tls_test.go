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
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fettle"
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
	ports := freePorts(t, 2)
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
	left, _ := r.observe(m, localProbe, m.in.member).Facts.Int("cert_expires_s")
	if left < 71*3600 || left > 72*3600 {
		t.Errorf("cert_expires_s = %d", left)
	}
	for what, config := range map[string]string{"no certificate": fmt.Sprintf("tls: {ca: %s}\n", file("ca")), "no authority": ""} {
		in, err := New().Open(r.ctx, m.m, []byte(fmt.Sprintf("system: sys\nunit: %s\nenv_file: %s\n%s", m.unit, m.env, config)))
		if err != nil {
			t.Fatal(err)
		}
		list := memberLooker{in.(*instance).cluster}.Observe(r.ctx, m.in.member)
		if len(list) != 1 || list[0].Reason != fettle.PermissionDenied {
			t.Errorf("%s: %+v", what, list)
		}
		if err := in.Close(); err != nil {
			t.Error(err)
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
