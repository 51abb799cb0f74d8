package pki

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// noteKind names our kind of signature in the hash of a key: the format of signed
// notes (c2sp.org/signed-note) leaves 0xff with a name of one's own for kinds that
// are not listed there.
const noteKind = "\xfffettle ECDSA P-256 SHA-256 ASN.1"

// noteKey is what a note says of who signed it.
type noteKey struct {
	name string
	hash uint32
}

// Name and KeyHash implement note.Signer and note.Verifier.
func (k noteKey) Name() string    { return k.name }
func (k noteKey) KeyHash() uint32 { return k.hash }

func noteKeyOf(cert *x509.Certificate, name Name) noteKey {
	h := sha256.New()
	_, _ = h.Write([]byte(name.String() + "\n" + noteKind)) // never fails (hash.Hash)
	_, _ = h.Write(cert.RawSubjectPublicKeyInfo)
	return noteKey{name.String(), binary.BigEndian.Uint32(h.Sum(nil))}
}

type noteSigner struct {
	noteKey
	key *ecdsa.PrivateKey
}

// Sign implements note.Signer.
func (s *noteSigner) Sign(msg []byte) ([]byte, error) {
	sum := sha256.Sum256(msg)
	return ecdsa.SignASN1(rand.Reader, s.key, sum[:])
}

type noteVerifier struct {
	noteKey
	key *ecdsa.PublicKey
}

// Verify implements note.Verifier.
func (v *noteVerifier) Verify(msg, sig []byte) bool {
	sum := sha256.Sum256(msg)
	return ecdsa.VerifyASN1(v.key, sum[:], sig)
}

// NoteSigner signs notes with the identity's key, and Certificate says whose that is.
func (id *Identity) NoteSigner() note.Signer {
	return &noteSigner{noteKeyOf(id.cert, id.Name), id.key}
}

// Certificate returns the identity's certificate, DER.
func (id *Identity) Certificate() []byte { return id.cert.Raw }

// ServerNotes returns what verifies the notes that a server of this identity's
// fleet signed with the key of this certificate (DER). The error wraps ErrStranger
// or ErrExpired where it is no server's, of another fleet, or not valid now.
func (id *Identity) ServerNotes(certificate []byte, now time.Time) (note.Verifier, error) {
	cert, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStranger, err)
	}
	if err := inTime(cert, now); err != nil {
		return nil, err
	}
	if _, err := cert.Verify(x509.VerifyOptions{
		Roots: id.roots, DNSName: serverName, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStranger, err)
	}
	if err := isServer(cert, id.Name.Fleet); err != nil {
		return nil, err
	}
	name, err := nameOf(cert)
	if err != nil {
		return nil, err
	}
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: %w", ErrStranger, errors.New("its key is not ECDSA"))
	}
	return &noteVerifier{noteKeyOf(cert, name), key}, nil
}

// AdminNotes returns what verifies the notes that an administrator of this identity's
// fleet signed with the key of this certificate at a time. The error wraps ErrStranger
// or ErrExpired where it is no administrator's, of another fleet, or was not valid
// then.
func (id *Identity) AdminNotes(cert *x509.Certificate, at time.Time) (note.Verifier, error) {
	name, err := id.Bearer(cert, at)
	if err != nil {
		return nil, err
	}
	if name.Role != RoleAdmin {
		return nil, fmt.Errorf("%w: an administrator must sign, and %s is none", ErrStranger, name)
	}
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: %w", ErrStranger, errors.New("its key is not ECDSA"))
	}
	return &noteVerifier{noteKeyOf(cert, name), key}, nil
}
