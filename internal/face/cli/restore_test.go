package cli

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"fettle/internal/face/control"
	"fettle/internal/fleet/charter"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/store"
)

// TestRestoreFromBeforeAChangeOfAuthority: a backup from before the authority was changed
// begins an epoch that agents obey where the folder holds the new one, and one that they
// do not obey where there is nothing but the backup's own.
func TestRestoreFromBeforeAChangeOfAuthority(t *testing.T) {
	now := time.Now()
	was := t.TempDir()
	if err := os.Chmod(was, 0o700); err != nil {
		t.Fatal(err)
	}
	ca, err := pki.Init(control.AuthorityDir(was), now)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "fleet.tar")
	backedUp(t, ca, file, now)
	old := ca.Pin()
	der, err := ca.Prepare(now)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := pki.PinOf(der)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range []pki.Word{
		{Trust: []string{old, fresh}, Use: old, Goal: fresh}, {Trust: []string{old, fresh}, Use: fresh, Goal: fresh}, {Trust: []string{fresh}, Use: fresh, Goal: fresh},
	} {
		w.Serial, w.At = int64(i+1), now
		said, err := ca.Say(w)
		if err == nil {
			err = ca.Believe([]pki.SignedWord{said})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ca.Destroy(""); err != nil {
		t.Fatal(err)
	}
	agents := ca.Trust() // whom they believe by now
	for name, dir := range map[string]string{"with the new authority": was, "with the backup's": filepath.Join(t.TempDir(), "new")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		in, err := restore(t.Context(), file, dir, nil, "", now)
		if err != nil || in.Epoch != 2 {
			t.Fatalf("%s: epoch %d, %v", name, in.Epoch, err)
		}
		st, err := store.OpenEtcd(t.Context(), store.EtcdOptions{Dir: control.StoreDir(dir), Fleet: ca.Fleet()})
		if err != nil {
			t.Fatal(err)
		}
		word, err := st.Charter(t.Context())
		if cerr := st.Close(); err != nil || cerr != nil {
			t.Fatal(err, cerr)
		}
		var signed charter.Signed
		if err := json.Unmarshal(word, &signed); err != nil {
			t.Fatal(err)
		}
		_, err = charter.Open(signed, agents)
		switch {
		case dir == was && err != nil:
			t.Errorf("%s agents do not obey: %v", name, err)
		case dir != was && !errors.Is(err, pki.ErrStranger):
			t.Errorf("%s agents obey: %v", name, err)
		}
	}
}

// backedUp writes a backup of an empty store.
func backedUp(t *testing.T, ca *pki.CA, path string, now time.Time) {
	t.Helper()
	st, err := store.OpenEtcd(t.Context(), store.EtcdOptions{Dir: t.TempDir() + "/store", Fleet: ca.Fleet()})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.Create(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	to, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ca.Export()
	if err != nil {
		t.Fatal(err)
	}
	files, err := ca.Files()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(st.Backup(t.Context(), data, now), st.Close(), packed(to, data, key, files), data.Close(), to.Close()); err != nil {
		t.Fatal(err)
	}
}
