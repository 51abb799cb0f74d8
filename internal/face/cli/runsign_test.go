package cli

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/warrant"
	"fettle/internal/fleet/wire"
)

// A person signs what they were shown: for each host once, and for no other.
func TestPersonsWords(t *testing.T) {
	ca, err := pki.Init(filepath.Join(t.TempDir(), "pki"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ann, err := ca.Mint(pki.RoleOperator, "ann", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	w, err := newPersonsWords([]string{"uptime"}, time.Minute, ann)
	if err != nil {
		t.Fatal(err)
	}
	w.shown([]string{"web1", "web2", "more"}, []string{"host:a", "host:b"})
	m, err := w.sign(&wire.RunSign{Host: "host:a", Nonce: "n.1"})
	if err != nil {
		t.Fatal(err)
	}
	s := m.GetSignature().GetSigned()
	got, by, err := warrant.OpenRun(warrant.Signed{Note: s.GetNote(), Certificate: s.GetCertificate()}, ann.Trust(), time.Now())
	if err != nil || by != ann.Name || got.Host != "host:a" || got.Name != "web1" || got.Nonce != "n.1" || got.Body != warrant.HashOf(w.program) || got.Run != w.id || got.Within > time.Minute {
		t.Errorf("%+v, %v", got, err)
	}
	for _, r := range []*wire.RunSign{
		{Host: "host:a", Nonce: "n.2"}, // again
		{Host: "host:c", Nonce: "n.3"}, // not shown
		{Nonce: "n.4"},
	} {
		if _, err := w.sign(r); err == nil || !strings.Contains(err.Error(), "not among the hosts") {
			t.Errorf("%s: %v", r.GetHost(), err)
		}
	}
	if _, err := w.sign(&wire.RunSign{Host: "host:b", Nonce: "two words"}); err == nil {
		t.Error("what is no nonce was signed")
	}
	if _, err := newPersonsWords([]string{"a\x00b"}, 0, ann); err == nil {
		t.Error("what no program can be given was signed")
	}
}
