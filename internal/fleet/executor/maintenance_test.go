package executor

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/guard"
)

// What the server said of maintenance holds over a restart, with no server there; a
// copy that cannot be read is taken for a window that is open.
func TestMaintenanceIsKept(t *testing.T) {
	dir, host := t.TempDir(), fettle.HostSubject("h1")
	begin := time.Date(2026, 12, 1, 2, 0, 0, 0, time.UTC)
	data, err := json.Marshal(guard.Window{ID: "m-1", By: "ann", Why: "new disks", Hosts: []fettle.Subject{host}, From: begin, Until: begin.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	m := recallMaintenance(dir, host)
	if _, open := m.here(begin); open {
		t.Error("open, although nobody said so")
	}
	if err := m.told([][]byte{data}); err != nil {
		t.Fatal(err)
	}
	m = recallMaintenance(dir, host)
	if why, open := m.here(begin.Add(time.Minute)); !open || !strings.Contains(why, "new disks") {
		t.Errorf("after a restart: open %v, %q", open, why)
	}
	if _, open := m.here(begin.Add(time.Hour)); open {
		t.Error("still open when it is over")
	}
	if err := m.told([][]byte{[]byte("{")}); err == nil {
		t.Error("what cannot be read is no error")
	}
	if _, open := m.here(begin.Add(9 * time.Hour)); !open {
		t.Error("what the server said cannot be read, and it is taken for nothing")
	}
	if err := os.WriteFile(filepath.Join(dir, maintenanceName), []byte(`{"schema":1,"windows":[{"id":"x"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if why, open := recallMaintenance(dir, host).here(begin); !open || !strings.Contains(why, "no beginning") {
		t.Errorf("a broken copy: open %v, %q", open, why)
	}
}

func FuzzMaintenance(f *testing.F) {
	f.Add([]byte(`{"schema":1,"windows":[{"id":"m-1","all":true,"from":"2026-12-01T02:00:00Z","until":"2026-12-01T03:00:00Z","every_ns":86400000000000}]}`))
	f.Add([]byte(`{"schema":2}`))
	f.Fuzz(func(_ *testing.T, data []byte) {
		list, err := parseMaintenance(data)
		if err != nil {
			return
		}
		for _, w := range list {
			w.Open(time.Unix(1_800_000_000, 0))
			w.Turns(time.Unix(1_800_000_000, 0))
		}
	})
}
