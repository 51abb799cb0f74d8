package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

// filled opens a store in etcd with some of everything, and returns its backup. Of one
// that is sealed, most entries of the log and an incident are in files.
func filled(t *testing.T, sealed bool) (backup []byte, kept loop.State) {
	t.Helper()
	e, err := OpenEtcd(t.Context(), EtcdOptions{Dir: filepath.Join(t.TempDir(), "store"), Fleet: "f", Limits: Limits{SegmentEntries: 100, KeepEntries: 30}})
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
			ended := incident.Record{Incident: fettle.Incident{ID: "i0", State: fettle.Resolved, Why: "it is over"}}
			txn.Records, txn.Freeze = []incident.Record{r, ended}, &guard.Freeze{By: "ann"}
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
	if sealed {
		k := NewKeeper(e, KeeperOptions{Wall: func() time.Time { return time.Unix(400, 0) }, Forgettable: func(context.Context, int, time.Time) ([]string, error) { return []string{"i0"}, nil }})
		for range 4 {
			if err := k.Round(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if u, _ := e.Usage(); u.Segments != 3 || u.InFiles != 200 || u.Incidents != 1 {
			t.Fatalf("%+v", u)
		}
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
	t.Run("all in etcd", func(t *testing.T) { restored(t, false) })
	t.Run("most in files", func(t *testing.T) { restored(t, true) })
}

func restored(t *testing.T, sealed bool) {
	backup, kept := filled(t, sealed)
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
	if err != nil || s.Token.Epoch != 7 || !kept.Token.Less(s.Token) || s.Head != kept.Head || len(s.Records) != len(kept.Records) || s.Freeze == nil {
		t.Errorf("%+v, %v", s, err)
	}
	if n, err := e.Check(t.Context()); n != kept.Head.Entries || err != nil {
		t.Errorf("%d entries, %v", n, err)
	}
	n := int64(0)
	err = e.Log(t.Context(), 1, func(entry loop.Entry) error {
		if n++; entry.Seq != n {
			return fmt.Errorf("entry %d is the %dth", entry.Seq, n)
		}
		return nil
	})
	if err != nil || n != kept.Head.Entries {
		t.Errorf("the log has %d entries: %v", n, err)
	}
	if i, ok, err := e.EndedIncident(t.Context(), "i0"); err != nil || ok != sealed || ok && i.Why != "it is over" {
		t.Errorf("the incident in a file: %+v, %v, %v", i, ok, err)
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
	t.Run("all in etcd", func(t *testing.T) { damaged(t, false) })
	t.Run("most in files", func(t *testing.T) { damaged(t, true) })
}

func damaged(t *testing.T, sealed bool) {
	backup, _ := filled(t, sealed)
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
		"a bit": flipped, "a segment less": join(lines[:2], lines[3:]), "a segment twice": join(lines[:3], lines[2:]), "text": []byte("hello\n"),
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
	f.Add([]byte(`{"fettle_backup":2,"fleet":"f","epoch":1}` + "\n" + `{"segment":{"kind":"log","first":1,"last":1,"sha256":"","bytes":1},"p":"eA=="}` + "\n"))
	f.Add([]byte(`{"keys":0,"sha256":"00"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := ReadBackup(bytes.NewReader(data), nil); err == nil && m.Fleet == "" {
			t.Error("a backup of no fleet")
		}
	})
}
