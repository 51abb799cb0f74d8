package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	caFile = "ca.pem"
	// caLife is long: to change the authority is an administrator's decision, and no
	// date's.
	caLife = 20 * 365 * 24 * time.Hour
	// backdated lets a certificate be used on a machine whose clock is behind.
	backdated = time.Hour
)

// authority is one key with which certificates are issued.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (a *authority) pin() string { return pinOf(a.cert) }

// CA is the authority of one fleet; while that is being changed, both the old and the
// new. Its methods may be called concurrently.
type CA struct {
	fleet string
	dir   string

	mu    sync.Mutex
	use   *authority            // the one that issues
	keys  map[string]*authority // all that this server holds, by pin
	trust *Trust                // whom the fleet believes
	words []SignedWord          // that say so, oldest first
}

// Init mints a fleet and its authority into the folder, which is made if it is
// not there. An authority that is there already is an error that wraps
// fs.ErrExist: a second one would strand every machine that has joined.
func Init(dir string, now time.Time) (*CA, error) {
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("make the fleet's authority: %w", err)
	}
	_, data, err := newAuthority(MintID(), now)
	if err != nil {
		return nil, fmt.Errorf("make the fleet's authority: %w", err)
	}
	path := filepath.Join(dir, caFile)
	if err := writeDurable(path, data, true); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("make the fleet's authority: %s is there already (use it, or choose another folder): %w", path, err)
		}
		return nil, fmt.Errorf("make the fleet's authority: %w", err)
	}
	return Open(dir)
}

// newAuthority makes a key with which certificates of a fleet are issued, and its file.
func newAuthority(fleet string, now time.Time) (*authority, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "Fettle fleet " + fleet},
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: fleet}},
		NotBefore:             now.Add(-backdated),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	data, err := encode(key, der)
	if err != nil {
		return nil, nil, err
	}
	a, err := decodeAuthority(data)
	return a, data, err
}

// decodeAuthority reads an authority's file.
func decodeAuthority(data []byte) (*authority, error) {
	key, certs, err := decode(data)
	if err != nil {
		return nil, err
	}
	cert := certs[0]
	if !cert.IsCA || len(cert.URIs) != 1 || cert.URIs[0].Host == "" {
		return nil, errors.New("it holds the certificate of no authority")
	}
	return &authority{cert: cert, key: key}, nil
}

// Open reads the authority in a folder. Where there is none the error wraps
// fs.ErrNotExist.
func Open(dir string) (*CA, error) {
	path := filepath.Join(dir, caFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("open the fleet's authority: %w", err)
	}
	own, err := decodeAuthority(data)
	if err != nil {
		return nil, fmt.Errorf("open the fleet's authority %s: %w (restore it from a backup)", path, err)
	}
	fleet := own.cert.URIs[0].Host
	ca := &CA{fleet: fleet, dir: dir, use: own, keys: map[string]*authority{own.pin(): own}, trust: newTrust(fleet, 0, own.pin(), []*x509.Certificate{own.cert})}
	if err := ca.recall(); err != nil {
		return nil, fmt.Errorf("open the fleet's authority: %w (restore it from a backup)", err)
	}
	return ca, nil
}

// Export returns the authority that issues, its private key included, for another server
// of the fleet: it leaves this process over mutual TLS to a server, or to one who brought
// a token for servers, and by no other way but a backup.
func (ca *CA) Export() ([]byte, error) { return ca.ExportKey(ca.Pin()) }

// Import keeps what Export returned in a folder, which is made if it is not there.
// The authority's key must have the pin that is expected of it, where one is (a backup
// names none); one that is there already is an error that wraps fs.ErrExist.
func Import(dir string, data []byte, pin string) (*CA, error) {
	if _, certs, err := decode(data); err != nil {
		return nil, fmt.Errorf("take over the fleet's authority: %w", err)
	} else if pin != "" && pinOf(certs[0]) != pin {
		return nil, errors.New("take over the fleet's authority: it is not the one that the token names")
	}
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("take over the fleet's authority: %w", err)
	}
	if err := writeDurable(filepath.Join(dir, caFile), data, true); err != nil {
		return nil, fmt.Errorf("take over the fleet's authority: %w", err)
	}
	return Open(dir)
}

// Fleet returns the fleet's identity.
func (ca *CA) Fleet() string { return ca.fleet }

// Pin returns the hash of the public key of the authority that issues (SHA-256 of its
// SubjectPublicKeyInfo, in hexadecimal, as RFC 7469 pins).
func (ca *CA) Pin() string { return ca.issuer().pin() }

func (ca *CA) issuer() *authority {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return ca.use
}

// PinOf is CA.Pin of the authority with this certificate (DER).
func PinOf(certificate []byte) (string, error) {
	cert, err := x509.ParseCertificate(certificate)
	if err != nil {
		return "", fmt.Errorf("the certificate of an authority: %w", err)
	}
	return pinOf(cert), nil
}

func pinOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// Sign makes a certificate for a name from a certificate request (PKCS #10, DER)
// that proves possession of its key. What else the request asks for is not read.
func (ca *CA) Sign(csr []byte, name Name, now time.Time, life time.Duration) ([]byte, error) {
	return ca.signAs(ca.issuer(), csr, name, now, life)
}

func (ca *CA) signAs(by *authority, csr []byte, name Name, now time.Time, life time.Duration) ([]byte, error) {
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", name, err)
	}
	if err := req.CheckSignature(); err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: the request is not signed by its own key: %w", name, err)
	}
	key, ok := req.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("sign the certificate of %s: the key is not ECDSA P-256", name)
	}
	if name.Fleet != ca.fleet {
		return nil, fmt.Errorf("sign the certificate of %s: this authority is fleet %s's", name, ca.fleet)
	}
	return by.sign(key, name, now, life)
}

func (a *authority) sign(key *ecdsa.PublicKey, name Name, now time.Time, life time.Duration) ([]byte, error) {
	id, err := name.id()
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", name, err)
	}
	end := now.Add(life)
	if end.After(a.cert.NotAfter) {
		end = a.cert.NotAfter // none outlives who vouches for it
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: string(name.Role) + " " + name.ID},
		URIs:         []*url.URL{id.URL()},
		NotBefore:    now.Add(-backdated),
		NotAfter:     end,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if name.Role == RoleServer {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		template.DNSNames = []string{serverName}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", name, err)
	}
	return der, nil
}

// serial makes a certificate's number: 120 random bits, so that none comes twice
// and none needs to be remembered.
func serial() *big.Int {
	raw := make([]byte, 15)
	_, _ = rand.Read(raw) // never fails (crypto/rand)
	return new(big.Int).SetBytes(raw)
}
