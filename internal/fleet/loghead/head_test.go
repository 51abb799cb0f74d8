package loghead

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fettle/internal/fleet/pki"
)

var (
	hashA = strings.Repeat("a1", 32)
	hashB = strings.Repeat("b2", 32)
)

// signers are an agent and a server of one fleet.
func signers(t testing.TB) (ca *pki.CA, agent, server *pki.Identity) {
	t.Helper()
	ca, err := pki.Init(filepath.Join(t.TempDir(), "pki"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca, mint(t, ca, pki.RoleAgent), mint(t, ca, pki.RoleServer)
}

func mint(t testing.TB, ca *pki.CA, role pki.Role) *pki.Identity {
	t.Helper()
	id, err := ca.Mint(role, "x1", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestSignedAndOpened(t *testing.T) {
	_, agent, server := signers(t)
	v, err := agent.ServerNotes(server.Certificate(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []Statement{
		{Fleet: "f", Epoch: 1},
		{Fleet: "f", Epoch: 1, Entries: 12, Hash: hashA},
		{Fleet: "f", Epoch: 2, Entries: 12, Hash: hashA, Place: &Place{7, hashB}},
		{Fleet: "f", Epoch: 2, Entries: 12, Hash: hashA, Place: &Place{Seq: 13}},
		{Fleet: "f", Epoch: 2, Entries: 12, Hash: hashA, Place: &Place{}},
	} {
		msg, err := Sign(s, server.NoteSigner())
		if err != nil {
			t.Fatalf("%+v: %v", s, err)
		}
		got, err := Open(msg, v)
		if err != nil || got.text() != s.text() {
			t.Errorf("%+v came back as %+v, %v", s, got, err)
		}
	}
	for _, s := range []Statement{
		{Fleet: "", Epoch: 1}, {Fleet: "f g", Epoch: 1}, {Fleet: "f"}, {Fleet: "f", Epoch: 1, Entries: 1}, {Fleet: "f", Epoch: 1, Hash: hashA},
		{Fleet: "f", Epoch: 1, Entries: -1}, {Fleet: "f", Epoch: 1, Entries: 1, Hash: "abc"},
		{Fleet: "f", Epoch: 1, Entries: 1, Hash: hashA, Place: &Place{Seq: 1}}, {Fleet: "f", Epoch: 1, Entries: 1, Hash: hashA, Place: &Place{2, hashA}},
	} {
		if msg, err := Sign(s, server.NoteSigner()); err == nil {
			t.Errorf("signed: %s", msg)
		}
	}
}

// TestTamperedIsRefused: no byte of what was signed, and none of the signature, can
// be another.
func TestTamperedIsRefused(t *testing.T) {
	_, agent, server := signers(t)
	v, err := agent.ServerNotes(server.Certificate(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	msg, err := Sign(Statement{Fleet: "f", Epoch: 1, Entries: 12, Hash: hashA, Place: &Place{7, hashB}}, server.NoteSigner())
	if err != nil {
		t.Fatal(err)
	}
	// The last four characters are the end of the signature in base64: some of their
	// bits mean nothing.
	for i := range len(msg) - len("abc=\n") {
		bad := bytes.Clone(msg)
		bad[i] ^= 1
		if s, err := Open(bad, v); err == nil {
			t.Errorf("byte %d changed, and it was taken as %+v", i, s)
		}
	}
	if _, err := Open(msg, v); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

// TestOnlyServersOfTheFleetSign: the key must be that of a server's certificate, from
// the authority that the agent has pinned, and valid now.
func TestOnlyServersOfTheFleetSign(t *testing.T) {
	ca, agent, server := signers(t)
	_, _, other := signers(t)
	for name, c := range map[string]struct {
		cert []byte
		at   time.Time
		want error
	}{
		"another fleet's server": {other.Certificate(), time.Now(), pki.ErrStranger},
		"an agent of the fleet":  {agent.Certificate(), time.Now(), pki.ErrStranger},
		"an administrator":       {mint(t, ca, pki.RoleAdmin).Certificate(), time.Now(), pki.ErrStranger},
		"an expired one":         {server.Certificate(), time.Now().Add(2 * time.Hour), pki.ErrExpired},
		"no certificate":         {nil, time.Now(), pki.ErrStranger},
	} {
		if _, err := agent.ServerNotes(c.cert, c.at); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	// Another server's certificate does not make this one's signature good.
	second := mint(t, ca, pki.RoleServer)
	v, err := agent.ServerNotes(second.Certificate(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	msg, err := Sign(Statement{Fleet: "f", Epoch: 1}, server.NoteSigner())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(msg, v); err == nil {
		t.Error("signed by one server, taken as another's")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Statement{Fleet: "f", Epoch: 1}.text())
	f.Add(Statement{Fleet: "f", Epoch: 1, Entries: 12, Hash: hashA, Place: &Place{7, hashB}}.text() + "more of a newer version\n")
	f.Add(first + "\nfleet f\nepoch 01\nentries -1\nhash none\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parse(text)
		if err != nil {
			return
		}
		if !strings.HasPrefix(text, s.text()) {
			t.Errorf("%q was read as %q", text, s.text())
		}
	})
}

// BenchmarkShown is what a head costs a step: signed by the server, verified by the
// agent.
func BenchmarkShown(b *testing.B) {
	_, agent, server := signers(b)
	v, err := agent.ServerNotes(server.Certificate(), time.Now())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		msg, err := Sign(Statement{Fleet: "f", Epoch: 1, Entries: 12, Hash: hashA}, server.NoteSigner())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Open(msg, v); err != nil {
			b.Fatal(err)
		}
	}
}
