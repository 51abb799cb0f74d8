package segment

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func made(t testing.TB, first int64, texts ...string) (Ref, []byte) {
	t.Helper()
	var lines [][]byte
	for _, text := range texts {
		lines = append(lines, fmt.Appendf(nil, "{%q:1}", text))
	}
	r, data, err := Make(Log, first, "before", "after", lines)
	if err != nil {
		t.Fatal(err)
	}
	return r, data
}

func open(t *testing.T) *Folder {
	t.Helper()
	f, err := Open(filepath.Join(t.TempDir(), "segments"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestPutAndLoad(t *testing.T) {
	f := open(t)
	r, data := made(t, 7, "a", "b")
	if r.Last != 8 || r.Lines() != 2 || f.Has(r) {
		t.Errorf("%+v", r)
	}
	for range 2 { // again changes nothing
		if err := f.Put(r, data); err != nil {
			t.Fatal(err)
		}
	}
	lines, err := f.Load(r)
	if err != nil || len(lines) != 2 || string(lines[1]) != `{"b":1}` || !f.Has(r) {
		t.Errorf("%q, %v", lines, err)
	}
	again, same := made(t, 7, "a", "b")
	if again != r || !bytes.Equal(data, same) {
		t.Error("the same lines make another file")
	}
	other, _ := made(t, 7, "a", "c")
	if other.Name() == r.Name() {
		t.Error("other lines make the same name")
	}
	if _, err := f.Load(other); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), other.Name()) || !strings.Contains(err.Error(), "log 7 to 8") {
		t.Errorf("one that is missing: %v", err)
	}
}

// TestAltered: whatever is done to a file, nothing is read out of it; a good copy takes
// its place, and it is kept as evidence.
func TestAltered(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{
		"a bit":  func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"cut":    func(b []byte) []byte { return b[:len(b)-3] },
		"longer": func(b []byte) []byte { return append(b, "{}\n"...) },
		"empty":  func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			r, data := made(t, 1, "a", "b", "c")
			if err := f.Put(r, data); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(f.path(r), change(bytes.Clone(data)), 0o600); err != nil {
				t.Fatal(err)
			}
			var bad *Bad
			if lines, err := f.Load(r); !errors.As(err, &bad) || lines != nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%q, %v", lines, err)
			}
			if err := f.Put(r, change(bytes.Clone(data))); !errors.As(err, &bad) {
				t.Errorf("put what is not it: %v", err)
			}
			if err := f.Put(r, data); err != nil {
				t.Fatal(err)
			}
			if _, err := f.Load(r); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(f.path(r) + ".aside0"); err != nil {
				t.Errorf("the altered one is gone: %v", err)
			}
		})
	}
}

func TestTrim(t *testing.T) {
	f := open(t)
	a, dataA := made(t, 1, "a")
	b, dataB := made(t, 2, "b")
	if err := errors.Join(f.Put(a, dataA), f.Put(b, dataB), os.WriteFile(f.path(a)+half, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	again, err := Open(f.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Trim(func(name string) bool { return name == b.Name() }); err != nil || again.Has(a) || !again.Has(b) {
		t.Errorf("%v %v %v", err, again.Has(a), again.Has(b))
	}
	if list, err := os.ReadDir(f.Dir()); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestMakeRefuses(t *testing.T) {
	for name, lines := range map[string][][]byte{"none": nil, "an empty line": {{}}, "two in one": {[]byte("a\nb")}} {
		if r, _, err := Make(Incidents, 1, "", "", lines); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	r, _ := made(f, 1, "a")
	f.Add(fmt.Appendf(nil, `{"kind":"log","first":1,"last":1,"sha256":%q,"bytes":9}`, r.SHA256))
	f.Add([]byte(`{"kind":"../../x","first":1,"last":1,"sha256":"00","bytes":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRef(data)
		if err == nil && (filepath.Base(r.Name()) != r.Name() || r.Lines() < 1) {
			t.Errorf("%+v can be used", r)
		}
	})
}

func FuzzParse(f *testing.F) {
	r, data := made(f, 1, "a", "b")
	f.Add(data)
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, got []byte) {
		lines, err := Parse(r, got)
		if (err == nil) != bytes.Equal(got, data) || err == nil && len(lines) != 2 {
			t.Errorf("%q: %q, %v", got, lines, err)
		}
	})
}
