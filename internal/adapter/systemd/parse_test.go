package systemd

import (
	"path"
	"testing"
	"time"
)

func TestMountPoint(t *testing.T) {
	for unit, want := range map[string]string{
		"-.mount":                `/`,
		"srv.mount":              `/srv`,
		"var-lib-etcd.mount":     `/var/lib/etcd`,
		`srv-a\x2db.mount`:       `/srv/a-b`,
		`srv-a\x20b\x5c.mount`:   `/srv/a b\`,
		".mount":                 "",
		"web.service":            "",
		"srv--a.mount":           "",
		"-srv.mount":             "",
		"srv-..-etc.mount":       "",
		`srv\x2.mount`:           "",
		`srv\x00.mount`:          "",
		`srv\xzz.mount`:          "",
		"srv-data.mount.service": "",
	} {
		got, ok := mountPoint(unit)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%s: %q, %v; want %q", unit, got, ok, want)
		}
	}
}

func FuzzMountPoint(f *testing.F) {
	f.Add("-.mount")
	f.Add(`srv-a\x2db.mount`)
	f.Add("srv--a.mount")
	f.Fuzz(func(t *testing.T, unit string) {
		if p, ok := mountPoint(unit); ok && (!path.IsAbs(p) || path.Clean(p) != p) {
			t.Errorf("%q: %q is no clean absolute path", unit, p)
		}
	})
}

// The invocation that was there when a unit was first seen is one of its starts
// if it is of late: a loop does not wait until it is watched.
func TestCountStarts(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	s := newStarts()
	for i, c := range []struct {
		unit, invocation string
		changed          time.Duration // before now; 0: never
		at               time.Duration
		want             int64
	}{
		{"new", "", 0, 0, 0},
		{"new", "a", time.Second, time.Second, 1},
		{"new", "a", time.Second, 2 * time.Second, 1},
		{"new", "b", time.Second, 3 * time.Second, 2},
		{"looping", "a", time.Second, 0, 1},
		{"looping", "b", 0, time.Second, 2},
		{"looping", "b", 0, loopWindow, 1},
		{"old", "a", 2 * loopWindow, 0, 0},
		{"old", "b", 0, time.Second, 1},
	} {
		at := now.Add(c.at)
		changed := time.Time{}
		if c.changed > 0 {
			changed = at.Add(-c.changed)
		}
		if got := s.count(c.unit, c.invocation, changed, at); got != c.want {
			t.Errorf("%d: %s %s: %d starts, want %d", i, c.unit, c.invocation, got, c.want)
		}
	}
}
