package filesystem_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path"
	"regexp"
	"strings"
	"testing"

	"fettle/internal/fettle"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
)

// mayGo is what is disposable by its kind, said a second time and in other words
// than the adapter does.
var mayGo = map[string]*regexp.Regexp{
	"filesystem.vacuum_journal":      regexp.MustCompile(`^/var/log/journal/[^/]+/[^/]+@[^/]*\.journal$`),
	"filesystem.clean_package_cache": regexp.MustCompile(`^/var/cache/apt/archives/[^/]+\.deb$`),
	"filesystem.compress_logs":       regexp.MustCompile(`^/var/log/([^/]+/){0,2}[^/]+\.[1-9][0-9]{0,2}$`),
}

// TestUnknownFilesStay puts files of all sorts everywhere, close to what is
// disposable above all, and does everything that the adapter can do. What goes
// is of its kind and in a receipt; everything else is there, unchanged.
func TestUnknownFilesStay(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			h := newHost(t)
			h.SetFilesystem(memmachine.Filesystem{Mount: machine.Mount{
				ID: 3, Point: "/var/log/other", Root: "/", Source: "/dev/vdc", Type: "ext4", Options: []string{"rw"}, Device: 3,
			}, Size: 1 << 30, Inodes: 1 << 20})
			h.Put("/var/log/other/app.log", nil, 0o644)
			h.Put("/var/log/other/app.log.1", bytes.Repeat([]byte("on another filesystem\n"), 4000), 0o644)
			scatter(h, r)
			for _, name := range []string{"filesystem.ask_reopen", "filesystem.compress_logs", "filesystem.clean_package_cache", "filesystem.vacuum_journal"} {
				everythingElseStays(t, h, name)
			}
		})
	}
}

// scatter makes files whose names are made of what the adapter looks for.
func scatter(h *host, r *rand.Rand) {
	dirs := []string{
		"/var", "/var/log", "/var/log/app", "/var/log/app/deep", "/var/log/app/deep/deeper", "/var/log/other", "/var/log/journal", journalDir,
		"/var/log/journal/namespace", "/var/cache/apt", archives, archives + "/partial", "/var/lib/app", "/var/backups", "/srv/cache/apt/archives", "/root",
	}
	first := []string{"app", "app.log", "syslog", "mysql-bin", "data", "lib.so.1.2", "system@7", "notes@home", "hello_1_amd64", "a b", ".hidden"}
	last := []string{"", ".1", ".2", ".10", ".000001", ".01", ".+1", ".0", ".1000", ".gz", ".1.gz", ".deb", ".deb.part", ".DEB", ".journal", ".journal~", ".journal.bak", ".db", ".1.gz.fettle-part.old"}
	for range 150 {
		p := path.Join(dirs[r.IntN(len(dirs))], first[r.IntN(len(first))]+last[r.IntN(len(last))])
		h.Put(p, bytes.Repeat([]byte{byte(r.Uint32()), byte(r.Uint32())}, r.IntN(3)*4096), 0o644)
	}
}

func everythingElseStays(t *testing.T, h *host, name string) {
	t.Helper()
	before := tree(t.Context(), h.ports.Files, "/")
	was := map[string][]byte{}
	for p := range before {
		was[p], _ = read(t, h.ports, p)
	}
	params := fettle.Facts{"keep_bytes": int64(journalLimit), "unit": holderUnit, "pid": h.holder}
	result, err := do(t, h.ports, name, params)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	after := tree(t.Context(), h.ports.Files, "/")
	listed := map[string]bool{}
	for _, receipt := range result.Receipts {
		listed[receipt.What] = true
	}
	for p, what := range before {
		switch now, there := after[p]; {
		case there && now == what:
		case there && p == journalDir+"/system.journal": // rotated
		case there:
			t.Errorf("%s changed %s", name, p)
		case mayGo[name] == nil || !mayGo[name].MatchString(p) || strings.HasPrefix(p, "/var/log/other/"):
			t.Errorf("%s removed %s", name, p)
		case !listed[p]:
			t.Errorf("%s removed %s without a receipt", name, p)
		case name == "filesystem.compress_logs":
			live := strings.TrimSuffix(p, path.Ext(p))
			if _, ok := before[live]; !ok {
				t.Errorf("%s took %s for a rotated log, and there is no %s", name, p, live)
			}
			if got, ok := unpacked(t, h.ports, p+".gz"); !ok || !bytes.Equal(got, was[p]) {
				t.Errorf("%s lost what was in %s", name, p)
			}
		}
	}
	for p := range listed {
		if _, there := after[p]; there {
			t.Errorf("%s says that it let %s go, and it is there", name, p)
		}
	}
	for p := range after {
		if _, had := before[p]; !had && path.Dir(p) != journalDir && !strings.HasSuffix(p, ".gz") {
			t.Errorf("%s made %s", name, p)
		}
	}
}
