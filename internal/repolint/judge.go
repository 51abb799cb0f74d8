package repolint

import (
	"go/ast"
	"strings"
)

// judgeRoom is everything between Observation and Plan: pure code.
const judgeRoom = "internal/judge"

// impureImport says what an import would bring into the judge, or "".
func impureImport(target string) string {
	for _, ban := range []struct{ path, brings string }{
		{"os", "the machine it runs on"},
		{"net", "the network"},
		{"database", "a database"},
		{"syscall", "the machine it runs on"},
		{"golang.org/x/sys", "the machine it runs on"},
		{"log", "output: say it in the result"},
		{"math/rand", "chance"},
		{"crypto/rand", "chance"},
		{"hash/maphash", "chance: its seed differs in every process"},
		{"testing", "tests into the product"},
	} {
		if target == ban.path || strings.HasPrefix(target, ban.path+"/") {
			return ban.brings
		}
	}
	return ""
}

// clockNames are the names of package time that read or wait for a clock, or
// depend on the machine's time zone. Durations and instants as values are fine.
func clockNames() []string {
	return []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Local", "LoadLocation"}
}

// JudgePure finds clocks, chance, input, output and concurrency in the judge.
func JudgePure(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Go {
		if f.Test || !inRoom(f.Dir, judgeRoom+"/...") {
			continue
		}
		for _, line := range f.imported() {
			if brings := impureImport(line.path); brings != "" {
				found = append(found, t.at(line.spec.Pos(), "imports %s, which brings %s", line.path, brings))
			}
		}
		f.uses("time", clockNames(), func(sel *ast.SelectorExpr) {
			found = append(found, t.at(sel.Pos(), "time.%s depends on when and where it runs", sel.Sel.Name))
		})
		ast.Inspect(f.AST, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				found = append(found, t.at(n.Pos(), "starts a goroutine"))
			case *ast.SelectStmt:
				found = append(found, t.at(n.Pos(), "select takes one of several ready cases by chance"))
			}
			return true
		})
	}
	return found
}
