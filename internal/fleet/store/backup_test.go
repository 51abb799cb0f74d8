package store

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fettle/internal/judge/guard"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

// filled opens a store in etcd with some of everything, and returns its backup.
func filled(t *testing.T) (backup []byte, kept loop.State) {
	t.Helper()
	e, err := OpenEtcd(t.Context(), EtcdOptions{Dir: filepath.Join(t.TempDir(), "store"), Fleet: "f"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	s, err := e.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 { // more than a page
		txn := loop.Txn{Token: s.Token, Log: []loop.Entry{{At: time.Unix(int64(i), 0), Kind: "test", Text: strings.Repeat("x", i)}}}
		if i == 7 {
			var r incident.Record
			r.ID = "i1"
			txn.Records, txn.Freeze = []incident.Record{r}, &guard.Freeze{By: "ann"}
		}
		if err := e.Commit(t.Context(), txn); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Shelf().Create(t.Context(), "hosts", "h1", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if err := e.Shelf().Create(t.Context(), "servers", "s1", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := e.Backup(t.Context(), &b, time.Unix(9, 0)); err != nil {
		t.Fatal(err)
	}
	if kept, err = e.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), kept
}

// TestBackupIsRestored: what was kept is there again, under another epoch, with a log
// whose chain is whole; who was a server is none.
func TestBackupIsRestored(t *testing.T) {
	backup, kept := filled(t)
	dir := filepath.Join(t.TempDir(), "restored")
	m, err := Restore(t.Context(), dir, bytes.NewReader(backup), 7, []byte("signed"))
	if err != nil || m.Fleet != "f" || m.Epoch != 1 || m.Head != kept.Head {
		t.Fatalf("%+v, %v", m, err)
	}
	e, err := OpenEtcd(t.Context(), EtcdOptions{Dir: dir, Fleet: "f"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	s, err := e.Load(t.Context())
	if err != nil || s.Token.Epoch != 7 || s.Head != kept.Head || len(s.Records) != 1 || s.Freeze == nil {
		t.Errorf("%+v, %v", s, err)
	}
	if n, err := e.Check(t.Context()); n != kept.Head.Entries || err != nil {
		t.Errorf("%d entries, %v", n, err)
	}
	if c, err := e.Charter(t.Context()); string(c) != "signed" || err != nil {
		t.Errorf("the charter: %q, %v", c, err)
	}
	if _, err := e.Shelf().Read(t.Context(), "hosts", "h1"); err != nil {
		t.Errorf("a host: %v", err)
	}
	if _, err := e.Shelf().Read(t.Context(), "servers", "s1"); err == nil {
		t.Error("who was a server still is")
	}
	if _, err := Restore(t.Context(), dir, bytes.NewReader(backup), 8, nil); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("over a store that is there: %v", err)
	}
}

// TestDamagedBackups: whatever is done to a backup, it is refused.
func TestDamagedBackups(t *testing.T) {
	backup, _ := filled(t)
	lines := bytes.SplitAfter(backup, []byte("\n"))
	join := func(parts ...[][]byte) []byte {
		var out []byte
		for _, p := range parts {
			out = append(out, bytes.Join(p, nil)...)
		}
		return out
	}
	flipped := bytes.Clone(backup)
	flipped[len(flipped)/2] ^= 1
	for name, bad := range map[string][]byte{
		"empty": nil, "cut": backup[:len(backup)/2], "no seal": join(lines[:len(lines)-2]), "no manifest": join(lines[1:]),
		"a line less": join(lines[:50], lines[51:]), "a line twice": join(lines[:50], lines[49:]), "more": append(bytes.Clone(backup), "{}\n"...),
		"a bit": flipped, "text": []byte("hello\n"),
	} {
		if _, err := ReadBackup(bytes.NewReader(bad), nil); !errors.Is(err, errBackup) || !strings.Contains(err.Error(), "(take") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ReadBackup(bytes.NewReader(backup), nil); err != nil {
		t.Error(err)
	}
}

func FuzzReadBackup(f *testing.F) {
	f.Add([]byte(`{"fettle_backup":1,"fleet":"f","epoch":1}` + "\n" + `{"k":"L2ZldHRsZS94","v":""}` + "\n" + `{"keys":1,"sha256":""}` + "\n"))
	f.Add([]byte(`{"keys":0,"sha256":"00"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := ReadBackup(bytes.NewReader(data), nil); err == nil && m.Fleet == "" {
			t.Error("a backup of no fleet")
		}
	})
}
