package linuxmachine

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fettle/internal/machine"
)

const mountinfo = `22 27 0:20 / /proc rw,relatime shared:12 - proc proc rw
27 0 253:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro,emergency_ro
64 27 7:4 /sub /mnt/a\040b\011\134x ro,noatime - xfs /dev/loop4 rw,attr2
70 27 0:55 / /net rw master:3 propagate_from:2 - nfs4 10.0.0.1:/x\040y rw,vers=4.2,soft
71 27 0:56 / /empty rw - tmpfs  rw,size=4k
72 27 0:57 / /none rw - tmpfs none
`

func TestParseMountinfo(t *testing.T) {
	got, err := parseMountinfo([]byte(mountinfo))
	if err != nil {
		t.Fatal(err)
	}
	want := []machine.Mount{
		{ID: 22, Point: "/proc", Root: "/", Source: "proc", Type: "proc", Options: []string{"rw", "relatime"}, SuperOptions: []string{"rw"}, Device: 20, Errors: -1},
		{ID: 27, Point: "/", Root: "/", Source: "/dev/vda1", Type: "ext4", Options: []string{"rw", "relatime"},
			SuperOptions: []string{"rw", "errors=remount-ro", "emergency_ro"}, Device: 253<<8 | 1, Errors: -1},
		{ID: 64, Point: "/mnt/a b\t\\x", Root: "/sub", Source: "/dev/loop4", Type: "xfs", Options: []string{"ro", "noatime"},
			SuperOptions: []string{"rw", "attr2"}, Device: 7<<8 | 4, Errors: -1},
		{ID: 70, Point: "/net", Root: "/", Source: "10.0.0.1:/x y", Type: "nfs4", Options: []string{"rw"},
			SuperOptions: []string{"rw", "vers=4.2", "soft"}, Device: 55, Errors: -1},
		{ID: 71, Point: "/empty", Root: "/", Type: "tmpfs", Options: []string{"rw"}, SuperOptions: []string{"rw", "size=4k"}, Device: 56, Errors: -1},
		{ID: 72, Point: "/none", Root: "/", Source: "none", Type: "tmpfs", Options: []string{"rw"}, Device: 57, Errors: -1},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	for _, bad := range []string{"x", "1 2 0:3 / /a rw", "a 2 0:3 / /a rw - t s rw", "1 2 03 / /a rw - t s rw", "1 2 0:3 / a rw - t s rw"} {
		if _, err := parseMountinfo([]byte(mountinfo + bad + "\n")); err == nil || !strings.Contains(err.Error(), "line 7") {
			t.Errorf("%q: %v, want an error that names line 7", bad, err)
		}
	}
}

func FuzzParseMountinfo(f *testing.F) {
	f.Add([]byte(mountinfo))
	f.Add([]byte(`1 2 0:3 / /\1 rw - t \400 rw`))
	f.Fuzz(func(t *testing.T, data []byte) {
		mounts, err := parseMountinfo(data)
		if err != nil {
			return
		}
		for _, m := range mounts {
			if !strings.HasPrefix(m.Point, "/") || m.Errors != -1 {
				t.Fatalf("%+v", m)
			}
		}
	})
}

func TestParseProcStat(t *testing.T) {
	const tail = " S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 99 1 18446744073709551615 1 1"
	for _, tt := range []struct {
		in   string
		want procStat
	}{
		{"7 (etcd)" + tail, procStat{7, "etcd", "S", 4711}},
		{"7 (a) R (b (c)" + tail, procStat{7, "a) R (b (c", "S", 4711}},
		{"7 (x\ny z)" + tail + "\n", procStat{7, "x\ny z", "S", 4711}},
	} {
		if got, err := parseProcStat([]byte(tt.in)); err != nil || got != tt.want {
			t.Errorf("%q: %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", "7 etcd S", "x (a)" + tail, "7 (a) S 1 2 3", ") (", "7 (a)" + strings.Replace(tail, "4711", "-1", 1)} {
		if got, err := parseProcStat([]byte(bad)); err == nil {
			t.Errorf("%q: accepted as %+v", bad, got)
		}
	}
}

func FuzzParseProcStat(f *testing.F) {
	f.Add([]byte("7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 99"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if st, err := parseProcStat(data); err == nil && (st.pid < 1 || len(st.state) != 1) {
			t.Fatalf("%+v", st)
		}
	})
}

func TestCgroups(t *testing.T) {
	for _, tt := range []struct{ in, cgroup, unit string }{
		{"0::/system.slice/etcd.service\n", "/system.slice/etcd.service", "etcd.service"},
		{"12:pids:/x\n1:name=systemd:/system.slice/ssh.service\n0::/y\n", "/system.slice/ssh.service", "ssh.service"},
		{"9:name=systemd:/\n8:pids:/\n0::/system.slice/etcd.service\n", "/system.slice/etcd.service", "etcd.service"},
		{"0::/system.slice/system-getty.slice/getty@tty1.service\n", "/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"},
		{"0::/user.slice/user-0.slice/user@0.service/app.slice/x.service\n", "/user.slice/user-0.slice/user@0.service/app.slice/x.service", "user@0.service"},
		{"0::/init.scope\n", "/init.scope", "init.scope"},
		{"0::/system.slice/db.service/worker-1\n", "/system.slice/db.service/worker-1", "db.service"},
		{"0::/\n", "/", ""},
		{"0::/a/.service\n", "/a/.service", ""},
		{"", "", ""},
		{"nonsense\n", "", ""},
	} {
		cgroup := parseCgroup([]byte(tt.in))
		if unit := unitOf(cgroup); cgroup != tt.cgroup || unit != tt.unit {
			t.Errorf("%q: %q, %q; want %q, %q", tt.in, cgroup, unit, tt.cgroup, tt.unit)
		}
	}
}

func FuzzCgroup(f *testing.F) {
	f.Add("1:name=systemd:/system.slice/ssh.service\n0::/y\n")
	f.Fuzz(func(t *testing.T, in string) {
		if unit := unitOf(parseCgroup([]byte(in))); strings.Contains(unit, "/") {
			t.Fatalf("unit %q", unit)
		}
		parseArgs([]byte(in))
		parseFdFlags([]byte(in))
	})
}

func TestUnitPath(t *testing.T) {
	for name, want := range map[string]string{
		"etcd.service":    unitPrefix + "etcd_2eservice",
		"getty@tty1":      unitPrefix + "getty_40tty1",
		"1a.mount":        unitPrefix + "_31a_2emount",
		`dev-a\x2db.swap`: unitPrefix + "dev_2da_5cx2db_2eswap",
		"":                unitPrefix + "_",
	} {
		if got := unitPath(name); string(got) != want || unitName(got) != name {
			t.Errorf("%q: %s, back %q; want %s", name, got, unitName(got), want)
		}
	}
	if got := unitName("/org/freedesktop/systemd1/job/1"); got != "" {
		t.Errorf("a job is no unit: %q", got)
	}
}

func FuzzUnitPath(f *testing.F) {
	f.Add("a_b.service")
	f.Fuzz(func(t *testing.T, name string) {
		if p := unitPath(name); unitName(p) != name || !p.IsValid() {
			t.Fatalf("%q: %s, back %q", name, p, unitName(p))
		}
	})
}

const journalLines = `{"MESSAGE":"plain","__CURSOR":"x"}
{"MESSAGE":[104,105,255],"JOB_TYPE":"stop"}
{"MESSAGE":null}
{"MESSAGE":["first","second"]}
{"MESSAGE":[[104,105],[1]]}
`

func TestParseJournal(t *testing.T) {
	got, err := parseJournal([]byte(journalLines), false)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"plain", "hi\uFFFD", "(too long to show)", "first", "hi"}
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	for i, e := range got {
		if e["MESSAGE"] != want[i] {
			t.Errorf("entry %d: %q, want %q", i, e["MESSAGE"], want[i])
		}
	}
	if got[1]["JOB_TYPE"] != "stop" {
		t.Errorf("fields %v", got[1])
	}
	if got, err := parseJournal([]byte(journalLines+`{"MESSAGE":"ha`), true); err != nil || len(got) != len(want) {
		t.Errorf("a cut output: %d entries, %v", len(got), err)
	}
	for _, bad := range []string{"-- No entries --", `{"MESSAGE":{}}`, `{"MESSAGE":[300]}`, `{"MESSAGE":[1,"a"]}`, `{"MESSAGE":1.5}`} {
		if got, err := parseJournal([]byte(bad), false); err == nil {
			t.Errorf("%q: accepted as %v", bad, got)
		}
	}
}

func FuzzParseJournal(f *testing.F) {
	f.Add([]byte(journalLines), true)
	f.Fuzz(func(t *testing.T, data []byte, cut bool) {
		entries, err := parseJournal(data, cut)
		if err == nil && len(entries) > len(data) {
			t.Fatal("more entries than bytes")
		}
	})
}
