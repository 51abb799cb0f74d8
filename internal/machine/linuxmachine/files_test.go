package linuxmachine

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"fettle/internal/machine"
	"fettle/internal/machine/machinetest"
)

func TestFiles(t *testing.T) {
	machinetest.RunFiles(t, func(t *testing.T) (machine.Files, string) {
		return open(t).Ports().Files, t.TempDir()
	})
}

func TestWritersFollowNoLinks(t *testing.T) {
	f, dir := open(t).Ports().Files, t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(target, []byte("old"), 0o600), os.Symlink(target, link)); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteFile(t.Context(), link, []byte("new"), 0o600); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("write to a link: %v, want ELOOP", err)
	}
	if _, err := f.Create(t.Context(), link, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create on a link: %v, want fs.ErrExist", err)
	}
	if got, err := f.ReadFile(t.Context(), link, 10); err != nil || string(got) != "old" {
		t.Errorf("read through a link: %q, %v", got, err)
	}
	if err := f.Rename(t.Context(), target, link); !errors.Is(err, fs.ErrExist) {
		t.Errorf("rename over a link: %v, want fs.ErrExist", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestReadsOnlyRegularFiles(t *testing.T) {
	f, dir := open(t).Ports().Files, t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadFile(t.Context(), fifo, 10); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("read of a pipe that nobody writes: %v, want EINVAL at once", err)
	}
	if err := f.WriteFile(t.Context(), fifo, nil, 0o600); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("write over a pipe: %v, want EINVAL", err)
	}
}

func TestRenameByHand(t *testing.T) {
	dir := t.TempDir()
	p := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.WriteFile(p("a"), []byte("1"), 0o600), os.Mkdir(p("d"), 0o700), os.Mkdir(p("e"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		from, to string
		want     error
	}{
		{"a", "b", nil}, {"b", "d", fs.ErrExist}, {"d", "f", nil}, {"f", "e", fs.ErrExist}, {"none", "g", fs.ErrNotExist},
	} {
		if err := renameByHand(p(tt.from), p(tt.to)); !errors.Is(err, tt.want) {
			t.Errorf("%s to %s: %v, want %v", tt.from, tt.to, err, tt.want)
		}
	}
	if got, err := os.ReadFile(p("b")); err != nil || string(got) != "1" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestChownRefusesSecondNames(t *testing.T) {
	f, dir := open(t).Ports().Files, t.TempDir()
	outside := filepath.Join(dir, "outside")
	tree := filepath.Join(dir, "tree")
	if err := errors.Join(os.WriteFile(outside, nil, 0o600), os.Mkdir(tree, 0o700), os.Link(outside, filepath.Join(tree, "x")),
		os.Symlink(outside, filepath.Join(tree, "link"))); err != nil {
		t.Fatal(err)
	}
	// To somebody else: refused for the file with two names before anything is
	// asked of the kernel, so also when this is not root.
	err := f.Chown(t.Context(), filepath.Join(tree, "x"), 12345, 12345, true)
	if !errors.Is(err, syscall.EMLINK) {
		t.Errorf("a file with two names: %v, want EMLINK", err)
	}
	if st, err := f.Stat(t.Context(), outside); err != nil || st.UID != os.Getuid() {
		t.Errorf("the other name changed hands: %+v, %v", st, err)
	}
	// To the present owner it may stay, and links are not followed.
	if err := f.Chown(t.Context(), tree, os.Getuid(), os.Getgid(), true); err != nil {
		t.Error(err)
	}
}

// A call that the kernel does not answer ends with its context, leaves one
// goroutine, and after a few no more are made to that mount; other mounts work.
func TestHungCalls(t *testing.T) {
	l := &lanes{mountOf: func(p string) string { return "/" + strings.SplitN(p, "/", 3)[1] }}
	release := make(chan struct{})
	returned := make(chan string, maxStuck)
	for range maxStuck {
		ctx, cancel := context.WithCancel(t.Context())
		entered := make(chan struct{})
		go func() {
			<-entered
			cancel()
		}()
		_, err := call(ctx, l, "read", "/nfs/x", func() (string, error) {
			close(entered)
			<-release
			return "late", nil
		}, func(s string) { returned <- s })
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("hung call: %v, want the context's error", err)
		}
	}
	if _, err := call(t.Context(), l, "read", "/nfs/y", func() (int, error) { t.Error("called"); return 0, nil }, nil); !errors.Is(err, machine.ErrHung) {
		t.Errorf("one more: %v, want ErrHung", err)
	}
	if n, err := call(t.Context(), l, "read", "/var/y", func() (int, error) { return 7, nil }, nil); n != 7 || err != nil {
		t.Errorf("another mount: %d, %v", n, err)
	}
	close(release)
	for range maxStuck {
		if s := <-returned; s != "late" {
			t.Errorf("discarded %q", s)
		}
	}
	if n, err := call(t.Context(), l, "read", "/nfs/y", func() (int, error) { return 7, nil }, nil); n != 7 || err != nil {
		t.Errorf("once they came back: %d, %v", n, err)
	}
}

func TestStreamEndsWithContext(t *testing.T) {
	f, dir := open(t).Ports().Files, t.TempDir()
	p := filepath.Join(dir, "a")
	if err := os.WriteFile(p, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := f.Open(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(make([]byte, 10)); n != 10 || err != nil {
		t.Fatal(n, err)
	}
	cancel()
	if _, err := r.Read(make([]byte, 10)); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := io.ReadAll(r); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
}

func TestFilesystems(t *testing.T) {
	h := open(t)
	s := h.Ports().Filesystems
	mounts, err := s.Mounts(t.Context())
	if err != nil || !slices.ContainsFunc(mounts, func(m machine.Mount) bool { return m.Point == "/proc" && m.Type == "proc" }) {
		t.Fatalf("%d mounts without /proc, %v", len(mounts), err)
	}
	dir := t.TempDir()
	u, err := s.Usage(t.Context(), dir)
	if err != nil || u.Size <= 0 || u.Free < u.Avail || u.Free > u.Size {
		t.Errorf("usage %+v, %v", u, err)
	}
	if _, err := s.Usage(t.Context(), filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("usage of nothing: %v", err)
	}
	if err := s.CheckWrite(t.Context(), dir); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("the write check left %v, %v", entries, err)
	}
	if err := s.CheckWrite(t.Context(), "/proc"); err == nil {
		t.Error("a write check in /proc succeeded")
	}
	if got := h.table.pointOf("/proc/self/stat"); got != "/proc" {
		t.Errorf("/proc/self/stat is on %s", got)
	}
	if got := h.table.pointOf("/procfoo"); got == "/proc" {
		t.Error("/procfoo is on /proc")
	}
}

func TestWatchMountsTellsThePresentAndEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := open(t).Ports().Filesystems.WatchMounts(ctx, func(m []machine.Mount) {
		n = len(m)
		cancel()
	})
	if n == 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("told %d mounts, ended with %v", n, err)
	}
}
