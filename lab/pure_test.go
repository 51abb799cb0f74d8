package lab

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestPrefixAndAddress(t *testing.T) {
	if got := prefix(7).String(); got != "10.82.7.0/24" {
		t.Errorf("prefix(7) = %s", got)
	}
	if got := address(prefix(255), bridgeNumber).String(); got != "10.82.255.254" {
		t.Errorf("bridge of lab 255 = %s", got)
	}
}

func TestFreeNumber(t *testing.T) {
	taken := map[int]bool{3: true, 255: true}
	take := func(n int) (bool, error) { return !taken[n], nil }
	use := []netip.Prefix{netip.MustParsePrefix("10.82.4.0/23"), netip.MustParsePrefix("192.0.2.0/24")} // .4 and .5
	for start, want := range map[int]int{0: 0, 3: 6, 4: 6, 6: 6, 255: 0} {
		if got, err := freeNumber(start, use, take); err != nil || got != want {
			t.Errorf("from %d: %d, %v, want %d", start, got, err, want)
		}
	}
	if _, err := freeNumber(0, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, take); err == nil {
		t.Error("found a number where the machine's own network covers all")
	}
	if _, err := freeNumber(0, nil, func(int) (bool, error) { return false, nil }); err == nil {
		t.Error("found a number where none is free")
	}
	broken := errors.New("broken")
	if _, err := freeNumber(0, nil, func(int) (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestImageID(t *testing.T) {
	im := DefaultImage()
	shuffled := DefaultImage()
	slices.Reverse(shuffled.Packages)
	if im.id() != shuffled.With("curl").id() {
		t.Error("order or repetition of packages changes the image")
	}
	if im.id() == im.With("redis-server").id() {
		t.Error("a further package does not change the image")
	}
	other := im
	other.Suite = "trixie"
	if im.id() == other.id() {
		t.Error("the suite does not change the image")
	}
	if len(DefaultImage().Packages) != len(im.Packages) {
		t.Error("With changed the image that it was called on")
	}
	for _, bad := range []Image{{}, {Suite: "bookworm"}, im.With("a b"), im.With("--option"), {Suite: "../x", Packages: im.Packages}} {
		if bad.check() == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	if err := im.check(); err != nil {
		t.Error(err)
	}
}

func TestConfigComplete(t *testing.T) {
	for _, bad := range []Config{{}, {Hosts: -1}, {Hosts: MaxHosts + 1}, {Hosts: 1, Name: "Up"}, {Hosts: 1, Name: "../x"}, {Hosts: 1, Name: "-x"}} {
		if _, err := bad.complete(); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	a, err1 := Config{Hosts: 1}.complete()
	b, err2 := Config{Hosts: 1}.complete()
	if err1 != nil || err2 != nil || a.Name == b.Name || checkName(a.Name) != nil {
		t.Errorf("made-up names %q and %q, %v, %v", a.Name, b.Name, err1, err2)
	}
	t.Setenv(EnvDir, "/from/env/")
	if c, err := (Config{Hosts: 1}).complete(); err != nil || c.Dir != "/from/env" {
		t.Errorf("folder %q, %v", c.Dir, err)
	}
}

func TestMissingTools(t *testing.T) {
	have := func(string) (string, error) { return "/x", nil }
	if got := missingTools(have); got != nil {
		t.Errorf("missing %v where all is there", got)
	}
	got := missingTools(func(name string) (string, error) {
		if name == "nft" || name == "systemd-nspawn" {
			return "", os.ErrNotExist
		}
		return "/x", nil
	})
	if got == nil || !slices.Equal(got.Packages, []string{"systemd-container", "nftables"}) || !strings.Contains(got.Error(), "apt-get install systemd-container nftables") {
		t.Errorf("got %v", got)
	}
}

const mountinfoSample = `22 27 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
30 22 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
32 30 0:27 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
33 30 0:28 / /sys/fs/cgroup/memory rw shared:9 master:3 - cgroup cgroup rw,memory
34 30 0:29 /docker/abc /mnt/memory rw - cgroup cgroup rw,memory
40 27 8:1 / /a\040b\134c rw - ext4 /dev/sda1 rw
41 40 8:2 / /a\040b\134c/d rw - ext4 /dev/sda2 rw
`

func TestParseMountinfo(t *testing.T) {
	all, err := parseMountinfo(mountinfoSample)
	if err != nil {
		t.Fatal(err)
	}
	var under []string
	for _, m := range mountsUnder(all, `/a b\c`) {
		under = append(under, m.path)
	}
	if !slices.Equal(under, []string{`/a b\c`, `/a b\c/d`}) {
		t.Errorf("under: %q", under)
	}
	if got := mountsUnder(all, "/a"); len(got) != 0 {
		t.Errorf("a folder whose name only begins the same: %v", got)
	}
	h, err := findHierarchies(all)
	if want := (hierarchies{v2: "/sys/fs/cgroup/unified", v1: []string{"/sys/fs/cgroup/memory"}}); err != nil || !reflect.DeepEqual(h, want) {
		t.Errorf("hierarchies %+v, %v, want %+v", h, err, want)
	}
	if got := h.group("lab3", "h1").dirs(); !slices.Equal(got, []string{"/sys/fs/cgroup/unified/fettle-lab/lab3/h1", "/sys/fs/cgroup/memory/fettle-lab/lab3/h1"}) {
		t.Errorf("folders %q", got)
	}
	if _, err := findHierarchies(all[:2]); err == nil {
		t.Error("found a cgroup2 where none is mounted")
	}
	for _, bad := range []string{"x\n", "1 2 3 4 5 6 7\n", `1 2 0:1 / /a\04 rw - t s o` + "\n", `1 2 0:1 / /a\999 rw - t s o` + "\n"} {
		if _, err := parseMountinfo(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func FuzzParseMountinfo(f *testing.F) {
	f.Add(mountinfoSample)
	f.Add(`1 2 0:1 / /\134 rw - t s o`)
	f.Add("")
	f.Add("a - b")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseMountinfo(text)
		if err == nil && len(all) > strings.Count(text, "\n")+1 {
			t.Errorf("%d mounts of %q", len(all), text)
		}
	})
}

func TestRemoveDirRefusesMounts(t *testing.T) {
	if err := removeDir("/proc"); err == nil || !strings.Contains(err.Error(), "is mounted there") {
		t.Errorf("got %v", err)
	}
	dir := filepath.Join(t.TempDir(), "x")
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "y"), 0o755), removeDir(dir), removeDir(dir)); err != nil {
		t.Error(err)
	}
}

func TestState(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "x")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := state{Schema: 1, Name: "x", Number: 9, Owner: 3, BootID: "b"}
	if err := s.write(dir); err != nil {
		t.Fatal(err)
	}
	if got, err := readState(dir); err != nil || got != s {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "{", `{"schema":2,"name":"x"}`, `{"schema":1,"name":"x","number":256}`, `{"schema":1,"name":"x","number":-1}`, `{"schema":1,"name":"y","number":1}`} {
		if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readState(dir); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestSetprivSet(t *testing.T) {
	if got := setprivSet(1|1<<3|1<<40|1<<50, 40); got != "-all,+cap_0,+cap_3,+cap_40" {
		t.Errorf("got %s", got)
	}
}

func TestTail(t *testing.T) {
	if got := tail("one\ntwo\nthree\n", 9); got != "three" {
		t.Errorf("got %q", got)
	}
	if got := tail(" all ", 9); got != "all" {
		t.Errorf("got %q", got)
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "lock")
	if _, err := tryLockExisting(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a lock that is not there: %v", err)
	}
	held, err := lock(context.Background(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tryLockExisting(path); !errors.Is(err, errLocked) {
		t.Errorf("took a lock twice: %v", err)
	}
	// The wait ends with the context …
	ctx, cancel := context.WithCancel(context.Background())
	waited := false
	if _, err := lock(ctx, path, func() { waited = true; cancel() }); !errors.Is(err, context.Canceled) || !waited {
		t.Errorf("waited: %v, %v", waited, err)
	}
	// … or when the lock is free.
	second, err := lock(context.Background(), path, func() { held.Close() })
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}

func TestSweepLeavesWhatIsNotALab(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"empty", "strange", "other-version", "Not-A-Name", "half-made"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for file, text := range map[string]string{"strange/lab.json": "{}", "other-version/lab.json": `{"schema":9}`, "other-version/lock": "", "half-made/lock": "", "plain-file": ""} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	swept, err := Sweep(context.Background(), dir)
	if err == nil || !strings.Contains(err.Error(), "other-version") || !slices.Equal(swept, []string{"empty", "half-made"}) {
		t.Errorf("swept %q, %v", swept, err)
	}
	var left []string
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{".lock", "Not-A-Name", "other-version", "plain-file", "strange"}; err != nil || !slices.Equal(left, want) {
		t.Errorf("left %q, %v, want %q", left, err, want)
	}
}
