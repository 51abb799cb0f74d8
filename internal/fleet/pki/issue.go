package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"
)

// Issue returns the identity of a role that is kept in dir, after making it or
// renewing it where that is needed: a server's or a person's, by the holder of
// the authority. The id is used for one that is made. What the fleet believes of its
// authority goes into it.
func (ca *CA) Issue(dir string, role Role, id string, now time.Time, life time.Duration) (*Identity, error) {
	have, err := LoadIdentity(dir, role)
	trust, use := ca.believed()
	switch {
	case err == nil && have.Name.Fleet != ca.fleet:
		return nil, fmt.Errorf("identity in %s is of fleet %s, not %s (move it aside)", dir, have.Name.Fleet, ca.fleet)
	case err == nil && !have.Due(now) && have.Pin() == use.pin():
		if have.trust.serial != trust.serial {
			have.trust = trust
			if err := have.Save(dir); err != nil {
				return nil, err
			}
		}
		have.trust = trust
		return have, ca.besides(have, now, life)
	case err == nil:
		id = have.Name.ID
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	}
	made, err := ca.Mint(role, id, now, life)
	if err != nil {
		return nil, err
	}
	if err := made.Save(dir); err != nil {
		return nil, err
	}
	return made, ca.besides(made, now, life)
}

// besides gives a server its identities under the other authorities that are believed.
// They are kept nowhere.
func (ca *CA) besides(id *Identity, now time.Time, life time.Duration) error {
	if id.Name.Role != RoleServer {
		return nil
	}
	id.beside = nil
	for _, a := range ca.held(id.trust) {
		if a.pin() == id.Pin() {
			continue
		}
		other, err := ca.mintAs(a, id.trust, id.Name.Role, id.Name.ID, now, life)
		if err != nil {
			return err
		}
		id.beside = append(id.beside, other)
	}
	return nil
}

// Mint makes an identity that is kept nowhere.
func (ca *CA) Mint(role Role, id string, now time.Time, life time.Duration) (*Identity, error) {
	trust, use := ca.believed()
	return ca.mintAs(use, trust, role, id, now, life)
}

func (ca *CA) mintAs(by *authority, trust *Trust, role Role, id string, now time.Time, life time.Duration) (*Identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := by.sign(&key.PublicKey, Name{Fleet: ca.fleet, Role: role, ID: id}, now, life)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back the certificate of %s: %w", id, err)
	}
	return newIdentity(key, cert, trust)
}
