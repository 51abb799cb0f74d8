package diagnose

import (
	"crypto/sha256"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestFleet compares the diagnosis of the generated fleet with the recorded one:
// the same answer for the same input, on every machine.
func TestFleet(t *testing.T) {
	f := newFleet(1)
	if len(f.subjects) != fleetSubjects || len(f.raised) != fleetRaised || len(f.roots) != fleetRoots {
		t.Fatalf("%d subjects, %d raised, %d roots", len(f.subjects), len(f.raised), len(f.roots))
	}
	d := mustNew(t, f.catalogue)
	d.Load(f.w, epoch)
	groups := d.Groups()
	text := printGroups(groups)
	roots, shared, named := f.score(groups)
	members, stopped, unsettled, biggest := 0, 0, 0, 0
	for _, g := range groups {
		members += len(g.Members)
		biggest = max(biggest, len(g.Members))
		if g.Diagnosis.Stopped != "" {
			stopped++
		}
		if len(g.Diagnosis.Unsettled) > 0 {
			unsettled++
		}
	}
	got := fmt.Sprintf("%d subjects, %d conditions raised\n%d groups with %d members, the biggest with %d; %d unsettled, %d stopped\n"+
		"%d causes named: %d of %d unrelated roots, %d of %d shared ones\nsha256 %x\n",
		len(f.subjects), len(f.raised), len(groups), members, biggest, unsettled, stopped,
		named, roots, len(f.roots), shared, len(f.shared), sha256.Sum256([]byte(text)))
	const file = "testdata/fleet.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s\n(go test -update rewrites the file)", got, want)
	}
	// Whoever changes one thing after the other comes to the same.
	step := mustNew(t, f.catalogue)
	for i := 0; i < len(f.subjects); i += 500 {
		step.Update(f.w, epoch, f.subjects[i:i+500]...)
	}
	if printGroups(step.Groups()) != text {
		t.Error("read in parts, the fleet has another diagnosis")
	}
}

// TestNoConditionCode: what is known about causes is in the catalogues. No string
// in this package is a condition's code.
func TestNoConditionCode(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	code := regexp.MustCompile(`^"[a-z][a-z0-9-]*\.[a-z][a-z0-9_]*"$`)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && code.MatchString(l.Value) {
				t.Errorf("%s has the code %s", file, l.Value)
			}
			return true
		})
	}
}
