package machinetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"syscall"
	"testing"

	"fettle/internal/machine"
)

// RunFiles runs the suite for Files in an empty directory that open gives.
func RunFiles(t *testing.T, open func(t *testing.T) (files machine.Files, dir string)) {
	tests := []struct {
		name string
		run  func(t *testing.T, f machine.Files, dir string)
	}{
		{"WriteAndRead", testWriteAndRead},
		{"ReplaceKeepsMode", testReplaceKeepsMode},
		{"ReadLimit", testReadLimit},
		{"ReadRefusals", testReadRefusals},
		{"StatAndReadDir", testStatAndReadDir},
		{"Rename", testRename},
		{"MkdirAll", testMkdirAll},
		{"Remove", testRemove},
		{"Stream", testStream},
		{"Chown", testChown},
		{"RelativePaths", testRelativePaths},
		{"EndedContext", testEndedContext},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, dir := open(t)
			tt.run(t, f, dir)
		})
	}
}

func mustWrite(t *testing.T, f machine.Files, p, data string) {
	t.Helper()
	if err := f.WriteFile(t.Context(), p, []byte(data), 0o640); err != nil {
		t.Fatal(err)
	}
}

func wantContent(t *testing.T, f machine.Files, p, want string) {
	t.Helper()
	got, err := f.ReadFile(t.Context(), p, 1<<20)
	if err != nil || string(got) != want {
		t.Errorf("%s holds %q, %v; want %q", p, got, err, want)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func wantNames(t *testing.T, f machine.Files, dir string, want ...string) {
	t.Helper()
	list, err := f.ReadDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, s := range list {
		got = append(got, s.Name)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s has %v, want %v", dir, got, want)
	}
}

func testWriteAndRead(t *testing.T, f machine.Files, dir string) {
	p := path.Join(dir, "a")
	mustWrite(t, f, p, "one")
	wantContent(t, f, p, "one")
	mustWrite(t, f, p, "")
	wantContent(t, f, p, "")
	wantNames(t, f, dir, "a")
	wantErr(t, "write in a missing directory", f.WriteFile(t.Context(), path.Join(dir, "x/y"), nil, 0o600), fs.ErrNotExist)
	wantErr(t, "write over a directory", f.WriteFile(t.Context(), dir, nil, 0o600), syscall.EISDIR)
	wantNames(t, f, dir, "a")
}

func testReplaceKeepsMode(t *testing.T, f machine.Files, dir string) {
	p := path.Join(dir, "a")
	mustWrite(t, f, p, "one")
	before, err := f.Stat(t.Context(), p)
	if err != nil || before.Mode != 0o640 {
		t.Fatalf("mode %v, %v; want 0640 whatever the umask", before.Mode, err)
	}
	if err := f.WriteFile(t.Context(), p, []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	after, err := f.Stat(t.Context(), p)
	if err != nil || after.Mode != 0o640 || after.UID != before.UID || after.Inode == before.Inode {
		t.Errorf("replaced: %+v, %v; want the old mode and owner in a new file", after, err)
	}
}

func testReadLimit(t *testing.T, f machine.Files, dir string) {
	p := path.Join(dir, "a")
	mustWrite(t, f, p, "12345")
	if b, err := f.ReadFile(t.Context(), p, 5); err != nil || len(b) != 5 {
		t.Errorf("as long as the limit: %q, %v", b, err)
	}
	_, err := f.ReadFile(t.Context(), p, 4)
	wantErr(t, "longer than the limit", err, syscall.EFBIG)
}

func testReadRefusals(t *testing.T, f machine.Files, dir string) {
	_, err := f.ReadFile(t.Context(), path.Join(dir, "none"), 10)
	wantErr(t, "read of a missing file", err, fs.ErrNotExist)
	if err != nil && !strings.Contains(err.Error(), "none") {
		t.Errorf("the error does not name the file: %v", err)
	}
	_, err = f.ReadFile(t.Context(), dir, 10)
	wantErr(t, "read of a directory", err, syscall.EISDIR)
	_, err = f.Open(t.Context(), path.Join(dir, "none"))
	wantErr(t, "open of a missing file", err, fs.ErrNotExist)
	_, err = f.ReadDir(t.Context(), path.Join(dir, "none"))
	wantErr(t, "list of a missing directory", err, fs.ErrNotExist)
	mustWrite(t, f, path.Join(dir, "a"), "")
	_, err = f.ReadDir(t.Context(), path.Join(dir, "a"))
	wantErr(t, "list of a file", err, syscall.ENOTDIR)
}

func testStatAndReadDir(t *testing.T, f machine.Files, dir string) {
	mustWrite(t, f, path.Join(dir, "b"), strings.Repeat("x", 5000))
	mustWrite(t, f, path.Join(dir, "a"), "1")
	if err := f.MkdirAll(t.Context(), path.Join(dir, "c"), 0o750); err != nil {
		t.Fatal(err)
	}
	wantNames(t, f, dir, "a", "b", "c")
	list, err := f.ReadDir(t.Context(), dir)
	if err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
	b, c := list[1], list[2]
	if b.Bytes != 5000 || b.Allocated < 5000 || b.Links != 1 || b.Inode == 0 || b.Modified.IsZero() || !b.Mode.IsRegular() {
		t.Errorf("file: %+v", b)
	}
	if !c.Mode.IsDir() || c.Mode.Perm() != 0o750 {
		t.Errorf("directory: %v", c.Mode)
	}
	if one, err := f.Stat(t.Context(), path.Join(dir, "b")); err != nil || one != b {
		t.Errorf("Stat %+v, %v; ReadDir %+v", one, err, b)
	}
	if d, err := f.Stat(t.Context(), dir); err != nil || !d.Mode.IsDir() || d.Device != b.Device {
		t.Errorf("directory: %+v, %v", d, err)
	}
}

func testRename(t *testing.T, f machine.Files, dir string) {
	a, b := path.Join(dir, "a"), path.Join(dir, "b")
	mustWrite(t, f, a, "one")
	if err := f.Rename(t.Context(), a, b); err != nil {
		t.Fatal(err)
	}
	wantNames(t, f, dir, "b")
	mustWrite(t, f, a, "two")
	wantErr(t, "rename over a file", f.Rename(t.Context(), a, b), fs.ErrExist)
	wantContent(t, f, b, "one")
	wantErr(t, "rename of nothing", f.Rename(t.Context(), path.Join(dir, "none"), path.Join(dir, "c")), fs.ErrNotExist)

	// A whole directory, into another one.
	data, aside := path.Join(dir, "data"), path.Join(dir, "aside")
	for _, d := range []string{data, aside} {
		if err := f.MkdirAll(t.Context(), d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mustWrite(t, f, path.Join(data, "wal"), "w")
	wantErr(t, "rename over an empty directory", f.Rename(t.Context(), data, aside), fs.ErrExist)
	wantErr(t, "rename into itself", f.Rename(t.Context(), data, path.Join(data, "in")), syscall.EINVAL)
	if err := f.Rename(t.Context(), data, path.Join(aside, "data.1")); err != nil {
		t.Fatal(err)
	}
	wantContent(t, f, path.Join(aside, "data.1/wal"), "w")
	wantNames(t, f, dir, "a", "aside", "b")
}

func testMkdirAll(t *testing.T, f machine.Files, dir string) {
	p := path.Join(dir, "x/y/z")
	for range 2 {
		if err := f.MkdirAll(t.Context(), p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"x", "x/y", "x/y/z"} {
		if s, err := f.Stat(t.Context(), path.Join(dir, d)); err != nil || s.Mode != fs.ModeDir|0o777 {
			t.Errorf("%s: %v, %v; want mode 0777 whatever the umask", d, s.Mode, err)
		}
	}
	mustWrite(t, f, path.Join(dir, "file"), "")
	wantErr(t, "mkdir where a file is", f.MkdirAll(t.Context(), path.Join(dir, "file"), 0o755), syscall.ENOTDIR)
	wantErr(t, "mkdir below a file", f.MkdirAll(t.Context(), path.Join(dir, "file/d"), 0o755), syscall.ENOTDIR)
}

func testRemove(t *testing.T, f machine.Files, dir string) {
	d := path.Join(dir, "d")
	if err := f.MkdirAll(t.Context(), d, 0o755); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, f, path.Join(d, "a"), "1")
	wantErr(t, "remove of a directory that is not empty", f.Remove(t.Context(), d), syscall.ENOTEMPTY)
	for _, p := range []string{path.Join(d, "a"), d} {
		if err := f.Remove(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	wantErr(t, "remove of nothing", f.Remove(t.Context(), d), fs.ErrNotExist)
	wantNames(t, f, dir)
}

func testStream(t *testing.T, f machine.Files, dir string) {
	p := path.Join(dir, "s")
	w, err := f.Create(t.Context(), p, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	block := bytes.Repeat([]byte("0123456789abcdef"), 8192) // 128 KiB
	for range 3 {
		if n, err := w.Write(block); n != len(block) || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(block); err == nil {
		t.Error("write after close succeeded")
	}
	if s, err := f.Stat(t.Context(), p); err != nil || s.Mode != 0o600 {
		t.Errorf("mode %v, %v", s.Mode, err)
	}
	_, err = f.Create(t.Context(), p, 0o600)
	wantErr(t, "create of a file that is there", err, fs.ErrExist)

	r, err := f.Open(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, bytes.Repeat(block, 3)) {
		t.Errorf("read %d bytes, %v; want %d", len(got), err, 3*len(block))
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read after close: %v", err)
	}
}

func testChown(t *testing.T, f machine.Files, dir string) {
	p := path.Join(dir, "d/e")
	if err := f.MkdirAll(t.Context(), p, 0o755); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, f, path.Join(p, "a"), "1")
	s, err := f.Stat(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	// To the present owner: also an ordinary user may do that.
	if err := f.Chown(t.Context(), path.Join(dir, "d"), s.UID, s.GID, true); err != nil {
		t.Error(err)
	}
	wantErr(t, "chown of nothing", f.Chown(t.Context(), path.Join(dir, "none"), s.UID, s.GID, true), fs.ErrNotExist)
}

func testRelativePaths(t *testing.T, f machine.Files, dir string) {
	_, err := f.ReadFile(t.Context(), "etc/hostname", 100)
	wantErr(t, "relative path", err, syscall.EINVAL)
	wantErr(t, "relative path", f.WriteFile(t.Context(), "x", nil, 0o600), syscall.EINVAL)
	wantErr(t, "relative target", f.Rename(t.Context(), path.Join(dir, "a"), "b"), syscall.EINVAL)
	_, err = f.Stat(t.Context(), "")
	wantErr(t, "empty path", err, syscall.EINVAL)
}

func testEndedContext(t *testing.T, f machine.Files, dir string) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := f.Stat(ctx, dir)
	wantErr(t, "Stat", err, context.Canceled)
	wantErr(t, "WriteFile", f.WriteFile(ctx, path.Join(dir, "a"), nil, 0o600), context.Canceled)
	wantErr(t, "MkdirAll", f.MkdirAll(ctx, path.Join(dir, "b"), 0o700), context.Canceled)
	wantNames(t, f, dir)
}
