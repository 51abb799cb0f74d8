package etcd

import (
	"bytes"
	"context"
	"errors"
	"testing"
)

func FuzzMetrics(f *testing.F) {
	for _, v := range versions {
		f.Add(captured(f, "metrics-"+v+"-before.txt"))
	}
	f.Add([]byte(fsyncBucket + `{le="+Inf"} 3` + "\nprocess_start_time_seconds NaN\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parseMetrics(data)
		if err != nil {
			return
		}
		for i := 1; i < len(p.fsync); i++ {
			if p.fsync[i].upper < p.fsync[i-1].upper {
				t.Fatal("bounds are not sorted")
			}
		}
		quantile(p, p, 990)
	})
}

func FuzzWAL(f *testing.F) {
	for _, v := range versions {
		f.Add(captured(f, "wal-"+v))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := readWAL(data)
		var d *damage
		if err != nil && !errors.As(err, &d) {
			t.Fatalf("neither read nor damaged: %v", err)
		}
		if err == nil && info.member == 0 {
			t.Fatal("a log of nobody")
		}
	})
}

func FuzzDB(f *testing.F) {
	for _, v := range versions {
		f.Add(captured(f, "db-"+v), "k7")
	}
	f.Fuzz(func(t *testing.T, data []byte, key string) {
		_, err := checkDB(bytes.NewReader(data), int64(len(data)))
		var d *damage
		if err != nil && !errors.As(err, &d) {
			t.Fatalf("neither read nor damaged: %v", err)
		}
		if at, err := findValue(bytes.NewReader(data), int64(len(data)), key); err == nil && (at.at < 0 || at.length <= 0 || at.at+at.length > int64(len(data))) {
			t.Fatalf("a value outside of the file: %+v", at)
		}
	})
}

func FuzzPages(f *testing.F) {
	f.Add(captured(f, "health-3.7-nospace.json"), "memberID:1 alarm:NOSPACE ")
	f.Add(captured(f, "health-3.7-nospace.json"), "alarm:CORRUPT ")
	f.Add(captured(f, "peer-members-3.4.json"), "etcdserver: no leader")
	f.Fuzz(func(t *testing.T, body []byte, status string) {
		parseHealth(body)
		if list, err := parsePeerMembers(body); err == nil {
			for _, m := range list {
				if m.ID == 0 || len(m.PeerURLs) == 0 {
					t.Fatal("a member without identity or URL")
				}
			}
		}
		alarmsIn([]string{status})
		damageIn([]string{status})
		// An authority's file is read by everybody's library; ours only picks one.
		if _, err := certEnd(body); err == nil {
			t.Log("a certificate")
		}
	})
}

func FuzzSettings(f *testing.F) {
	f.Add(captured(f, "env-3.4-tls.env"), "a=http://1.1.1.1:1")
	f.Add([]byte("name: m1 # mine\ninitial-cluster: \"x\"\nclient-transport-security:\n  cert-file: /c\n"), "b")
	f.Add([]byte("initial-cluster: |\n  a\n  b\n"), "c")
	f.Fuzz(func(t *testing.T, data []byte, value string) {
		if s, err := SettingsFromEnvironment(data); err == nil {
			s.initialCluster()
			s.state()
		}
		change := Settings{setInitialCluster: value, setInitialState: "existing"}
		for _, e := range []struct {
			edit func([]byte, Settings) ([]byte, error)
			read func([]byte) (Settings, error)
		}{{EditEnvironment, SettingsFromEnvironment}, {EditYAML, SettingsFromYAML}} {
			out, err := e.edit(data, change)
			if err != nil {
				continue
			}
			got, err := e.read(out)
			if err != nil || got[setInitialCluster] != value || got[setInitialState] != "existing" {
				t.Fatalf("edited to %q, %v:\n%s", got[setInitialCluster], err, out)
			}
		}
	})
}

func FuzzUnitFile(f *testing.F) {
	f.Add("[Service]\nEnvironment=ETCD_NAME=%H \"ETCD_DATA_DIR=/var/lib/etcd/default\"\nEnvironmentFile=-/etc/default/%p\nExecStart=/usr/bin/etcd $DAEMON_ARGS\n")
	f.Add("ExecStart=@/usr/bin/etcd etcd --name x \\\n --config-file=/c.yml\n")
	f.Fuzz(func(t *testing.T, text string) {
		u := parseUnitFile(text, "etcd.service", "h1")
		flagsOf(u.exec)
		u.settings()
		for _, file := range u.envFiles {
			if file == "" || file[0] != '/' {
				t.Fatalf("file %q", file)
			}
		}
	})
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("system: s\nname: m1\ndata_dir: /d\npeers: {m2: {peer_url: \"http://h:1\"}}\n"))
	f.Add([]byte("tls: {ca: /c, cert: /d, key: /e}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig(data)
		if err != nil {
			return
		}
		if full, err := c.complete(Settings{}); err == nil && (full.Name == "" || full.DataDir == "" || full.System == "") {
			t.Fatalf("not complete: %+v", full)
		}
	})
}

// FuzzDataDir: whatever lies in a data directory, it is judged and nothing breaks.
func FuzzDataDir(f *testing.F) {
	f.Add(captured(f, "wal-3.4"), captured(f, "db-3.4"), true)
	f.Add([]byte{}, []byte{}, false)
	f.Fuzz(func(t *testing.T, wal, db []byte, snap bool) {
		dir := dataDir(t, wal, db, snap)
		for _, deep := range []bool{true, false} {
			s := CheckDataDir(context.Background(), osFiles{}, dir, deep)
			switch s.State {
			case logWhole, logDamaged, logMissing:
			default:
				t.Fatalf("%+v", s)
			}
		}
	})
}
