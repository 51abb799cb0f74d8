package charter

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fettle/internal/fleet/pki"
)

var now = time.Date(2026, 11, 22, 20, 15, 0, 0, time.UTC)

func fleet(t testing.TB) *pki.CA {
	t.Helper()
	ca, err := pki.Init(filepath.Join(t.TempDir(), "ca"), now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func mint(t testing.TB, ca *pki.CA, role pki.Role) *pki.Identity {
	t.Helper()
	id, err := ca.Mint(role, "ann", now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func of(ca *pki.CA) Charter {
	return Charter{Fleet: ca.Fleet(), Epoch: 2, Entries: 3, Hash: strings.Repeat("a1", 32), At: now, Why: "restored from yesterday's backup"}
}

// TestSignedAndOpened: what an administrator signed comes back as it was, also long
// after the certificate has ended.
func TestSignedAndOpened(t *testing.T) {
	ca := fleet(t)
	agent := mint(t, ca, pki.RoleAgent)
	for _, c := range []Charter{of(ca), {Fleet: ca.Fleet(), Epoch: 9, At: now, Why: "moved"}} {
		signed, err := Sign(c, mint(t, ca, pki.RoleAdmin))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Open(signed, agent.Trust()); err != nil || got != c {
			t.Errorf("%+v came back as %+v, %v", c, got, err)
		}
	}
}

// TestForged: nobody but an administrator of this fleet, with a certificate that was
// valid then, lets an epoch begin.
func TestForged(t *testing.T) {
	ca, other := fleet(t), fleet(t)
	agent := mint(t, ca, pki.RoleAgent)
	for _, role := range []pki.Role{pki.RoleServer, pki.RoleAgent, pki.RoleViewer, pki.RoleOperator, pki.RoleApprover} {
		if _, err := Sign(of(ca), mint(t, ca, role)); err == nil {
			t.Errorf("a %s signed", role)
		}
	}
	good, err := Sign(of(ca), mint(t, ca, pki.RoleAdmin))
	if err != nil {
		t.Fatal(err)
	}
	late := of(ca)
	late.At = now.Add(2 * time.Hour)
	ended, err := Sign(late, mint(t, ca, pki.RoleAdmin))
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := Sign(of(other), mint(t, other, pki.RoleAdmin))
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]Signed{
		"with the certificate of a server":      {good.Note, mint(t, ca, pki.RoleServer).Certificate()},
		"with another administrator's":          {good.Note, mint(t, ca, pki.RoleAdmin).Certificate()},
		"with a certificate that had ended":     ended,
		"of another fleet":                      foreign,
		"another fleet's, with our certificate": {foreign.Note, good.Certificate},
		"changed":                               {bytes.Replace(good.Note, []byte("epoch 2"), []byte("epoch 3"), 1), good.Certificate},
		"without a signature":                   {[]byte(of(ca).text()), good.Certificate},
		"without anything":                      {},
	} {
		if c, err := Open(s, agent.Trust()); err == nil {
			t.Errorf("%s: %+v was taken", name, c)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Charter{Fleet: "f", Epoch: 2, At: now, Why: "why"}.text())
	f.Add(Charter{Fleet: "f", Epoch: 2, Entries: 1, Hash: strings.Repeat("0a", 32), At: now, Why: "a b"}.text() + "more\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parse(text)
		if err != nil {
			return
		}
		if again, err := parse(c.text()); err != nil || again != c {
			t.Errorf("%+v came back as %+v, %v", c, again, err)
		}
	})
}
