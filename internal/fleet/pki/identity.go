package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// How long certificates live. A machine that is away longer than AgentLife must
// join again; one that is there renews at two thirds of it.
const (
	AgentLife  = 90 * 24 * time.Hour
	ServerLife = 90 * 24 * time.Hour
	PersonLife = 365 * 24 * time.Hour
)

// Identity is a private key with its certificate and the authorities that it
// believes. It is not changed once it is made.
type Identity struct {
	Name   Name
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	ca     *x509.Certificate // that issued it
	trust  *Trust
	beside []*Identity // of a server: the same one under the other authorities that are believed
}

// newIdentity makes an identity of a certificate that one of those that it believes has
// issued.
func newIdentity(key *ecdsa.PrivateKey, cert *x509.Certificate, trust *Trust) (*Identity, error) {
	name, err := nameOf(cert)
	if err != nil {
		return nil, err
	}
	ca := trust.issuerOf(cert)
	if ca == nil {
		return nil, fmt.Errorf("the certificate of %s is not signed by the authority beside it", name)
	}
	return &Identity{Name: name, cert: cert, key: key, ca: ca, trust: trust}, nil
}

// Expires returns when the certificate ends.
func (id *Identity) Expires() time.Time { return id.cert.NotAfter }

// Due reports whether two thirds of the certificate's life are over: time to
// renew it, with a third left to try.
func (id *Identity) Due(now time.Time) bool {
	life := id.cert.NotAfter.Sub(id.cert.NotBefore)
	return now.After(id.cert.NotAfter.Add(-life / 3))
}

// Pin is that of the authority that issued it, as CA.Pin.
func (id *Identity) Pin() string { return pinOf(id.ca) }

// Outdated reports whether the fleet has another authority issue certificates now: time
// to renew this one.
func (id *Identity) Outdated() bool { return id.trust.use != "" && id.trust.use != id.Pin() }

// Serial is that of the last word of the authority that it believes; 0: there was none.
func (id *Identity) Serial() int64 { return id.trust.serial }

// Believing is the identity after some words of the authority (Trust.After). It does not
// believe one that would leave it with a certificate that nobody believes.
func (id *Identity) Believing(words []SignedWord) (*Identity, error) {
	trust, err := id.trust.After(words)
	if trust == id.trust {
		return id, err
	}
	if trust.issuerOf(id.cert) == nil {
		return id, fmt.Errorf("the authority's word %d drops the one that issued the certificate of %s, which was not renewed in time (move it aside and join again)", trust.serial, id.Name)
	}
	next := *id
	next.trust, next.beside = trust, nil
	return &next, err
}

// LoadIdentity reads the identity of a role from a folder. Where there is none
// the error wraps fs.ErrNotExist.
func LoadIdentity(dir string, role Role) (*Identity, error) {
	path := IdentityFile(dir, role)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	key, certs, err := decode(data)
	if err == nil && len(certs) < 2 {
		err = fmt.Errorf("it holds %d certificates, not its own and the authority's", len(certs))
	}
	var id *Identity
	var trust *Trust
	if err == nil {
		trust, err = keptTrust(data, certs)
	}
	if err == nil {
		id, err = newIdentity(key, certs[0], trust)
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
	data, err := id.encode()
	if err == nil {
		err = writeDurable(IdentityFile(dir, id.Name.Role), data, false)
	}
	if err != nil {
		return fmt.Errorf("keep the identity of %s: %w", id.Name, err)
	}
	return nil
}

// believedHeader is, in a file with an identity, what the certificate's block says of the
// authorities that follow: the serial of the word, and the pin of the one that issues.
const believedHeader = "Fettle-Authorities"

// encode writes the identity as PEM: key, certificate, the authority that issued it, and
// what else it believes.
func (id *Identity) encode() ([]byte, error) {
	data, err := encode(id.key)
	if err != nil {
		return nil, err
	}
	own := &pem.Block{Type: "CERTIFICATE", Bytes: id.cert.Raw}
	if id.trust.serial != 0 {
		own.Headers = map[string]string{believedHeader: fmt.Sprintf("%d %s", id.trust.serial, id.trust.use)}
	}
	data = append(data, pem.EncodeToMemory(own)...)
	data = append(data, PEM(id.ca.Raw)...)
	for _, c := range id.trust.authorities {
		if !c.Equal(id.ca) {
			data = append(data, PEM(c.Raw)...)
		}
	}
	return data, nil
}

// keptTrust reads whom an identity believes from its file, of which these are the
// certificates.
func keptTrust(data []byte, certs []*x509.Certificate) (*Trust, error) {
	name, err := nameOf(certs[0])
	if err != nil {
		return nil, err
	}
	var ders [][]byte
	for _, c := range certs[1:] {
		ders = append(ders, c.Raw)
	}
	trust, err := NewTrust(name.Fleet, 0, ders...)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return trust, nil
		}
		said, ok := block.Headers[believedHeader]
		if !ok {
			continue
		}
		serial, use, _ := strings.Cut(said, " ")
		if trust.serial, err = strconv.ParseInt(serial, 10, 64); err != nil || trust.serial <= 0 || use != "" && !made(use, pinLength, "0123456789abcdef") {
			return nil, fmt.Errorf("what it says of the authorities, %.40q, cannot be read", said)
		}
		trust.use = use
		return trust, nil
	}
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
	return r.CompleteBelieving(cert, ca, pin, 0, nil)
}

// CompleteBelieving is Complete where the fleet believes more authorities than that one,
// as the word of a serial says. 0 and none: there was no word.
func (r *Request) CompleteBelieving(cert, ca []byte, pin string, serial int64, believed [][]byte) (*Identity, error) {
	root, err := x509.ParseCertificate(ca)
	if err != nil {
		return nil, fmt.Errorf("the authority that came back: %w", err)
	}
	if pinOf(root) != pin {
		return nil, errors.New("the authority that came back is not the one that the token names")
	}
	name, err := r.nameIn(cert)
	if err != nil {
		return nil, err
	}
	if len(believed) == 0 {
		believed = [][]byte{ca}
	}
	trust, err := NewTrust(name.Fleet, serial, believed...)
	if err != nil {
		return nil, err
	}
	return r.renewed(cert, trust)
}

// Renewed makes the identity from the certificate (DER) that came back for the renewal of
// one that there is.
func (r *Request) Renewed(cert []byte, id *Identity) (*Identity, error) {
	name, err := r.nameIn(cert)
	if err == nil && name != id.Name {
		err = fmt.Errorf("the certificate that came back is of %s", name)
	}
	if err != nil {
		return nil, err
	}
	return r.renewed(cert, id.trust)
}

func (r *Request) nameIn(cert []byte) (Name, error) {
	c, err := x509.ParseCertificate(cert)
	if err != nil {
		return Name{}, fmt.Errorf("the certificate that came back: %w", err)
	}
	if !r.key.PublicKey.Equal(c.PublicKey) {
		return Name{}, errors.New("the certificate that came back is for another key")
	}
	return nameOf(c)
}

func (r *Request) renewed(cert []byte, trust *Trust) (*Identity, error) {
	c, err := x509.ParseCertificate(cert)
	if err != nil {
		return nil, fmt.Errorf("the certificate that came back: %w", err)
	}
	return newIdentity(r.key, c, trust)
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
