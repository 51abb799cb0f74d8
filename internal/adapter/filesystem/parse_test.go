package filesystem

import (
	"path"
	"strconv"
	"strings"
	"testing"

	"fettle/internal/fettle"
	"fettle/internal/machine"
)

func TestFstabReadOnly(t *testing.T) {
	const fstab = `# /etc/fstab: static file system information.
UUID=5d0e / ext4 rw,errors=remount-ro 0 1
/dev/sdb1	/srv/my\040data	xfs	defaults,ro	0 2
/dev/sdc1 /mnt/a\134b/ ext4 ro
#/dev/sdd1 /commented ext4 ro 0 0
/dev/sde1 /both ext4 ro,rw 0 0
/dev/sdf1 /again ext4 rw,noatime,ro 0 0
/dev/sdg1 /short ext4
none /proc proc ro
`
	for point, want := range map[string]bool{
		"/": false, "/srv/my data": true, `/mnt/a\b`: true, "/commented": false, "/both": false, "/again": true,
		"/short": false, "/absent": false, "/proc": true, "/srv": false, "": false,
	} {
		if got := fstabReadOnly(fstab, point); got != want {
			t.Errorf("%q: %v, want %v", point, got, want)
		}
	}
}

func FuzzFstabReadOnly(f *testing.F) {
	f.Add("UUID=5d0e / ext4 ro 0 1\n", "/")
	f.Add("a /srv/my\\040data xfs defaults,ro 0 2", "/srv/my data")
	f.Add("# a / b ro", "/")
	f.Add("\t \n\x00 / / ro,rw", "/")
	f.Fuzz(func(t *testing.T, fstab, point string) {
		if fstabReadOnly(fstab, point) && !strings.Contains(fstab, "ro") {
			t.Errorf("%q has no ro, and %q is read-only by it", fstab, point)
		}
	})
}

func TestMaxUse(t *testing.T) {
	for _, c := range []struct {
		conf string
		want int64
		set  bool
		bad  bool
	}{
		{"", 0, false, false},
		{"[Journal]\n#SystemMaxUse=1G\n", 0, false, false},
		{"[Journal]\nSystemMaxUse=500M\n", 500 << 20, true, false},
		{"SystemMaxUse = 4G", 4 << 30, true, false},
		{"SystemMaxUse=1048576", 1 << 20, true, false},
		{"SystemMaxUse=1G\nSystemMaxUse=2G", 2 << 30, true, false},
		{"SystemMaxUse=1G\nSystemMaxUse=\n", 0, false, false},
		{"RuntimeMaxUse=1G\nSystemMaxUseX=1G", 0, false, false},
		{"SystemMaxUse=0", 0, true, false},
		{"SystemMaxUse=1.5G", 3 << 29, true, false},
		{"SystemMaxUse=1G 512M", 3 << 29, true, false},
		{"SystemMaxUse=10%", 0, false, true},
		{"SystemMaxUse=much", 0, false, true},
		{"SystemMaxUse=-1", 0, false, true},
	} {
		got, set, err := maxUse(c.conf)
		if got != c.want || set != c.set || (err != nil) != c.bad {
			t.Errorf("%q: %d, %v, %v; want %d, %v, error %v", c.conf, got, set, err, c.want, c.set, c.bad)
		}
	}
}

func TestSizeOf(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "512": 512, "512B": 512, "1K": 1 << 10, "1M": 1 << 20, "1T": 1 << 40, "1P": 1 << 50, "1E": 1 << 60,
		"0.5K": 512, "1.25M": 5 << 18, " 2 G ": 2 << 30, "1G200M3": 1<<30 + 200<<20 + 3, "0.1K": 102,
		"": -1, " ": -1, "G": -1, "1.": -1, ".5G": -1, "1M1G": -1, "1M1M": -1, "8E": -1, "1,5G": -1, "99999999999999999999": -1, "3E3E": -1,
	} {
		got, ok := sizeOf(text)
		if want < 0 && ok || want >= 0 && (!ok || got != want) {
			t.Errorf("%q: %d, %v; want %d", text, got, ok, want)
		}
	}
}

func FuzzMaxUse(f *testing.F) {
	for _, s := range []string{"SystemMaxUse=1.5G", "SystemMaxUse=1G 200M\n", "[Journal]\nSystemMaxUse=\n", "SystemMaxUse=9999999999999E", "SystemMaxUse=1.99999999999999999999K", "=\n=="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, conf string) {
		n, set, err := maxUse(conf)
		if n < 0 || (n > 0 && !set) || (err != nil && set) {
			t.Errorf("%q: %d, %v, %v", conf, n, set, err)
		}
	})
}

func TestRotated(t *testing.T) {
	for name, want := range map[string]string{
		"syslog.1": "syslog", "app.log.2": "app.log", "app.log.999": "app.log", "a b.1": "a b",
		"syslog": "", "syslog.1.gz": "", "app.log.0": "", "app.log.1000": "", "app.log.01": "", "app.log.+1": "", "app.log.-1": "",
		"mysql-bin.000001": "", "binlog.000012": "", ".1": "", "..1": "", "1": "", "": "", "app.log.": "", "app.log.1 ": "", "app.log.１": "",
	} {
		if got, ok := rotated(name); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v; want %q", name, got, ok, want)
		}
	}
}

func FuzzRotated(f *testing.F) {
	for _, s := range []string{"syslog.1", "binlog.000001", "a.+1", ".1", "a..2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		live, ok := rotated(name)
		if !ok || strings.Contains(name, "/") { // no name of a file
			return
		}
		number, is := strings.CutPrefix(name, live+".")
		if n, err := strconv.Atoi(number); !is || err != nil || live+"."+strconv.Itoa(n) != name || live == "" || path.Base(live) == "." {
			t.Errorf("%q is taken for a rotated %q", name, live)
		}
	})
}

func TestParseConfig(t *testing.T) {
	for src, want := range map[string]string{
		"": "", "types: [ext4]\nignore: [/mnt]": "", "reopen: {a.service: SIGUSR2, b.service: HUP}": "",
		"log_dirs: [/srv/log/]":          "",
		"type: [ext4]":                   "unknown field",
		"log_dirs: [log]":                "not an absolute path",
		"log_dirs: [/]":                  "is everything",
		"package_caches: ['/srv/..']":    "is everything",
		"journal_dirs: [//]":             "is everything",
		"reopen: {a.service: KILL}":      "known: HUP, USR1, USR2",
		"reopen: {a.service: ''}":        "known: HUP, USR1, USR2",
		"types: ext4\n  - [":             "filesystem configuration",
		"ignore: [../etc]":               "not an absolute path",
		"log_dirs: [/var/log, var/log2]": "not an absolute path",
	} {
		_, err := ParseConfig([]byte(src))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v; want %q", src, err, want)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("types: [ext4]\nlog_dirs: [/srv/log]"))
	f.Add([]byte("reopen: {a.service: HUP}"))
	f.Add([]byte("journal_dirs: ['/..']"))
	f.Fuzz(func(t *testing.T, src []byte) {
		c, err := ParseConfig(src)
		if err != nil {
			return
		}
		for _, dirs := range [][]string{c.JournalDirs, c.PackageCaches, c.LogDirs} {
			for _, d := range dirs {
				if d == "/" || !path.IsAbs(d) {
					t.Errorf("%q: %q is accepted", src, d)
				}
			}
		}
		for unit := range c.Reopen {
			if sig, ok := c.reopenSignal(unit); !ok || sig == 0 {
				t.Errorf("%q: no signal for %q", src, unit)
			}
		}
	})
}

func open(pid int, unit, command, p string, inode uint64, bytes int64) machine.OpenFile {
	return machine.OpenFile{Process: machine.Process{PID: pid, UnitName: unit, Command: command}, Path: p, Inode: inode, Bytes: bytes}
}

func TestDescribeHolder(t *testing.T) {
	for name, c := range map[string]struct {
		open                []machine.OpenFile
		bytes               int64
		holder, deletedPath string
		pid                 int64
	}{
		"nothing":                  {},
		"empty files hold nothing": {open: []machine.OpenFile{open(1, "a.service", "a", "/x", 1, 0)}},
		"one inode counts once": {
			open:  []machine.OpenFile{open(7, "a.service", "a", "/x", 1, 10), open(7, "a.service", "a", "/x", 1, 10), open(8, "b.service", "b", "/x", 1, 10)},
			bytes: 10, holder: "a.service", pid: 7, deletedPath: "/x",
		},
		"who holds most in all, not the largest file": {
			open: []machine.OpenFile{
				open(5, "one.service", "one", "/large", 1, 60),
				open(9, "many.service", "many", "/m1", 2, 40), open(8, "many.service", "many", "/m2", 3, 50),
			},
			bytes: 150, holder: "many.service", pid: 8, deletedPath: "/m2",
		},
		"in no unit its command": {
			open:  []machine.OpenFile{open(5, "", "tail", "/x", 1, 60), open(6, "", "tail", "/y", 2, 50)},
			bytes: 110, holder: "tail", pid: 5, deletedPath: "/x",
		},
	} {
		f := fettle.Facts{}
		describeHolder(f, c.open)
		want := fettle.Facts{"deleted_open_bytes": c.bytes, "deleted_holder": c.holder, "deleted_holder_pid": c.pid, "deleted_path": c.deletedPath}
		for fact, v := range want {
			if f[fact] != v {
				t.Errorf("%s: %s is %v, want %v", name, fact, f[fact], v)
			}
		}
	}
}

func FuzzDescribeHolder(f *testing.F) {
	f.Add([]byte{1, 1, 10, 2, 2, 20, 1, 3, 30})
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 9, 9, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		var list []machine.OpenFile
		inodes := map[uint64]int64{}
		for ; len(data) >= 3; data = data[3:] {
			unit := ""
			if data[0]%3 != 0 {
				unit = "u" + strconv.Itoa(int(data[0]%3))
			}
			o := open(int(data[0])+1, unit, "c", "/f"+strconv.Itoa(int(data[1])), uint64(data[1]), int64(data[2]))
			if b, had := inodes[o.Inode]; had {
				o.Bytes = b
			}
			inodes[o.Inode] = o.Bytes
			list = append(list, o)
		}
		sum := int64(0)
		for _, b := range inodes {
			sum += b
		}
		facts := fettle.Facts{}
		describeHolder(facts, list)
		if err := facts.Validate(); err != nil {
			t.Error(err)
		}
		if facts["deleted_open_bytes"] != sum {
			t.Errorf("%v bytes are held, said to be %v", sum, facts["deleted_open_bytes"])
		}
		holder, pid := facts["deleted_holder"], facts["deleted_holder_pid"]
		if (sum == 0) != (holder == "") || (sum == 0) != (pid == int64(0)) {
			t.Errorf("%v bytes are held by %q, process %v", sum, holder, pid)
		}
	})
}

func TestUsedPermille(t *testing.T) {
	for _, c := range []struct {
		u    machine.Usage
		want int64
	}{
		{machine.Usage{}, 0},
		{machine.Usage{Size: 1000, Free: 1000, Avail: 950}, 0},
		{machine.Usage{Size: 1000, Free: 0, Avail: 0}, 1000},
		{machine.Usage{Size: 1000, Free: 50, Avail: 0}, 1000},
		{machine.Usage{Size: 1_000_000, Free: 10_001, Avail: 10_001}, 990},
		{machine.Usage{Size: 1 << 62, Free: 1 << 61, Avail: 1 << 61}, 500},
		{machine.Usage{Size: 100, Free: 200, Avail: 200}, 0},
	} {
		if got := usedPermille(c.u); got != c.want {
			t.Errorf("%+v: %d, want %d", c.u, got, c.want)
		}
	}
}
