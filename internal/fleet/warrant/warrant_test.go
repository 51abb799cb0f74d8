package warrant_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/warrant"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func authority(t testing.TB) *pki.CA {
	t.Helper()
	ca, err := pki.Init(filepath.Join(t.TempDir(), "pki"), noon)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func mint(t testing.TB, ca *pki.CA, role pki.Role) *pki.Identity {
	t.Helper()
	id, err := ca.Mint(role, "one", noon, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func anOrder(ca *pki.CA) warrant.Order {
	return warrant.Order{Fleet: ca.Fleet(), Say: warrant.Do, Nonce: "abc.1", Within: 12 * time.Second, Body: warrant.HashOf([]byte("{}"))}
}

func anApproval(ca *pki.CA) warrant.Approval {
	return warrant.Approval{Fleet: ca.Fleet(), Incident: "tap5fdsz", Plan: warrant.HashOf([]byte("plan")), At: noon, Until: noon.Add(time.Hour), Finish: noon.Add(2 * time.Hour)}
}

func TestOrder(t *testing.T) {
	ca := authority(t)
	server := mint(t, ca, pki.RoleServer)
	want := anOrder(ca)
	s, err := warrant.SignOrder(want, server)
	if err != nil {
		t.Fatal(err)
	}
	v, err := server.Trust().ServerNotes(s.Certificate, noon)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := warrant.OpenOrder(s.Note, v); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for _, change := range [][2]string{{"say do", "say recover"}, {"within 12", "within 92"}, {"nonce abc", "nonce abd"}, {"fleet ", "fleet x"}} {
		if _, err := warrant.OpenOrder(bytes.Replace(s.Note, []byte(change[0]), []byte(change[1]), 1), v); err == nil {
			t.Errorf("%q for %q was taken", change[1], change[0])
		}
	}
	for name, change := range map[string]func(*warrant.Order){
		"no nonce": func(o *warrant.Order) { o.Nonce = "" }, "no time": func(o *warrant.Order) { o.Within = 0 },
		"a line more": func(o *warrant.Order) { o.Nonce = "a\nwithin 99" }, "no hash": func(o *warrant.Order) { o.Body = "x" },
		"another word": func(o *warrant.Order) { o.Say = "format" },
	} {
		o := want
		change(&o)
		if _, err := warrant.SignOrder(o, server); err == nil {
			t.Errorf("%s: it was signed", name)
		}
	}
}

func TestApproval(t *testing.T) {
	ca, other := authority(t), authority(t)
	ann := mint(t, ca, pki.RoleApprover)
	want := anApproval(ca)
	s, err := warrant.SignApproval(want, ann)
	if err != nil {
		t.Fatal(err)
	}
	if got, who, err := warrant.OpenApproval(s, ann.Trust()); err != nil || got != want || who != ann.Name {
		t.Errorf("%+v by %s, %v; want %+v", got, who, err, want)
	}
	if _, _, err := warrant.OpenApproval(s, mint(t, other, pki.RoleAgent).Trust()); !errors.Is(err, pki.ErrStranger) {
		t.Errorf("another fleet took it: %v", err)
	}
	for _, change := range [][2]string{{"tap5fdsz", "tap5fdsy"}, {"until 2026", "until 2027"}, {"plan ", "plan 0"}, {"at 2026-11-22T12:00", "at 2026-11-22T12:01"}} {
		bad := s
		bad.Note = bytes.Replace(s.Note, []byte(change[0]), []byte(change[1]), 1)
		if _, _, err := warrant.OpenApproval(bad, ann.Trust()); err == nil {
			t.Errorf("%q for %q was taken", change[1], change[0])
		}
	}
	for _, role := range []pki.Role{pki.RoleOperator, pki.RoleViewer, pki.RoleServer, pki.RoleAgent} {
		if _, err := warrant.SignApproval(want, mint(t, ca, role)); err == nil {
			t.Errorf("%s signed", role)
		}
		forged := s
		forged.Certificate = mint(t, ca, role).Certificate()
		if _, _, err := warrant.OpenApproval(forged, ann.Trust()); err == nil {
			t.Errorf("%s was taken for an approver", role)
		}
	}
	early := want
	early.At = noon.Add(-2 * time.Hour) // before the certificate begins
	if s, err = warrant.SignApproval(early, ann); err != nil {
		t.Fatal(err)
	}
	if _, _, err := warrant.OpenApproval(s, ann.Trust()); !errors.Is(err, pki.ErrExpired) {
		t.Errorf("given before the certificate: %v", err)
	}
}

func FuzzOrder(f *testing.F) {
	ca := authority(f)
	server := mint(f, ca, pki.RoleServer)
	s, err := warrant.SignOrder(anOrder(ca), server)
	if err != nil {
		f.Fatal(err)
	}
	v, err := server.Trust().ServerNotes(s.Certificate, noon)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Note)
	f.Add([]byte(strings.Repeat("\n", 9)))
	f.Fuzz(func(t *testing.T, msg []byte) {
		o, err := warrant.OpenOrder(msg, v)
		if err == nil && o != anOrder(ca) {
			t.Errorf("%+v was never signed", o)
		}
	})
}

func FuzzApproval(f *testing.F) {
	ca := authority(f)
	ann := mint(f, ca, pki.RoleAdmin)
	s, err := warrant.SignApproval(anApproval(ca), ann)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Note, s.Certificate)
	f.Add([]byte("fettle approval 1\n"), []byte{})
	f.Fuzz(func(t *testing.T, msg, cert []byte) {
		a, _, err := warrant.OpenApproval(warrant.Signed{Note: msg, Certificate: cert}, ann.Trust())
		if err == nil && a != anApproval(ca) {
			t.Errorf("%+v was never signed", a)
		}
	})
}
