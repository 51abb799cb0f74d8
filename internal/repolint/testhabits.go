package repolint

import (
	"go/ast"
	"regexp"
	"slices"
	"strings"
)

// NoSleep finds tests that wait for time to pass instead of for the event.
func NoSleep(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Go {
		if !f.Test {
			continue
		}
		f.uses("time", []string{"Sleep"}, func(sel *ast.SelectorExpr) {
			finding := t.at(sel.Pos(), "sleeps in a test")
			finding.Key = f.Path + ":" + f.enclosing(sel.Pos())
			found = append(found, finding)
		})
	}
	return found
}

// scriptSkip is the skip command of a testscript, with its conditions.
var scriptSkip = regexp.MustCompile(`^\s*(\[[^\]]*\]\s*)*skip\b`)

// NoSkip finds tests that end early and green. It looks at every file that
// imports testing, since suites for others (adaptertest) are not _test files,
// and at testscripts.
func NoSkip(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Go {
		if f.localName("testing") == "" {
			continue
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
				finding := t.at(sel.Pos(), "skips a test")
				finding.Key = f.Path + ":" + f.enclosing(sel.Pos())
				found = append(found, finding)
			}
			return true
		})
	}
	for _, text := range t.Texts {
		// The fixtures of these rules are about skipping.
		if !isTestscript(text.Path) || strings.HasPrefix(text.Path, fixtures) {
			continue
		}
		number := 0
		for line := range strings.Lines(text.Content) {
			number++
			if strings.HasPrefix(line, "-- ") { // the script ends where its files begin
				break
			}
			if scriptSkip.MatchString(line) {
				found = append(found, Finding{Path: text.Path, Line: number, Key: text.Path, Text: "skips a test"})
			}
		}
	}
	return found
}

// fixtures is the folder of this package's own test data.
const fixtures = "internal/repolint/testdata/"

func isTestscript(name string) bool {
	return strings.Contains(name, "testdata/") && (strings.HasSuffix(name, ".txtar") || strings.HasSuffix(name, ".txt") && strings.Contains(name, "script"))
}
