package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

const (
	caFile = "ca.pem"
	// caLife is long: the authority cannot be changed without joining every
	// machine again.
	caLife = 20 * 365 * 24 * time.Hour
	// backdated lets a certificate be used on a machine whose clock is behind.
	backdated = time.Hour
)

// CA is the authority of one fleet. Its methods may be called concurrently.
type CA struct {
	fleet string
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
}

// Init mints a fleet and its authority into the folder, which is made if it is
// not there. An authority that is there already is an error that wraps
// fs.ErrExist: a second one would strand every machine that has joined.
func Init(dir string, now time.Time) (*CA, error) {
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("make the fleet's authority: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the fleet's authority: %w", err)
	}
	fleet := MintID()
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
		return nil, fmt.Errorf("make the fleet's authority: %w", err)
	}
	data, err := encode(key, der)
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

// Open reads the authority in a folder. Where there is none the error wraps
// fs.ErrNotExist.
func Open(dir string) (*CA, error) {
	path := filepath.Join(dir, caFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("open the fleet's authority: %w", err)
	}
	key, certs, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("open the fleet's authority %s: %w (restore it from a backup)", path, err)
	}
	cert := certs[0]
	if !cert.IsCA || len(cert.URIs) != 1 || cert.URIs[0].Host == "" {
		return nil, fmt.Errorf("open the fleet's authority %s: it holds the certificate of no authority (restore it from a backup)", path)
	}
	return &CA{fleet: cert.URIs[0].Host, cert: cert, key: key}, nil
}

// Export returns the authority, its private key included, for another server of
// the fleet: it leaves this process over mutual TLS to one who brought a token for
// servers, and by no other way.
func (ca *CA) Export() ([]byte, error) {
	data, err := encode(ca.key, ca.cert.Raw)
	if err != nil {
		return nil, fmt.Errorf("hand the fleet's authority on: %w", err)
	}
	return data, nil
}

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

// Pin returns the hash of the authority's public key (SHA-256 of its
// SubjectPublicKeyInfo, in hexadecimal, as RFC 7469 pins).
func (ca *CA) Pin() string { return pinOf(ca.cert) }

func pinOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// Sign makes a certificate for a name from a certificate request (PKCS #10, DER)
// that proves possession of its key. What else the request asks for is not read.
func (ca *CA) Sign(csr []byte, name Name, now time.Time, life time.Duration) ([]byte, error) {
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
	return ca.sign(key, name, now, life)
}

func (ca *CA) sign(key *ecdsa.PublicKey, name Name, now time.Time, life time.Duration) ([]byte, error) {
	if name.Fleet != ca.fleet {
		return nil, fmt.Errorf("sign the certificate of %s: this authority is fleet %s's", name, ca.fleet)
	}
	id, err := name.id()
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", name, err)
	}
	end := now.Add(life)
	if end.After(ca.cert.NotAfter) {
		end = ca.cert.NotAfter // none outlives who vouches for it
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
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key, ca.key)
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

// encode writes a private key and certificates as PEM.
func encode(key *ecdsa.PrivateKey, certs ...[]byte) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c})...)
	}
	return out, nil
}

// decode reads what encode writes: one key and at least one certificate, the
// first of which is the key's.
func decode(data []byte) (*ecdsa.PrivateKey, []*x509.Certificate, error) {
	var key *ecdsa.PrivateKey
	var certs []*x509.Certificate
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		switch block.Type {
		case "PRIVATE KEY":
			any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, nil, fmt.Errorf("private key: %w", err)
			}
			ec, ok := any.(*ecdsa.PrivateKey)
			if !ok || key != nil {
				return nil, nil, errors.New("want one private key, of ECDSA")
			}
			key = ec
		case "CERTIFICATE":
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, nil, fmt.Errorf("certificate: %w", err)
			}
			certs = append(certs, c)
		}
	}
	if key == nil || len(certs) == 0 {
		return nil, nil, errors.New("want a private key and its certificate, in PEM")
	}
	if !key.PublicKey.Equal(certs[0].PublicKey) {
		return nil, nil, errors.New("the certificate is not that of the private key")
	}
	return key, certs, nil
}

// PEM writes a certificate (DER) as PEM.
func PEM(certificate []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
}
