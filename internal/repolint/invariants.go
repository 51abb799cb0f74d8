package repolint

import (
	"fmt"
	"go/ast"
	"regexp"
	"strings"
)

// invariantsFile lists the safety invariants, each with the tests that try to
// get round it.
const invariantsFile = "docs/design/0003-invariants.md"

// invariantCount is how many there are: S1 to S14.
const invariantCount = 14

var (
	invariantRow = regexp.MustCompile(`^\|\s*\**(S\d+)\**\s*\|(.*)$`)
	testName     = regexp.MustCompile(`(?:([a-z][\w/]*)\.)?\b(Test[A-Z]\w*)`)
)

// Invariants checks that every invariant has its row and that every test named
// there is a test function in the tree. A name may carry its package, as in
// guard.TestQuorum or internal/judge/guard.TestQuorum. Several rows may tell of
// one invariant.
func Invariants(t *Tree) []Finding {
	doc, ok := t.text(invariantsFile)
	if !ok {
		return []Finding{{Path: invariantsFile, Text: "is missing, so no invariant has a test"}}
	}
	tests := t.testDirs()
	proven := map[string]int{} // tests that exist, by invariant
	seen := map[string]int{}   // line, by invariant
	var found []Finding
	eachLine(doc, func(number int, line string) {
		row := invariantRow.FindStringSubmatch(line)
		if row == nil {
			return
		}
		seen[row[1]] = number
		for _, m := range testName.FindAllStringSubmatch(row[2], -1) {
			if !existsIn(tests[m[2]], m[1]) {
				found = append(found, Finding{Path: doc.Path, Line: number, Text: fmt.Sprintf("%s names %s, which is no test in the tree", row[1], m[0])})
				continue
			}
			proven[row[1]]++
		}
	})
	for i := range invariantCount {
		name := fmt.Sprintf("S%d", i+1)
		switch line := seen[name]; {
		case line == 0:
			found = append(found, Finding{Path: doc.Path, Text: name + " has no row"})
		case proven[name] == 0:
			found = append(found, Finding{Path: doc.Path, Line: line, Text: name + " names no test that exists"})
		}
	}
	return found
}

// testDirs maps the name of every test function to the directories that have it.
func (t *Tree) testDirs() map[string][]string {
	dirs := map[string][]string{}
	for _, f := range t.Go {
		if !f.Test {
			continue
		}
		for _, decl := range f.AST.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Type.Params.NumFields() == 1 && fn.Body != nil {
				dirs[fn.Name.Name] = append(dirs[fn.Name.Name], f.Dir)
			}
		}
	}
	return dirs
}

// existsIn says whether one of dirs is the package that qualifier names: its
// last path elements, or anything if there is no qualifier.
func existsIn(dirs []string, qualifier string) bool {
	for _, dir := range dirs {
		if qualifier == "" || dir == qualifier || strings.HasSuffix(dir, "/"+qualifier) {
			return true
		}
	}
	return false
}
