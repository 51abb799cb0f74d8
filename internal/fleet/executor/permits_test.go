package executor

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/permit"
	"fettle/internal/fleet/pki"
)

// TestPermitIsKept: what a server gave is there after a restart; what is no server's is
// not taken, nor what was changed on the disk.
func TestPermitIsKept(t *testing.T) {
	dir := t.TempDir()
	ca, err := pki.Init(filepath.Join(t.TempDir(), "pki"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	mint := func(role pki.Role, id string) *pki.Identity {
		i, err := ca.Mint(role, id, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	me := mint(pki.RoleAgent, "h1")
	give := func(by *pki.Identity, wall time.Time) (permit.Signed, fettle.Permit) {
		p := permit.Make(fettle.Policy{}, ca.Fleet(), 1, me.Name.Host(), "h", wall)
		s, err := permit.Sign(p, by)
		if err != nil {
			t.Fatal(err)
		}
		return s, p
	}
	if _, err := recallPermit(dir, me.Trust(), me.Name.Host()).port(); err == nil {
		t.Error("there is one before a server gave one")
	}
	good, p := give(mint(pki.RoleServer, "s1"), time.Now())
	bad, _ := give(mint(pki.RoleAgent, "h2"), time.Now())
	k := recallPermit(dir, me.Trust(), me.Name.Host())
	if err := k.take(good, me.Trust(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := k.take(bad, me.Trust(), time.Now()); err == nil {
		t.Error("an agent's was taken")
	}
	before, _ := give(mint(pki.RoleServer, "s1"), time.Now().Add(-time.Hour))
	if err := k.take(before, me.Trust(), time.Now()); err == nil {
		t.Error("one of before it was taken")
	}
	for _, k := range []*permits{k, recallPermit(dir, me.Trust(), me.Name.Host())} {
		if got, err := k.port(); err != nil || got.Serial != p.Serial || got.Taken.IsZero() {
			t.Errorf("it keeps %+v, %v", got, err)
		}
	}
	if got, err := KeptPermit(dir, me.Trust(), me.Name.Host()); err != nil || got.Serial != p.Serial {
		t.Errorf("read as %+v, %v", got, err)
	}
	other, err := pki.Init(filepath.Join(t.TempDir(), "pki"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := other.Mint(pki.RoleAgent, "h1", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := recallPermit(dir, stranger.Trust(), me.Name.Host()).port(); err == nil {
		t.Error("another fleet's host believes it")
	}
	if err := os.WriteFile(filepath.Join(dir, permitName), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := recallPermit(dir, me.Trust(), me.Name.Host()).port(); err == nil {
		t.Errorf("what was changed on the disk is believed: %+v", got)
	}
}
