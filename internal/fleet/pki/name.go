package pki

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"fettle/internal/fettle"
)

// Role is what the bearer of a certificate may be.
type Role string

// The roles. Each of the people's includes those before it: a viewer reads, an
// operator freezes, an approver answers incidents, an admin lets machines in.
const (
	RoleServer   Role = "server"
	RoleAgent    Role = "agent"
	RoleViewer   Role = "viewer"
	RoleOperator Role = "operator"
	RoleApprover Role = "approver"
	RoleAdmin    Role = "admin"
)

var people = []Role{RoleViewer, RoleOperator, RoleApprover, RoleAdmin}

// Includes reports whether r may do what needs the role need. Servers and agents
// are only themselves.
func (r Role) Includes(need Role) bool {
	if r == need {
		return r != ""
	}
	n := slices.Index(people, need)
	return n >= 0 && slices.Index(people, r) > n
}

func (r Role) known() bool {
	return r == RoleServer || r == RoleAgent || slices.Contains(people, r)
}

// Name is who a certificate speaks for.
type Name struct {
	Fleet string
	Role  Role
	ID    string // of an agent: the identity of its host
}

// Host returns the subject of an agent's host.
func (n Name) Host() fettle.Subject { return fettle.HostSubject(n.ID) }

// String returns the name as the URI that certificates carry.
func (n Name) String() string { return "spiffe://" + n.Fleet + "/" + string(n.Role) + "/" + n.ID }

func (n Name) id() (spiffeid.ID, error) {
	if !n.Role.known() {
		return spiffeid.ID{}, fmt.Errorf("role %q is not one of server, agent, viewer, operator, approver, admin", n.Role)
	}
	if n.ID == "" || strings.Contains(n.ID, "/") {
		return spiffeid.ID{}, fmt.Errorf("identity %q is not one path segment", n.ID)
	}
	return spiffeid.FromString(n.String())
}

// ParseName reads what String writes. The role must be known.
func ParseName(text string) (Name, error) {
	id, err := spiffeid.FromString(text)
	if err != nil {
		return Name{}, fmt.Errorf("name %q: %w", text, err)
	}
	role, rest, ok := strings.Cut(strings.TrimPrefix(id.Path(), "/"), "/")
	n := Name{Fleet: id.TrustDomain().Name(), Role: Role(role), ID: rest}
	if _, err := n.id(); !ok || err != nil {
		return Name{}, fmt.Errorf("name %q: want spiffe://fleet/role/id: %w", text, errors.Join(err, errNotOurs))
	}
	return n, nil
}

var errNotOurs = errors.New("it was not made by this program, or by a newer one")

// nameOf reads the one URI name of a certificate.
func nameOf(cert *x509.Certificate) (Name, error) {
	if len(cert.URIs) != 1 {
		return Name{}, fmt.Errorf("certificate %x has %d URI names, not one: %w", cert.SerialNumber, len(cert.URIs), errNotOurs)
	}
	return ParseName(cert.URIs[0].String())
}

// MintID makes an identity: 100 random bits in 20 characters a-z and 2-7, which
// fit into host names, file names and SPIFFE names alike.
func MintID() string {
	return mint(20)
}

// mint makes n characters of 5 random bits each.
func mint(n int) string {
	raw := make([]byte, (n*5+7)/8)
	_, _ = rand.Read(raw) // never fails (crypto/rand)
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw))[:n]
}
