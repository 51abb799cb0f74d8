package repolint

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata/linked-deps.txt from what cmd/fettle links now")

// TestLinkedDependencies compares the modules that are linked into the binary
// with the list that was agreed to. A new dependency is a decision: it shows up
// in the diff of the list, and the commit message says why it is worth it.
//
//	go test ./internal/repolint -run TestLinkedDependencies -update
func TestLinkedDependencies(t *testing.T) {
	const list = "testdata/linked-deps.txt"
	dir := root(t)
	if _, err := os.Stat(filepath.Join(dir, "cmd", "fettle")); err != nil {
		t.Fatalf("cmd/fettle is not there, so nobody can say what the binary links: %v", err)
	}
	// As the binary is built: another platform, or cgo, links other modules.
	out := goCommand(t, dir, []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64"},
		"list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "./cmd/fettle")
	linked := map[string]bool{}
	for module := range strings.FieldsSeq(out) {
		linked[module] = true
	}
	if !linked["fettle"] || len(linked) < 2 {
		t.Fatalf("go list found only %v: it did not look at the whole binary", slices.Sorted(maps.Keys(linked)))
	}
	now := slices.Sorted(maps.Keys(linked))
	if *update {
		if err := os.WriteFile(list, []byte(strings.Join(now, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	data, err := os.ReadFile(list)
	if err != nil {
		t.Fatalf("%v\nWhat to do: make the list with -update and read it", err)
	}
	added, gone := difference(strings.Fields(string(data)), now)
	for _, module := range added {
		t.Errorf("linked, but not in the list: %s", module)
	}
	for _, module := range gone {
		t.Errorf("in the list, but no longer linked: %s", module)
	}
	if t.Failed() {
		t.Log("What to do: if this is meant, run this test with -update, and say in the commit why the dependency is worth it.")
	}
}

// difference gives what is only in now, and what is only in before.
func difference(before, now []string) (added, gone []string) {
	for _, name := range now {
		if !slices.Contains(before, name) {
			added = append(added, name)
		}
	}
	for _, name := range before {
		if !slices.Contains(now, name) {
			gone = append(gone, name)
		}
	}
	return added, gone
}

func TestDifference(t *testing.T) {
	added, gone := difference([]string{"a", "b"}, []string{"b", "c"})
	if !slices.Equal(added, []string{"c"}) || !slices.Equal(gone, []string{"a"}) {
		t.Errorf("added %v, gone %v", added, gone)
	}
}
