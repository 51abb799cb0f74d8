package runbook

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/runbook/pretend"
	"fettle/internal/judge/runbook/yamlfile"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func ring(t testing.TB) *expr.Env {
	t.Helper()
	env, err := expr.New(pretend.Catalogues())
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; write it with: go test ./internal/judge/runbook -update", err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}

// Every file in testdata/bad has mistakes; its golden file lists all of them,
// with place, line and hint.
func TestBadRunbooks(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	env := ring(t)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(filepath.Base(file), src, env, pretend.Catalogues())
			var e *yamlfile.Error
			if !errors.As(err, &e) {
				t.Fatalf("want a *yamlfile.Error, got %v", err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".txt", e.Error()+"\n")
		})
	}
}

func load(t testing.TB) *Set {
	t.Helper()
	set, err := Load(os.DirFS("testdata/good"), ring(t), pretend.Catalogues())
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestLoad(t *testing.T) {
	set := load(t)
	var names []string
	for _, b := range set.All() {
		names = append(names, b.Name)
	}
	if d := cmp.Diff([]string{"ring.data_lost", "ring.member_down"}, names); d != "" {
		t.Error(d)
	}
	if got := set.For("ring.data_lost"); len(got) != 1 || got[0].Name != "ring.data_lost" {
		t.Errorf("For: %v", got)
	}
	if got := set.For("ring.slow"); got != nil {
		t.Errorf("For a condition without a runbook: %v", got)
	}
	if d := cmp.Diff([]fettle.Code{"box.unit_failed", "ring.slow"}, set.Uncovered(pretend.Catalogues())); d != "" {
		t.Error("Uncovered:", d)
	}
	b, ok := set.Named("ring.data_lost")
	if !ok {
		t.Fatal("Named")
	}
	r := b.Rungs[0]
	if d := cmp.Diff([]fettle.Taking{fettle.TakesData, fettle.TakesVotes}, r.Takes()); d != "" {
		t.Error("Takes:", d)
	}
	if r.Risk() != fettle.MediumRisk || b.Rungs[1].Risk() != fettle.HighRisk {
		t.Errorf("Risk: %s, %s", r.Risk(), b.Rungs[1].Risk())
	}
	if i, ok := b.Rung("wipe"); !ok || i != 1 {
		t.Errorf("Rung: %d %v", i, ok)
	}
	if late := r.Steps[4].With[0].Late; late == nil || *late != (fettle.Late{Param: "id", Step: "add", Output: "id", Type: fettle.StringFact}) {
		t.Errorf("Late: %+v", late)
	}
	if r.Steps[1].Fresh != DefaultFresh {
		t.Errorf("Fresh: %v", r.Steps[1].Fresh)
	}
}

// A set names every file that is wrong, and refuses two runbooks of one name.
// Tests of runbooks and files of other names are no runbooks.
func TestLoadRefuses(t *testing.T) {
	good, err := fs.ReadFile(os.DirFS("testdata/good"), "ring/member_down.yaml")
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{
		"ring/a.yaml":      {Data: good},
		"ring/b.yaml":      {Data: good},
		"ring/c.yaml":      {Data: []byte("runbook: 5\n")},
		"ring/d.yaml":      {Data: []byte("{")},
		"ring/e_test.yaml": {Data: []byte("{")},
		"ring/f.txt":       {Data: []byte("{")},
	}
	_, err = Load(files, ring(t), pretend.Catalogues())
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`ring/b.yaml: runbook "ring.member_down" is also in ring/a.yaml`, "ring/c.yaml:1:10", "ring/d.yaml:1:1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "_test") || strings.Contains(err.Error(), "txt") {
		t.Error("it read what is no runbook:", err)
	}
}

// The hash of a set tells any change of any byte, and nothing else.
func TestSetHash(t *testing.T) {
	src, err := os.ReadFile("testdata/good/ring/member_down.yaml")
	if err != nil {
		t.Fatal(err)
	}
	hash := func(src string) string {
		set, err := Load(fstest.MapFS{"ring/a.yaml": {Data: []byte(src)}}, ring(t), pretend.Catalogues())
		if err != nil {
			t.Fatal(err)
		}
		return set.Hash()
	}
	if hash(string(src)) != hash(string(src)) {
		t.Error("two readings, two hashes")
	}
	if hash(string(src)) == hash(string(src)+"\n") {
		t.Error("a changed file has the same hash")
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*/*.yaml", "testdata/bad/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			src, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src)
		}
	}
	env := ring(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		b, err := Parse("f.yaml", src, env, pretend.Catalogues())
		placed(t, err)
		if err == nil && (b == nil || b.Name == "" || len(b.Rungs) == 0) {
			t.Fatal("neither a runbook nor an error")
		}
		_, err = ParsePolicy("f.yaml", src)
		placed(t, err)
		_, err = ParseTests("f_test.yaml", src, pretend.Catalogues())
		placed(t, err)
	})
}

func placed(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	var e *yamlfile.Error
	if !errors.As(err, &e) || len(e.Problems) == 0 {
		t.Fatalf("an error without places: %v", err)
	}
	for _, p := range e.Problems {
		if p.Line < 1 || p.Column < 1 || p.Text == "" {
			t.Fatalf("a problem without a place: %+v", p)
		}
	}
}
