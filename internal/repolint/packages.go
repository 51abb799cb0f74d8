package repolint

import (
	"fmt"
	"go/ast"
	"regexp"
	"slices"
	"strings"
)

// PackageDoc checks that every package says in its doc comment what it is:
// starting with its name, as godoc wants it, and in two sentences at least.
func PackageDoc(t *Tree) []Finding {
	type pkg struct {
		name string
		doc  string
		path string // where to point at
	}
	packages := map[string]*pkg{}
	var dirs []string
	for _, f := range t.Go {
		p := packages[f.Dir]
		if p == nil {
			p = &pkg{path: f.Dir}
			packages[f.Dir] = p
			dirs = append(dirs, f.Dir)
		}
		if p.name == "" || !f.Test {
			p.name = strings.TrimSuffix(f.AST.Name.Name, "_test")
		}
		if f.AST.Doc == nil || f.Generated || f.AST.Doc.Text() == "" {
			continue
		}
		// Where several files have a comment there, the one that introduces the
		// package is its doc.
		doc := f.AST.Doc.Text()
		if p.doc == "" || strings.HasPrefix(doc, "Package ") && !strings.HasPrefix(p.doc, "Package ") {
			p.doc, p.path = doc, f.Path
		}
	}
	var found []Finding
	for _, dir := range dirs {
		p := packages[dir]
		switch {
		case p.doc == "":
			found = append(found, Finding{Path: p.path, Text: fmt.Sprintf("package %s has no doc comment", p.name)})
		case p.name != "main" && !strings.HasPrefix(p.doc, "Package "+p.name+" "):
			found = append(found, Finding{Path: p.path, Text: fmt.Sprintf("the doc comment does not begin with \"Package %s \"", p.name)})
		case sentences(p.doc) < 2:
			found = append(found, Finding{Path: p.path, Text: fmt.Sprintf("the doc comment of package %s is shorter than two sentences", p.name)})
		}
	}
	return found
}

var (
	abbreviation = regexp.MustCompile(`\b(e\.g|i\.e|etc|vs|cf|resp)\.`)
	sentenceEnd  = regexp.MustCompile(`[\pL\pN)"'\x60\]][.!?]["')]?(\s|$)`)
)

// sentences counts the sentences of a text, roughly but never too many for the
// sake of an abbreviation.
func sentences(text string) int {
	return len(sentenceEnd.FindAllString(abbreviation.ReplaceAllString(text, "$1"), -1))
}

// PackageName finds packages whose name says nothing about their one job.
func PackageName(t *Tree) []Finding {
	empty := []string{"util", "utils", "common", "commons", "helper", "helpers", "manager", "managers", "base", "misc", "shared", "stuff"}
	var found []Finding
	seen := map[string]bool{}
	for _, f := range t.Go {
		name := strings.TrimSuffix(f.AST.Name.Name, "_test")
		if slices.Contains(empty, name) && !seen[f.Dir] {
			seen[f.Dir] = true
			found = append(found, Finding{Path: f.Path, Text: fmt.Sprintf("a package named %s can hold anything, so nobody finds anything in it", name)})
		}
	}
	return found
}

// NoInit finds init functions in code that people write and that is not a test.
func NoInit(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Go {
		if f.Test || f.Generated {
			continue
		}
		for _, decl := range f.AST.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				found = append(found, t.at(fn.Pos(), "has an init function"))
			}
		}
	}
	return found
}

// maxLines is where a file stops holding one idea. Most should be under 300.
const maxLines = 450

// FileSize finds files, neither generated nor tests, that grew too long.
func FileSize(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Go {
		if !f.Test && !f.Generated && f.Lines > maxLines {
			found = append(found, Finding{Path: f.Path, Key: f.Path, Text: fmt.Sprintf("%d lines, the limit is %d", f.Lines, maxLines)})
		}
	}
	return found
}

// LogAndReturn finds branches that both write an error down and return it, so
// that one trouble is reported once by every caller on the way up. It knows
// loggers by their name (log, slog, logger …), not by their type.
func LogAndReturn(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Go {
		if f.Test || f.Generated {
			continue
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			branch, ok := n.(*ast.IfStmt)
			if !ok {
				return true
			}
			logged := map[string]bool{}
			for _, stmt := range branch.Body.List {
				switch s := stmt.(type) {
				case *ast.ExprStmt:
					if call, ok := s.X.(*ast.CallExpr); ok && isLogCall(call) {
						for _, arg := range call.Args {
							errorNames(arg, logged)
						}
					}
				case *ast.ReturnStmt:
					returned := map[string]bool{}
					for _, result := range s.Results {
						errorNames(result, returned)
					}
					for name := range returned {
						if logged[name] {
							found = append(found, t.at(s.Pos(), "%s is written to the log and returned too", name))
						}
					}
				}
			}
			return true
		})
	}
	return found
}

var loggerName = regexp.MustCompile(`(?i)^(s?log|.*logger|.*log)$`)

func isLogCall(call *ast.CallExpr) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	switch x := sel.X.(type) {
	case *ast.Ident:
		return loggerName.MatchString(x.Name)
	case *ast.SelectorExpr:
		return loggerName.MatchString(x.Sel.Name)
	}
	return false
}

// errorNames collects the identifiers that are errors by their name.
func errorNames(n ast.Node, into map[string]bool) {
	ast.Inspect(n, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && (id.Name == "err" || strings.HasSuffix(id.Name, "Err")) {
			into[id.Name] = true
		}
		return true
	})
}
