package filesystem_test

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"fettle/internal/adapter/filesystem"
	"fettle/internal/fettle"
	"fettle/internal/machine"
	"fettle/internal/machine/memmachine"
)

func probe(t *testing.T, m machine.Machine, name string) fettle.Probe {
	t.Helper()
	in, err := filesystem.Adapter{}.Open(t.Context(), m, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range in.Probes() {
		if p.Spec().Name == name {
			return p
		}
	}
	t.Fatalf("no probe %s", name)
	return nil
}

func look(t *testing.T, m machine.Machine, name string, s fettle.Subject) fettle.Observation {
	t.Helper()
	for _, o := range probe(t, m, name).Observe(t.Context(), s) {
		if o.Subject == s {
			return o
		}
	}
	t.Fatalf("%s says nothing of %s", name, s)
	return fettle.Observation{}
}

// change changes /var.
func (h *host) change(f func(*memmachine.Filesystem)) {
	fsys, _ := h.Filesystem("/var")
	f(&fsys)
	h.SetFilesystem(fsys)
}

func TestUsage(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*host)
		want    fettle.Facts
		absent  []string
	}{
		"well": {
			prepare: func(*host) {},
			want:    fettle.Facts{"type": "ext4", "source": "/dev/vdb", "size_bytes": int64(24 << 20), "read_only": false, "write_error": "", "inodes": int64(4096)},
		},
		"full": {
			prepare: func(h *host) { h.change(func(f *memmachine.Filesystem) { f.Used = 24 << 20 }) },
			want:    fettle.Facts{"used_permille": int64(1000), "write_error": "ENOSPC", "avail_bytes": int64(0), "read_only": false},
		},
		"full but for what is reserved": {
			prepare: func(h *host) { h.change(func(f *memmachine.Filesystem) { f.Reserved = 24 << 20 }) },
			want:    fettle.Facts{"used_permille": int64(1000), "avail_bytes": int64(0), "write_error": "ENOSPC"},
		},
		"no inodes": {
			prepare: func(h *host) { h.change(func(f *memmachine.Filesystem) { f.UsedNow = 4096 }) },
			want:    fettle.Facts{"inodes_free": int64(0), "inodes_used_permille": int64(1000), "write_error": "ENOSPC"},
		},
		"read-only after an error": {
			prepare: func(h *host) { h.change(func(f *memmachine.Filesystem) { f.Mount.SuperOptions = []string{"ro"} }) },
			want:    fettle.Facts{"read_only": true, "write_error": "EROFS"},
		},
		"shown read-only at one place": {
			prepare: func(h *host) { h.change(func(f *memmachine.Filesystem) { f.Mount.Options = []string{"ro"} }) },
			want:    fettle.Facts{"read_only": false, "write_error": ""},
		},
		"emergency_ro, still showing rw": {
			prepare: func(h *host) {
				h.change(func(f *memmachine.Filesystem) { f.Mount.SuperOptions = []string{"rw", "emergency_ro"} })
			},
			want: fettle.Facts{"read_only": true, "write_error": "EROFS"},
		},
		"read-only as fstab wants it": {
			prepare: func(h *host) {
				h.Put("/etc/fstab", []byte("/dev/vdb /var ext4 ro 0 0\n"), 0o644)
				h.change(func(f *memmachine.Filesystem) { f.Mount.SuperOptions = []string{"ro"} })
			},
			want: fettle.Facts{"read_only": false},
		},
		"shut down, still answering and showing rw": {
			prepare: func(h *host) {
				h.change(func(f *memmachine.Filesystem) { f.Mount.SuperOptions = []string{"rw", "shutdown"} })
			},
			want: fettle.Facts{"read_only": false, "write_error": "EIO"},
		},
		"shut down: what does not answer is not zero": {
			prepare: func(h *host) { h.change(func(f *memmachine.Filesystem) { f.Dead = true }) },
			want:    fettle.Facts{"write_error": "EIO", "read_only": false},
			absent:  []string{"used_permille", "inodes_used_permille", "size_bytes", "avail_bytes", "free_bytes", "inodes", "inodes_free"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			c.prepare(h)
			o := look(t, h.ports, "filesystem.usage", varFS)
			for fact, v := range c.want {
				if !fettle.EqualValue(o.Facts[fact], v) {
					t.Errorf("%s is %v, want %v", fact, o.Facts[fact], v)
				}
			}
			for _, fact := range c.absent {
				if v, there := o.Facts[fact]; there {
					t.Errorf("%s is %v; nobody knows", fact, v)
				}
			}
			if want := (fettle.Edge{From: varFS, Rel: fettle.RunsOn, To: "host:h1"}); !slices.Contains(o.Edges, want) {
				t.Errorf("edges %v", o.Edges)
			}
		})
	}
}

// untouched are filesystems on which nobody may try a write.
type untouched struct {
	machine.Filesystems
	t *testing.T
}

func (u untouched) CheckWrite(_ context.Context, point string) error {
	u.t.Errorf("a write was tried on %s", point)
	return nil
}

// TestUsageWritesNothing: looking at healthy filesystems is reading.
func TestUsageWritesNothing(t *testing.T) {
	h := newHost(t)
	h.ports.Filesystems = untouched{h.ports.Filesystems, t}
	if o := look(t, h.ports, "filesystem.usage", varFS); !o.Known() {
		t.Error(o)
	}
}

// TestHungFilesystemHidesNoOther: one that hangs makes only itself unknown.
func TestHungFilesystemHidesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.change(func(f *memmachine.Filesystem) { f.Hung = true })
		for _, name := range []string{"filesystem.usage", "filesystem.fill"} {
			p := probe(t, h.ports, name)
			ctx, cancel := context.WithTimeout(t.Context(), p.Spec().Timeout)
			seen := map[fettle.Subject]fettle.Observation{}
			for _, o := range p.Observe(ctx, varFS, rootFS) {
				seen[o.Subject] = o
			}
			if ctx.Err() != nil {
				t.Errorf("%s is late", name)
			}
			cancel()
			if o := seen[varFS]; o.Known() || o.Reason != fettle.TimedOut {
				t.Errorf("%s of the one that hangs: %+v", name, o)
			}
			if name == "filesystem.usage" && !seen[rootFS].Known() {
				t.Errorf("%s of the other: %+v", name, seen[rootFS])
			}
		}
	})
}

func TestNotOurs(t *testing.T) {
	h := newHost(t)
	for _, name := range []string{"filesystem.usage", "filesystem.fill"} {
		if o := look(t, h.ports, name, "filesystem:h1/%2Fmnt"); !o.Gone {
			t.Errorf("%s of what is not mounted: %+v", name, o)
		}
		for _, s := range []fettle.Subject{"filesystem:h2/%2Fvar", "unit:h1/a.service"} {
			if o := look(t, h.ports, name, s); o.Gone || o.Reason != fettle.NotSupported {
				t.Errorf("%s of %s: %+v", name, s, o)
			}
		}
	}
}

func TestFill(t *testing.T) {
	h := newHost(t)
	h.hold(t, reloadUnit, 3<<20)
	o := look(t, h.ports, "filesystem.fill", varFS)
	want := fettle.Facts{
		"journal_bytes": int64(5 << 20), "journal_limit_bytes": int64(1 << 20), "package_cache_bytes": int64(3 << 20), "rotated_log_bytes": int64(180224),
		"deleted_open_bytes": int64(3 << 20), "deleted_holder": reloadUnit, "deleted_holder_pid": h.reload, "deleted_path": "/var/lib/app/deleted-of-app.service",
		"biggest": []string{"2097152 /var/lib/app/big", "4096 /var/lib/app/precious", "4096 /var/log/app.log", "0 /var/cache/apt/archives/lock"},
	}
	for fact, v := range want {
		if !fettle.EqualValue(o.Facts[fact], v) {
			t.Errorf("%s is %v, want %v", fact, o.Facts[fact], v)
		}
	}

	// It looks by itself only at what is nearly full.
	if list := probe(t, h.ports, "filesystem.fill").Observe(t.Context()); len(list) > 0 {
		t.Errorf("nothing is nearly full, and it looked at %v", list)
	}
	h.change(func(f *memmachine.Filesystem) { f.Used = 9 << 20 })
	if list := probe(t, h.ports, "filesystem.fill").Observe(t.Context()); len(list) != 1 || list[0].Subject != varFS {
		t.Errorf("only /var is nearly full, and it looked at %v", list)
	}
}

// TestJournalLimit: the main file of the first folder that has one, then the
// drop-ins by name, of which the first folder's counts.
func TestJournalLimit(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  int64 // -1: unknown
	}{
		"a tenth of the filesystem": {nil, 24 << 20 / 10},
		"the main file":             {map[string]string{"/etc/systemd/journald.conf": "[Journal]\nSystemMaxUse=3M"}, 3 << 20},
		"of the distribution":       {map[string]string{"/usr/lib/systemd/journald.conf": "SystemMaxUse=3M", "/etc/systemd/journald.conf": "[Journal]\n"}, 24 << 20 / 10},
		"the last drop-in": {map[string]string{
			"/etc/systemd/journald.conf": "SystemMaxUse=3M", "/usr/lib/systemd/journald.conf.d/b.conf": "SystemMaxUse=5M", "/etc/systemd/journald.conf.d/a.conf": "SystemMaxUse=4M",
		}, 5 << 20},
		"a drop-in hidden by another": {map[string]string{
			"/usr/lib/systemd/journald.conf.d/b.conf": "SystemMaxUse=5M", "/etc/systemd/journald.conf.d/b.conf": "",
		}, 24 << 20 / 10},
		"no drop-in":                 {map[string]string{"/etc/systemd/journald.conf.d/b.conf.bak": "SystemMaxUse=5M"}, 24 << 20 / 10},
		"without limit":              {map[string]string{"/etc/systemd/journald.conf": "SystemMaxUse=0"}, 24 << 20},
		"what is no size":            {map[string]string{"/etc/systemd/journald.conf": "SystemMaxUse=most"}, -1},
		"a folder instead of a file": {map[string]string{"/etc/systemd/journald.conf/x": ""}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			for _, p := range []string{"/etc/systemd/journald.conf", "/etc/systemd/journald.conf.d/size.conf"} {
				if err := h.ports.Files.Remove(t.Context(), p); err != nil {
					t.Fatal(err)
				}
			}
			for p, text := range c.files {
				h.Put(p, []byte(text), 0o644)
			}
			got, known := look(t, h.ports, "filesystem.fill", varFS).Facts.Int("journal_limit_bytes")
			if known != (c.want >= 0) || known && got != c.want {
				t.Errorf("%d, %v; want %d", got, known, c.want)
			}
		})
	}
}

// TestFillLeavesOutWhatItCannotSee: no fact says zero of what could not be read.
func TestFillLeavesOutWhatItCannotSee(t *testing.T) {
	for fact, dir := range map[string]string{"journal_bytes": journalDir, "package_cache_bytes": archives, "rotated_log_bytes": "/var/log"} {
		h := newHost(t)
		h.ports.Files = failing{Files: h.ports.Files, list: dir, err: syscall.EACCES}
		o := look(t, h.ports, "filesystem.fill", varFS)
		if v, there := o.Facts[fact]; there || !o.Known() {
			t.Errorf("%s is %v of %+v", fact, v, o)
		}
	}
}

// TestWatchTellsMounts: what is mounted and unmounted is told at once.
func TestWatchTellsMounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		in, err := filesystem.Adapter{}.Open(t.Context(), h.ports, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		told := map[fettle.Subject]fettle.Observation{}
		done := make(chan error, 1)
		go func() {
			done <- in.Watchers()[0].Watch(ctx, func(o fettle.Observation) { told[o.Subject] = o })
		}()
		synctest.Wait()
		if len(told) != 2 || !told[varFS].Known() || !told[rootFS].Known() {
			t.Errorf("at first it should tell what there is, and tells %v", told)
		}
		h.SetFilesystem(memmachine.Filesystem{Mount: machine.Mount{ID: 9, Point: "/srv", Root: "/", Type: "xfs", Device: 9}, Size: 1 << 30})
		h.SetFilesystem(memmachine.Filesystem{Mount: machine.Mount{ID: 10, Point: "/proc", Root: "/", Type: "proc", Device: 10}})
		synctest.Wait()
		if o := told["filesystem:h1/%2Fsrv"]; !o.Known() || o.Facts["type"] != "xfs" || len(told) != 3 {
			t.Errorf("of a new mount it tells %v", told)
		}
		h.Unmount("/srv")
		synctest.Wait()
		if !told["filesystem:h1/%2Fsrv"].Gone {
			t.Errorf("of an unmounted one it tells %v", told["filesystem:h1/%2Fsrv"])
		}
		cancel()
		<-done
	})
}

// TestEachDeviceOnce: bind mounts and containers show a filesystem many times.
func TestEachDeviceOnce(t *testing.T) {
	h := newHost(t)
	h.SetFilesystem(memmachine.Filesystem{Mount: machine.Mount{ID: 1, Point: "/early-bind", Root: "/lib", Type: "ext4", Device: 2}, Size: 1})
	h.SetFilesystem(memmachine.Filesystem{Mount: machine.Mount{ID: 7, Point: "/again", Root: "/", Type: "ext4", Device: 2}, Size: 1})
	var names []string
	for _, o := range probe(t, h.ports, "filesystem.usage").Observe(t.Context()) {
		names = append(names, string(o.Subject))
	}
	slices.Sort(names)
	if got := strings.Join(names, " "); got != string(rootFS)+" "+string(varFS) {
		t.Errorf("it looks at %s", got)
	}
}

func TestDiscover(t *testing.T) {
	h := newHost(t)
	found, err := filesystem.Adapter{}.Discover(t.Context(), h.ports)
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	if _, err := (filesystem.Adapter{}).Open(t.Context(), h.ports, found[0].Config); err != nil {
		t.Errorf("what it proposes does not open: %v", err)
	}
	ctx, cancel := context.WithDeadline(t.Context(), time.Time{})
	defer cancel()
	if _, err := (filesystem.Adapter{}).Discover(ctx, h.ports); err == nil {
		t.Error("it could not look, and proposes something")
	}
}
