package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// How long certificates live. A machine that is away longer than AgentLife must
// join again; one that is there renews at two thirds of it.
const (
	AgentLife  = 90 * 24 * time.Hour
	ServerLife = 90 * 24 * time.Hour
	PersonLife = 365 * 24 * time.Hour
)

// Identity is a private key with its certificate and the authority that it
// trusts. It is not changed once it is made.
type Identity struct {
	Name  Name
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	ca    *x509.Certificate
	roots *x509.CertPool
}

func newIdentity(key *ecdsa.PrivateKey, cert, ca *x509.Certificate) (*Identity, error) {
	name, err := nameOf(cert)
	if err != nil {
		return nil, err
	}
	if err := cert.CheckSignatureFrom(ca); err != nil {
		return nil, fmt.Errorf("the certificate of %s is not signed by the authority beside it: %w", name, err)
	}
	id := &Identity{Name: name, cert: cert, key: key, ca: ca, roots: x509.NewCertPool()}
	id.roots.AddCert(ca)
	return id, nil
}

// Expires returns when the certificate ends.
func (id *Identity) Expires() time.Time { return id.cert.NotAfter }

// Due reports whether two thirds of the certificate's life are over: time to
// renew it, with a third left to try.
func (id *Identity) Due(now time.Time) bool {
	life := id.cert.NotAfter.Sub(id.cert.NotBefore)
	return now.After(id.cert.NotAfter.Add(-life / 3))
}

// Pin is the authority's, as CA.Pin.
func (id *Identity) Pin() string { return pinOf(id.ca) }

// LoadIdentity reads the identity of a role from a folder. Where there is none
// the error wraps fs.ErrNotExist.
func LoadIdentity(dir string, role Role) (*Identity, error) {
	path := IdentityFile(dir, role)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	key, certs, err := decode(data)
	if err == nil && len(certs) != 2 {
		err = fmt.Errorf("it holds %d certificates, not its own and the authority's", len(certs))
	}
	var id *Identity
	if err == nil {
		id, err = newIdentity(key, certs[0], certs[1])
	}
	if err == nil && id.Name.Role != role {
		err = fmt.Errorf("it is of a %s", id.Name.Role)
	}
	if err != nil {
		return nil, fmt.Errorf("identity %s: %w (move it aside and join again)", path, err)
	}
	return id, nil
}

// IdentityFile returns where in a folder the identity of a role is kept.
func IdentityFile(dir string, role Role) string { return filepath.Join(dir, string(role)+".pem") }

// Save keeps the identity in a folder, which is made if it is not there.
func (id *Identity) Save(dir string) error {
	if err := makeDir(dir); err != nil {
		return fmt.Errorf("keep the identity of %s: %w", id.Name, err)
	}
	data, err := encode(id.key, id.cert.Raw, id.ca.Raw)
	if err == nil {
		err = writeDurable(IdentityFile(dir, id.Name.Role), data, false)
	}
	if err != nil {
		return fmt.Errorf("keep the identity of %s: %w", id.Name, err)
	}
	return nil
}

// Issue returns the identity of a role that is kept in dir, after making it or
// renewing it where that is needed: a server's or a person's, by the holder of
// the authority. The id is used for one that is made.
func (ca *CA) Issue(dir string, role Role, id string, now time.Time, life time.Duration) (*Identity, error) {
	have, err := LoadIdentity(dir, role)
	switch {
	case err == nil && have.Name.Fleet != ca.fleet:
		return nil, fmt.Errorf("identity in %s is of fleet %s, not %s (move it aside)", dir, have.Name.Fleet, ca.fleet)
	case err == nil && !have.Due(now):
		return have, nil
	case err == nil:
		id = have.Name.ID
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	}
	made, err := ca.Mint(role, id, now, life)
	if err != nil {
		return nil, err
	}
	return made, made.Save(dir)
}

// Mint makes an identity that is kept nowhere.
func (ca *CA) Mint(role Role, id string, now time.Time, life time.Duration) (*Identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := ca.sign(&key.PublicKey, Name{Fleet: ca.fleet, Role: role, ID: id}, now, life)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back the certificate of %s: %w", id, err)
	}
	return newIdentity(key, cert, ca.cert)
}

// Request is a key that waits for its certificate.
type Request struct {
	key *ecdsa.PrivateKey
	CSR []byte // PKCS #10, DER
}

// NewRequest makes a key and the request for its certificate.
func NewRequest() (*Request, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return request(key)
}

// Renewal asks for a new certificate for the same key.
func (id *Identity) Renewal() (*Request, error) { return request(id.key) }

func request(key *ecdsa.PrivateKey) (*Request, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return &Request{key: key, CSR: csr}, nil
}

// Complete makes the identity from the certificates (DER) that came back. The
// authority's key must have the pin that is expected of it.
func (r *Request) Complete(cert, ca []byte, pin string) (*Identity, error) {
	c, err := x509.ParseCertificate(cert)
	if err != nil {
		return nil, fmt.Errorf("the certificate that came back: %w", err)
	}
	root, err := x509.ParseCertificate(ca)
	if err != nil {
		return nil, fmt.Errorf("the authority that came back: %w", err)
	}
	if pinOf(root) != pin {
		return nil, errors.New("the authority that came back is not the one that the token names")
	}
	if !r.key.PublicKey.Equal(c.PublicKey) {
		return nil, errors.New("the certificate that came back is for another key")
	}
	return newIdentity(r.key, c, root)
}

// SameKey reports whether a certificate request is for the key of a certificate:
// a renewal, and not a theft of the name.
func SameKey(csr []byte, cert *x509.Certificate) bool {
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return false
	}
	key, ok := req.PublicKey.(*ecdsa.PublicKey)
	return ok && key.Equal(cert.PublicKey)
}

func (id *Identity) tls() *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{id.cert.Raw, id.ca.Raw}, PrivateKey: id.key, Leaf: id.cert}
}

// Authority returns the authority's certificate, DER.
func (id *Identity) Authority() []byte { return id.ca.Raw }
