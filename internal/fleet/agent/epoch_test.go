package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/charter"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/store"
)

// restored makes a site whose agent has done a step after the backup was taken, and
// whose store is then lost and restored under a new epoch, which the one signs for
// whom sign returns an identity.
func restored(t *testing.T, sign func(*pki.CA) *pki.Identity) *site {
	t.Helper()
	s := newSite(t, openEtcd)
	s.up()
	s.decide(3, "before the backup")
	var backup bytes.Buffer
	if err := s.store.Store.(*store.Etcd).Backup(t.Context(), &backup, time.Now()); err != nil {
		t.Fatal(err)
	}
	_, stop := start(t, s.agent)
	if out := s.step("k1"); out.Fate != fettle.Done || s.lit() != 1 {
		t.Fatalf("before: %+v", out)
	}
	stop()
	s.down()
	if err := os.Rename(s.storeDir(), filepath.Join(s.dir, "lost")); err != nil {
		t.Fatal(err)
	}
	m, err := store.ReadBackup(bytes.NewReader(backup.Bytes()), nil)
	if err != nil {
		t.Fatal(err)
	}
	var data []byte
	if by := sign(s.ca); by != nil {
		signed, err := charter.Sign(charter.Charter{Fleet: m.Fleet, Epoch: 2, Entries: m.Head.Entries, Hash: m.Head.Hash, At: time.Now(), Why: "restored"}, by)
		if err != nil {
			t.Fatal(err)
		}
		if data, err = json.Marshal(signed); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.Restore(t.Context(), s.storeDir(), &backup, 2, data); err != nil {
		t.Fatal(err)
	}
	s.up()
	ctx, cancel := context.WithCancel(t.Context())
	a, err := New(s.agent)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return s
}

// TestNewEpochIsObeyed: a store that was restored from a backup, with a log that is
// shorter than the one that the agent has seen, is obeyed when an administrator has
// signed its epoch.
func TestNewEpochIsObeyed(t *testing.T) {
	s := restored(t, func(ca *pki.CA) *pki.Identity { return person(t, ca, pki.RoleAdmin) })
	if out := s.step("k2"); out.Fate != fettle.Done || out.Class != "" || s.lit() != 2 {
		t.Errorf("under the new epoch: %+v, lit %d times", out, s.lit())
	}
	if why := s.refuses(); why != "" {
		t.Errorf("people are told: %s", why)
	}
}

// TestForgedEpochIsNotObeyed: without an administrator's signature, or with that of an
// administrator of another fleet, it is not.
func TestForgedEpochIsNotObeyed(t *testing.T) {
	s := restored(t, func(*pki.CA) *pki.Identity { return nil })
	if out := s.step("k2"); out.Fate != fettle.NeverWillBe || out.Class != fettle.Refused || !strings.Contains(out.Error, "no administrator") || s.lit() != 1 {
		t.Errorf("an epoch that nobody signed: %+v, lit %d times", out, s.lit())
	}
}

func person(t *testing.T, ca *pki.CA, role pki.Role) *pki.Identity {
	t.Helper()
	id, err := ca.Mint(role, "ann", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
