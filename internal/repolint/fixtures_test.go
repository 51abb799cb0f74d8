package repolint

import (
	"fmt"
	"go/importer"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rogpeppe/go-internal/txtar"
)

// A fixture is a small tree in one txtar file, testdata/RULE/NAME.txtar. Its
// comment says in prose what it shows, and lists what the rule must find:
//
//	want PATH[:LINE] part of the text
//
// A fixture without such lines must be found good.
func TestFixtures(t *testing.T) {
	lookup := exportData(t, ".", "maps", "slices", "sort", "sync", "reflect", "os", "time")
	for _, rule := range Rules() {
		t.Run(rule.Name, func(t *testing.T) {
			files, err := filepath.Glob(filepath.Join("testdata", rule.Name, "*.txtar"))
			if err != nil {
				t.Fatal(err)
			}
			bad, good := 0, 0
			for _, file := range files {
				t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
					archive, err := txtar.ParseFile(file)
					if err != nil {
						t.Fatal(err)
					}
					tree := parse(t, archive.Files)
					tree.Importer = importer.ForCompiler(tree.Fset, "gc", lookup)
					wants := wanted(string(archive.Comment))
					if len(wants) > 0 {
						bad++
					} else {
						good++
					}
					compare(t, wants, Run(rule, tree))
				})
			}
			if bad == 0 || good == 0 {
				t.Errorf("%d fixtures that break the rule and %d that keep it: there must be both, or a broken rule goes unseen", bad, good)
			}
		})
	}
}

func parse(t *testing.T, files []txtar.File) *Tree {
	t.Helper()
	tree, err := Load(mapFS(files))
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func mapFS(files []txtar.File) fs.FS {
	fsys := fstest.MapFS{"go.mod": {Data: []byte("module fettle\n")}}
	for _, f := range files {
		fsys[f.Name] = &fstest.MapFile{Data: unmasked(f.Data)}
	}
	return fsys
}

// unmasked lets fixtures hold text that may stand nowhere in the tree: a
// fixture writes ¦ in the middle of it.
func unmasked(data []byte) []byte { return []byte(strings.ReplaceAll(string(data), "¦", "")) }

type want struct{ at, text string }

func wanted(comment string) []want {
	var wants []want
	for line := range strings.Lines(comment) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "want "); ok {
			at, text, _ := strings.Cut(rest, " ")
			wants = append(wants, want{at, string(unmasked([]byte(text)))})
		}
	}
	return wants
}

// compare pairs each wanted finding with a real one.
func compare(t *testing.T, wants []want, found []Finding) {
	t.Helper()
	for _, f := range found {
		at := f.Path
		if f.Line > 0 {
			at = fmt.Sprintf("%s:%d", f.Path, f.Line)
		}
		i := slices.IndexFunc(wants, func(w want) bool { return w.at == at && strings.Contains(f.Text, w.text) })
		if i < 0 {
			t.Errorf("not wanted: %v", f)
			continue
		}
		wants = slices.Delete(wants, i, i+1)
	}
	for _, w := range wants {
		t.Errorf("not found: %s %s", w.at, w.text)
	}
}

// TestFixturesBelongToRules catches a fixture that no rule reads.
func TestFixturesBelongToRules(t *testing.T) {
	rules := map[string]bool{}
	for _, rule := range Rules() {
		rules[rule.Name] = true
	}
	files, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if name := filepath.Base(filepath.Dir(file)); !rules[name] {
			t.Errorf("%s: there is no rule %q; there are %v", file, name, slices.Sorted(maps.Keys(rules)))
		}
	}
}

// TestLoadRefusesWhatItCannotRead: a file that does not parse is an error, not
// a file without faults.
func TestLoadRefusesWhatItCannotRead(t *testing.T) {
	for name, fsys := range map[string]fstest.MapFS{
		"no go.mod":      {"a.go": {Data: []byte("package a\n")}},
		"no module line": {"go.mod": {Data: []byte("go 1.26\n")}},
		"broken source":  {"go.mod": {Data: []byte("module fettle\n")}, "a/a.go": {Data: []byte("package\n")}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Load(fsys); err == nil {
				t.Error("no error")
			}
		})
	}
}

// TestLoadLeavesOut: what is no part of the main module is not judged as such,
// but its text is still read.
func TestLoadLeavesOut(t *testing.T) {
	tree := parse(t, []txtar.File{
		{Name: "a/a.go", Data: []byte("package a\n")},
		{Name: "a/testdata/b.go", Data: []byte("package b\n")},
		{Name: "tools/go.mod", Data: []byte("module tools\n")},
		{Name: "tools/t.go", Data: []byte("package t\n")},
		{Name: ".git/x.go", Data: []byte("package x\n")},
		{Name: "bin/fettle", Data: []byte("elf\n")},
		{Name: ".ci/run", Data: []byte("#!/bin/sh\n")},
		{Name: "image.png", Data: []byte("\x89PNG\x00")},
	})
	var code, texts []string
	for _, f := range tree.Go {
		code = append(code, f.Path)
	}
	for _, f := range tree.Texts {
		texts = append(texts, f.Path)
	}
	if want := []string{"a/a.go"}; !slices.Equal(code, want) {
		t.Errorf("Go files %v, want %v", code, want)
	}
	if want := []string{".ci/run", "a/a.go", "a/testdata/b.go", "go.mod", "tools/go.mod", "tools/t.go"}; !slices.Equal(texts, want) {
		t.Errorf("texts %v, want %v", texts, want)
	}
}
