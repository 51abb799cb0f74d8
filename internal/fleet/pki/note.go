package pki

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
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

// ServerNotes is Trust.ServerNotes, as the bearer of this identity believes it.
func (id *Identity) ServerNotes(certificate []byte, now time.Time) (note.Verifier, error) {
	return id.Trust().ServerNotes(certificate, now)
}
