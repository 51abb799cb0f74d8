package runbooks_test

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"fettle/internal/fettle"
)

// testFunc matches the head of a Go test function.
var testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(\w+ \*testing\.T\)`)

// TestProofsExist: the lab test that a rung names as its proof, on which its
// autonomy rests, is a test function somewhere in the tree.
func TestProofsExist(t *testing.T) {
	m, err := mind(fettle.Policy{})
	if err != nil {
		t.Fatal(err)
	}
	there := testsOfTree(t, "..")
	missing := map[string][]string{}
	for _, b := range m.Books().All() {
		for _, r := range b.Rungs {
			switch {
			case r.ProvedBy == "": // such a rung always asks
			case !strings.HasPrefix(r.ProvedBy, "TestLab"):
				t.Errorf("runbook %s, rung %s: %s is not the name of a lab test (TestLab…)", b.Name, r.Name, r.ProvedBy)
			case !there[r.ProvedBy]:
				missing[r.ProvedBy] = append(missing[r.ProvedBy], b.Name+"/"+r.Name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		t.Errorf("no test file has %s, which is said to have proved %s; write it, or leave proved_by out", name, strings.Join(missing[name], ", "))
	}
}

// testsOfTree lists the test functions of every test file, whatever its build
// tags.
func testsOfTree(t *testing.T, root string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(p, "_test.go"):
			return nil
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		for _, f := range testFunc.FindAllSubmatch(src, -1) {
			names[string(f[1])] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !names[t.Name()] {
		t.Fatal("it does not even find itself")
	}
	return names
}
