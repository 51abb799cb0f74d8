package etcd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fettle/internal/fettle"
)

func captured(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

var versions = []string{"3.4", "3.7"}

// TestMetrics reads pages of a follower whose disk was slowed down by 120 ms a sync
// between the two.
func TestMetrics(t *testing.T) {
	for _, v := range versions {
		before, err := parseMetrics(captured(t, "metrics-"+v+"-before.txt"))
		if err != nil {
			t.Fatal(err)
		}
		after, err := parseMetrics(captured(t, "metrics-"+v+"-after.txt"))
		if err != nil {
			t.Fatal(err)
		}
		if before.quota != 2147483648 || before.started < 0 || before.defragInflight != 0 || before.defragments < 0 || len(before.fsync) != 15 {
			t.Errorf("%s: %+v", v, before)
		}
		p99, count, ok := quantile(before, after, 990)
		if !ok || count < 10 || p99 < 100 || p99 > 600 {
			t.Errorf("%s: 99 %% of %d syncs within %d ms, %v", v, count, p99, ok)
		}
		after.started++
		if _, _, ok := quantile(before, after, 990); ok {
			t.Errorf("%s: pages of two processes were compared", v)
		}
	}
	for _, bad := range []string{fsyncBucket + `{le="0.001"} x`, fsyncBucket + "{", "process_start_time_seconds -1", "etcd_server_quota_backend_bytes 1e300"} {
		if _, err := parseMetrics([]byte(bad + "\n")); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// TestMeter: a quantile needs twenty syncs; pages are skipped until there were so
// many, and a new process begins anew.
func TestMeter(t *testing.T) {
	now := wallClock{}.Now()
	at := func(started, n int64) page {
		return page{started: started, quota: 1, fsync: []bucket{{1, n / 2}, {128, n}, {1 << 62, n}}}
	}
	m := meter{}.next(at(1, 100), now)
	if m.p99 >= 0 {
		t.Fatalf("one page says nothing: %+v", m)
	}
	m = m.next(at(1, 110), now)
	m = m.next(at(1, 118), now)
	if m.p99 >= 0 {
		t.Fatalf("too few: %+v", m)
	}
	if m = m.next(at(1, 120), now); m.p99 != 128 {
		t.Fatalf("twenty since the first: %+v", m)
	}
	if m = m.next(at(2, 5), now); m.p99 >= 0 {
		t.Fatalf("a new process: %+v", m)
	}
}

func TestHealth(t *testing.T) {
	for name, want := range map[string]fettle.Tri{
		"health-3.4-healthy.json": fettle.Yes, "health-3.7-healthy.json": fettle.Yes,
		"health-3.4-nospace.json": fettle.No, "health-3.7-nospace.json": fettle.No, "health-3.7-two-lost.json": fettle.No,
	} {
		if got := parseHealth(captured(t, name)); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if got := parseHealth([]byte("<html>")); got != fettle.Unknown {
		t.Errorf("no page of etcd: %v", got)
	}
}

func TestPeerMembers(t *testing.T) {
	for _, v := range versions {
		list, err := parsePeerMembers(captured(t, "peer-members-"+v+".json"))
		if err != nil || len(list) != 3 || list[0].ID == 0 || list[0].Name == "" || len(list[0].PeerURLs) != 1 {
			t.Errorf("%s: %v, %v", v, list, err)
		}
	}
}

func TestAlarms(t *testing.T) {
	// As 3.4 and 3.7 write them, among another error; the last is what 3.4 raises
	// by itself where a member's content differs.
	got, others := alarmsIn([]string{"memberID:8668674805949386644 alarm:NOSPACE ", "memberID:8668674805949386644  alarm:CORRUPT", "etcdserver: no leader", "", "alarm:CORRUPT "})
	if len(got) != 3 || got[0] != (alarm{8668674805949386644, "NOSPACE"}) || got[1].what != "CORRUPT" || got[2] != (alarm{0, "CORRUPT"}) || len(others) != 1 {
		t.Errorf("%v, %v", got, others)
	}
}

func TestSayings(t *testing.T) {
	logs, err := filepath.Glob("testdata/log-*.log")
	if err != nil || len(logs) < 10 {
		t.Fatal(logs, err)
	}
	for _, name := range logs {
		lines := strings.Split(string(captured(t, filepath.Base(name))), "\n")
		says := damageIn(lines)
		// 3.7.3 says nothing of a log whose head is gone: it falls over nil.
		if silent := strings.Contains(name, "3.7-wal-head"); (says == "") != silent {
			t.Errorf("%s: %q", name, says)
		}
	}
	if says := damageIn([]string{"etcdmain: member 1 has already been bootstrapped", "rejected connection"}); says != "" {
		t.Errorf("no damage: %q", says)
	}
}

func readWAL(data []byte) (walInfo, error) {
	w := walReader{}
	err := w.segment("0.wal", int64(len(data)), true, bytes.NewReader(data))
	if err == nil && !w.meta {
		err = damaged("no metadata")
	}
	return w.info, err
}

// TestWAL reads logs of both versions, whole and with every kind of damage.
func TestWAL(t *testing.T) {
	for _, v := range versions {
		good := captured(t, "wal-"+v)
		info, err := readWAL(good)
		if err != nil || info.member == 0 || info.cluster == 0 || info.commit == 0 || info.lastIndex == 0 || info.torn {
			t.Fatalf("%s: %+v, %v", v, info, err)
		}
		var ends []int64
		w := walReader{each: func(at, body int64) { ends = append(ends, at) }}
		if err := w.segment("0.wal", int64(len(good)), true, bytes.NewReader(good)); err != nil {
			t.Fatal(err)
		}
		change := func(f func(b []byte)) error {
			b := bytes.Clone(good)
			f(b)
			_, err := readWAL(b)
			return err
		}
		middle := ends[len(ends)/2]
		for what, err := range map[string]error{
			"head":   change(func(b []byte) { copy(b, bytes.Repeat([]byte{0xa5}, 64)) }),
			"bit":    change(func(b []byte) { b[middle+20] ^= 1 }),
			"length": change(func(b []byte) { binary.LittleEndian.PutUint64(b[middle:], 1<<50) }),
		} {
			var d *damage
			if !errors.As(err, &d) {
				t.Errorf("%s: %s damaged: %v", v, what, err)
			}
		}
		// A machine that stopped while the last record was written left a sector of
		// zeros in it: that is no damage. (etcd's own rule, which wants a whole one.)
		last := ends[len(ends)-1]
		for i, at := range ends[:len(ends)-1] {
			if (at+8)/sector != (ends[i+1]-1)/sector {
				last = at
			}
		}
		boundary := (last + 8 + sector) / sector * sector
		cut, err := readWAL(append(bytes.Clone(good[:boundary]), make([]byte, 4096)...))
		if err != nil || !cut.torn {
			t.Errorf("%s: torn: %+v, %v", v, cut, err)
		}
		// The same in a segment that is not the last is damage.
		w = walReader{}
		if err := w.segment("0.wal", last+12, false, bytes.NewReader(good[:last+12])); err == nil {
			t.Errorf("%s: a segment that is cut off in the middle was read", v)
		}
	}
}

// TestDB reads databases of both versions, whole and damaged.
func TestDB(t *testing.T) {
	for _, v := range versions {
		good := captured(t, "db-"+v)
		check := func(b []byte) error { _, err := checkDB(bytes.NewReader(b), int64(len(b))); return err }
		if err := check(good); err != nil {
			t.Fatalf("%s: %v", v, err)
		}
		meta, err := readMeta(bytes.NewReader(good), int64(len(good)))
		if err != nil {
			t.Fatal(err)
		}
		change := func(at, n int64) []byte {
			b := bytes.Clone(good)
			for i := at; i < at+n; i++ {
				b[i] ^= 0xa5
			}
			return b
		}
		for what, b := range map[string][]byte{
			"both metas": change(0, 8192),
			"root page":  change(int64(meta.root)*meta.pageSize, 16),
			"truncated":  good[:int64(meta.pages)*meta.pageSize-meta.pageSize],
			"empty":      {},
			"text":       bytes.Repeat([]byte("no database "), 1000),
		} {
			var d *damage
			if err := check(b); !errors.As(err, &d) {
				t.Errorf("%s: %s: %v", v, what, err)
			}
		}
		// One meta page may be being written when the machine stops.
		if err := check(change(0, 4096)); err != nil {
			t.Errorf("%s: one meta page: %v", v, err)
		}
		at, err := findValue(bytes.NewReader(good), int64(len(good)), "k7")
		if err != nil || !bytes.HasPrefix(good[at.at:at.at+at.length], []byte("k000007.")) || at.length != 64 {
			t.Errorf("%s: value of k7: %+v, %v", v, at, err)
		}
		if _, err := findValue(bytes.NewReader(good), int64(len(good)), "nothing"); err == nil {
			t.Errorf("%s: a key that is not there was found", v)
		}
	}
}

func TestTrailer(t *testing.T) {
	check := func(parts ...[]byte) error {
		c := newTrailerCheck()
		for _, p := range parts {
			c.write(p)
		}
		_, _, err := c.sum()
		return err
	}
	db := bytes.Repeat([]byte("abcdefgh"), 1024)
	c := newTrailerCheck()
	c.write(db)
	c.write(make([]byte, 32))
	sum := c.hash.Sum(nil)
	if err := check(db[:100], db[100:], sum[:7], sum[7:]); err != nil {
		t.Errorf("a whole one: %v", err)
	}
	for what, err := range map[string]error{
		"flipped": check(append([]byte("X"), db[1:]...), sum), "cut": check(db, sum[:31]), "without": check(db), "nothing": check(),
	} {
		if err == nil {
			t.Errorf("%s was taken", what)
		}
	}
}
