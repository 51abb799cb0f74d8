package etcd

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// dataDir lays out a data directory.
func dataDir(t testing.TB, wal, db []byte, snap bool) string {
	t.Helper()
	dir := t.TempDir()
	w, s := filepath.Join(dir, "member", "wal"), filepath.Join(dir, "member", "snap")
	err := errors.Join(os.MkdirAll(w, 0o700), os.MkdirAll(s, 0o700))
	if wal != nil {
		err = errors.Join(err, os.WriteFile(filepath.Join(w, "0000000000000000-0000000000000000.wal"), wal, 0o600))
	}
	if db != nil {
		err = errors.Join(err, os.WriteFile(filepath.Join(s, "db"), db, 0o600))
	}
	if snap {
		err = errors.Join(err, os.WriteFile(filepath.Join(s, "0000000000000002-0000000000000005.snap"), []byte("x"), 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCheckDataDir(t *testing.T) {
	for _, v := range versions {
		wal, db := captured(t, "wal-"+v), captured(t, "db-"+v)
		bad := bytes.Clone(db)
		copy(bad[8192:], bytes.Repeat([]byte{0xa5}, len(bad)-8192))
		flipped := bytes.Clone(wal)
		flipped[len(flipped)/2] ^= 4
		for _, c := range []struct {
			what, dir, want string
		}{
			{"whole", dataDir(t, wal, db, false), logWhole},
			{"whole, with a snapshot of raft", dataDir(t, wal, db, true), logWhole},
			{"no database, made anew from the log", dataDir(t, wal, nil, false), logWhole},
			{"an empty database, made anew from the log", dataDir(t, wal, []byte{}, false), logWhole},
			{"no database, and the log begins later", dataDir(t, wal, nil, true), logDamaged},
			{"no log", dataDir(t, nil, db, false), logMissing},
			{"nothing", t.TempDir(), logMissing},
			{"log changed", dataDir(t, flipped, db, false), logDamaged},
			{"database changed", dataDir(t, wal, bad, false), logDamaged},
			{"database cut off", dataDir(t, wal, db[:len(db)-5000], false), logDamaged},
		} {
			got := CheckDataDir(t.Context(), osFiles{}, c.dir, true)
			if got.State != c.want || (got.Damage == "") != (c.want != logDamaged) {
				t.Errorf("%s: %s: %+v, want %s", v, c.what, got, c.want)
			}
			if c.want == logWhole && got.Member == 0 {
				t.Errorf("%s: %s: whose is it?", v, c.what)
			}
		}
		got := CheckDataDir(t.Context(), osFiles{}, dataDir(t, flipped, bad, false), false)
		if got.State != logWhole || got.Member == 0 {
			t.Errorf("%s: only the head is read while a server writes: %+v", v, got)
		}
	}
}

// TestSegments: segments must follow each other, and begin no later than a
// snapshot.
func TestSegments(t *testing.T) {
	dir := dataDir(t, captured(t, "wal-3.4"), nil, false)
	first := filepath.Join(dir, "member", "wal", "0000000000000000-0000000000000000.wal")
	for name, want := range map[string]string{
		"0000000000000002-0000000000000100.wal": logDamaged, // one is missing between
		"0000000000000000-0000000000000100.wal": logDamaged, // begins too late
		"0000000000000000-0000000000000000.wal": logWhole,
		"notes.txt":                             logMissing,
	} {
		to := filepath.Join(filepath.Dir(first), name)
		if name == "0000000000000002-0000000000000100.wal" {
			data, err := os.ReadFile(first)
			if err != nil || os.WriteFile(to, data, 0o600) != nil {
				t.Fatal(err)
			}
		} else if err := os.Rename(first, to); err != nil {
			t.Fatal(err)
		}
		if got := CheckDataDir(t.Context(), osFiles{}, dir, true); got.State != want {
			t.Errorf("%s: %+v, want %s", name, got, want)
		}
		if name == "0000000000000002-0000000000000100.wal" {
			os.Remove(to)
		} else if err := os.Rename(to, first); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUnreadable: what may not be read is neither whole nor damaged.
func TestUnreadable(t *testing.T) {
	got := CheckDataDir(t.Context(), deniedFiles{}, "/var/lib/etcd", true)
	if got.State != logUnreadable || got.Damage == "" {
		t.Errorf("%+v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := CheckDataDir(ctx, osFiles{}, dataDir(t, captured(t, "wal-3.4"), nil, false), true); got.State != logUnreadable {
		t.Errorf("cut off: %+v", got)
	}
}

type deniedFiles struct{ machine.Files }

func (deniedFiles) Stat(context.Context, string) (machine.Stat, error) {
	return machine.Stat{}, os.ErrPermission
}

// TestJudgeLog: what data means depends on what the cluster says of its owner.
func TestJudgeLog(t *testing.T) {
	me := fettle.NewSubject(KindMember, "s", "m")
	of := func(from source, v view) *round {
		v.subject = me
		return &round{from: from, views: []view{v}, id: 9}
	}
	voter := view{id: 5, listed: true}
	learner := view{id: 5, listed: true, learner: true}
	added := view{id: 5, listed: true, learner: true, unstarted: true}
	voterAdded := view{id: 5, listed: true, unstarted: true}
	gone := view{}
	own, other := DataState{State: logWhole, Member: 5, Cluster: 9}, DataState{State: logWhole, Member: 4, Cluster: 9}
	missing, bad := DataState{State: logMissing}, DataState{State: logDamaged}
	for _, c := range []struct {
		what  string
		data  DataState
		round *round
		state string
		lost  fettle.Tri
	}{
		{"its own", own, of(listed, voter), logWhole, fettle.No},
		{"its own, nobody answers", own, of(configured, view{}), logWhole, fettle.No},
		{"its own, of another cluster", DataState{State: logWhole, Member: 5, Cluster: 8}, of(listed, voter), logForeign, fettle.Yes},
		{"another's", other, of(listed, voter), logForeign, fettle.Yes},
		{"another's, of a learner that has joined", other, of(listed, learner), logForeign, fettle.Yes},
		{"another's, added anew", other, of(listed, added), logForeign, fettle.No},
		{"another's, removed", other, of(listed, gone), logForeign, fettle.No},
		{"none, of a voter", missing, of(listed, voter), logMissing, fettle.Yes},
		{"none, added anew", missing, of(listed, added), logMissing, fettle.No},
		{"none, of a voter without a name: it may have voted", missing, of(listed, voterAdded), logMissing, fettle.Unknown},
		{"none, removed", missing, of(listed, gone), logMissing, fettle.No},
		{"none, nobody answers", missing, of(remembered, voter), logMissing, fettle.Unknown},
		{"damaged", bad, of(listed, voter), logDamaged, fettle.Yes},
		{"damaged, nobody answers", bad, of(configured, view{}), logDamaged, fettle.Yes},
		{"damaged, removed", bad, of(listed, gone), logDamaged, fettle.No},
		{"unreadable", DataState{State: logUnreadable}, of(listed, voter), logUnreadable, fettle.Unknown},
	} {
		if state, lost := judgeLog(c.data, c.round, me); state != c.state || lost != c.lost {
			t.Errorf("%s: %s, lost %v; want %s, %v", c.what, state, lost, c.state, c.lost)
		}
	}
}

func TestMountOf(t *testing.T) {
	mounts := []machine.Mount{{Point: "/"}, {Point: "/var"}, {Point: "/var/lib/etcd"}, {Point: "/var/lib/etcdother"}}
	for file, want := range map[string]string{"/var/lib/etcd/default": "/var/lib/etcd", "/var/lib/etcd": "/var/lib/etcd", "/srv": "/", "/var/lib/etcd2": "/var"} {
		if got := mountOf(mounts, file); got != want {
			t.Errorf("%s: %s, want %s", file, got, want)
		}
	}
}

// TestCertEnd reads the first certificate of a file.
func TestCertEnd(t *testing.T) {
	ca := newAuthority(t)
	cert, _ := ca.issue(t, "m1", time.Now().Add(48*time.Hour))
	end, err := certEnd(append([]byte("-----BEGIN X-----\nAAAA\n-----END X-----\n"), append(cert, ca.pem...)...))
	if left := time.Until(end); err != nil || left < 47*time.Hour || left > 48*time.Hour {
		t.Errorf("%v, %v", end, err)
	}
	if _, err := certEnd([]byte("no PEM")); err == nil {
		t.Error("text was read as a certificate")
	}
}
