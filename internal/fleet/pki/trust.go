package pki

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Trust is by what a fleet's signatures are believed: its authority's certificate, while
// that is being changed those of the old and the new, and no key. It is not changed once
// it is made.
type Trust struct {
	Fleet       string
	roots       *x509.CertPool
	authorities []*x509.Certificate
	serial      int64  // of the word that says so; 0: there was none
	use         string // pin of the one that issues; "": of the only one
}

func newTrust(fleet string, serial int64, use string, authorities []*x509.Certificate) *Trust {
	t := &Trust{Fleet: fleet, roots: x509.NewCertPool(), authorities: authorities, serial: serial, use: use}
	for _, c := range authorities {
		t.roots.AddCert(c)
	}
	return t
}

// Trust is by what the bearer of this identity believes others of its fleet.
func (id *Identity) Trust() *Trust { return id.trust }

// NewTrust believes these authorities (certificates, DER) of a fleet, as the word of a
// serial says; 0: no word does.
func NewTrust(fleet string, serial int64, authorities ...[]byte) (*Trust, error) {
	if fleet == "" || len(authorities) == 0 {
		return nil, errors.New("whom to believe: no fleet or no authority is named")
	}
	var certs []*x509.Certificate
	for _, der := range authorities {
		cert, err := authorityOf(der, fleet)
		if err != nil {
			return nil, fmt.Errorf("whom to believe: %w", err)
		}
		certs = append(certs, cert)
	}
	return newTrust(fleet, serial, "", certs), nil
}

// authorityOf reads the certificate of an authority of a fleet.
func authorityOf(der []byte, fleet string) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if _, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || !cert.IsCA || len(cert.URIs) != 1 || cert.URIs[0].Host != fleet {
		return nil, fmt.Errorf("certificate %x is not that of an authority of fleet %s", cert.SerialNumber, fleet)
	}
	return cert, nil
}

// Serial is that of the word that says whom to believe; 0: there was none.
func (t *Trust) Serial() int64 { return t.serial }

// Authorities are the certificates (DER) of those that are believed.
func (t *Trust) Authorities() [][]byte {
	list := make([][]byte, 0, len(t.authorities))
	for _, c := range t.authorities {
		list = append(list, c.Raw)
	}
	return list
}

// Pins are those of the authorities that are believed.
func (t *Trust) Pins() []string {
	list := make([]string, 0, len(t.authorities))
	for _, c := range t.authorities {
		list = append(list, pinOf(c))
	}
	return list
}

// IssuerOf is the pin of the authority that issued a certificate; "": none that is
// believed.
func (t *Trust) IssuerOf(cert *x509.Certificate) string {
	if c := t.issuerOf(cert); c != nil {
		return pinOf(c)
	}
	return ""
}

func (t *Trust) issuerOf(cert *x509.Certificate) *x509.Certificate {
	for _, c := range t.authorities {
		if cert.CheckSignatureFrom(c) == nil {
			return c
		}
	}
	return nil
}

// ServerNotes returns what verifies the notes that a server of the fleet signed with
// the key of this certificate (DER). The error wraps ErrStranger or ErrExpired where
// it is no server's, of another fleet, or not valid now.
func (t *Trust) ServerNotes(certificate []byte, now time.Time) (note.Verifier, error) {
	cert, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStranger, err)
	}
	if err := t.server(cert, now); err != nil {
		return nil, err
	}
	name, err := nameOf(cert)
	if err != nil {
		return nil, err
	}
	return verifierOf(cert, name)
}

// server verifies that a certificate is that of a server of the fleet, at this time.
func (t *Trust) server(cert *x509.Certificate, now time.Time) error {
	if err := inTime(cert, now); err != nil {
		return err
	}
	if _, err := cert.Verify(x509.VerifyOptions{
		Roots: t.roots, DNSName: serverName, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}); err != nil {
		return fmt.Errorf("%w: %w", ErrStranger, err)
	}
	return isServer(cert, t.Fleet)
}

// PersonNotes returns what verifies the notes that a person of the fleet with at least
// this role signed with the key of this certificate (DER) at a time, and who that is.
// The error wraps ErrStranger or ErrExpired where it is nobody's of that role, of
// another fleet, or was not valid then.
func (t *Trust) PersonNotes(certificate []byte, need Role, at time.Time) (note.Verifier, Name, error) {
	cert, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, Name{}, fmt.Errorf("%w: %w", ErrStranger, err)
	}
	name, err := t.bearer(cert, at)
	if err != nil {
		return nil, Name{}, err
	}
	if !name.Role.Includes(need) {
		return nil, Name{}, fmt.Errorf("%w: the role %s must sign, and %s has it not", ErrStranger, need, name)
	}
	v, err := verifierOf(cert, name)
	return v, name, err
}

func verifierOf(cert *x509.Certificate, name Name) (note.Verifier, error) {
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: its key is not ECDSA", ErrStranger)
	}
	return &noteVerifier{noteKeyOf(cert, name), key}, nil
}

// bearer is whose a certificate is, at this time.
func (t *Trust) bearer(cert *x509.Certificate, now time.Time) (Name, error) {
	name, err := t.chain(cert)
	if err != nil {
		return Name{}, err
	}
	if err := inTime(cert, now); err != nil {
		return Name{}, fmt.Errorf("%s: %w", name, err)
	}
	return name, nil
}

// chain verifies that a certificate is this fleet's and returns its name,
// whatever the time.
func (t *Trust) chain(cert *x509.Certificate) (Name, error) {
	if _, err := cert.Verify(x509.VerifyOptions{
		Roots:       t.roots,
		CurrentTime: cert.NotAfter,
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return Name{}, fmt.Errorf("%w: %w", ErrStranger, err)
	}
	name, err := nameOf(cert)
	if err != nil {
		return Name{}, fmt.Errorf("%w: %w", ErrStranger, err)
	}
	if name.Fleet != t.Fleet {
		return Name{}, fmt.Errorf("%w: it is of fleet %s, this one is %s", ErrStranger, name.Fleet, t.Fleet)
	}
	return name, nil
}
