package repolint

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Tree is a repository, read once and parsed: the input of every rule. A rule
// reads it and never changes it, so one Tree may be used by many at once.
type Tree struct {
	Module string // module path, from go.mod
	Texts  []Text // every text file, sorted by path
	Go     []*GoFile
	Fset   *token.FileSet

	// Importer finds the type information of packages outside the tree's own
	// directories. Only the rule about map order needs it.
	Importer types.Importer
}

// Text is one file that is not binary. Path is relative to the root, with slashes.
type Text struct {
	Path    string
	Content string
}

// GoFile is one Go source file of the main module, whatever its build tags.
type GoFile struct {
	Path      string
	Dir       string // directory, "." for the root
	AST       *ast.File
	Lines     int
	Test      bool // the name ends in _test.go
	Generated bool // carries the "Code generated … DO NOT EDIT." mark
}

// maxText bounds what is looked at as text: a bigger file is a capture or an
// artefact, and no rule here has anything to say about it.
const maxText = 1 << 20

// Load reads and parses the tree whose root is fsys. It fails on Go source that
// does not parse, since a rule that cannot see a file cannot vouch for it.
func Load(fsys fs.FS) (*Tree, error) {
	t := &Tree{Fset: token.NewFileSet()}
	mod, err := fs.ReadFile(fsys, "go.mod")
	if err != nil {
		return nil, fmt.Errorf("the root of the repository has a go.mod: %w", err)
	}
	if t.Module = modulePath(string(mod)); t.Module == "" {
		return nil, fmt.Errorf("go.mod has no module line")
	}
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if skipDir(name) {
				return fs.SkipDir
			}
			return nil
		}
		return t.add(fsys, name, d)
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// skipDir leaves out what is not part of the repository: version control, build
// output, editors' folders. Folders that CI lives in are looked at.
func skipDir(name string) bool {
	base := path.Base(name)
	switch {
	case name == ".", base == ".ci":
		return false
	case name == "bin", base == "node_modules":
		return true
	}
	return strings.HasPrefix(base, ".")
}

func (t *Tree) add(fsys fs.FS, name string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > maxText {
		return nil
	}
	content, err := fs.ReadFile(fsys, name)
	if err != nil {
		return err
	}
	if bytes.IndexByte(content, 0) >= 0 {
		return nil
	}
	t.Texts = append(t.Texts, Text{Path: name, Content: string(content)})
	if !strings.HasSuffix(name, ".go") || !buildable(fsys, path.Dir(name)) {
		return nil
	}
	file, err := parser.ParseFile(t.Fset, name, content, parser.ParseComments)
	if err != nil {
		return err
	}
	t.Go = append(t.Go, &GoFile{
		Path:      name,
		Dir:       path.Dir(name),
		AST:       file,
		Lines:     bytes.Count(content, []byte("\n")),
		Test:      strings.HasSuffix(name, "_test.go"),
		Generated: ast.IsGenerated(file),
	})
	return nil
}

// buildable says whether the go command would look into dir as part of the main
// module: no testdata, nothing that starts with '_', no nested module.
func buildable(fsys fs.FS, dir string) bool {
	for ; dir != "."; dir = path.Dir(dir) {
		base := path.Base(dir)
		if base == "testdata" || strings.HasPrefix(base, "_") || strings.HasPrefix(base, ".") {
			return false
		}
		if _, err := fs.Stat(fsys, path.Join(dir, "go.mod")); err == nil {
			return false
		}
	}
	return true
}

func modulePath(mod string) string {
	for line := range strings.Lines(mod) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "module "); ok {
			return strings.Trim(strings.TrimSpace(rest), `"`)
		}
	}
	return ""
}

// text returns the file at name, and whether there is one.
func (t *Tree) text(name string) (Text, bool) {
	i, ok := slices.BinarySearchFunc(t.Texts, name, func(f Text, name string) int { return strings.Compare(f.Path, name) })
	if !ok {
		return Text{}, false
	}
	return t.Texts[i], true
}

// has says whether name is a file of the tree or a directory that has one.
func (t *Tree) has(name string) bool {
	if name == "." {
		return true
	}
	return slices.ContainsFunc(t.Texts, func(f Text) bool {
		return f.Path == name || strings.HasPrefix(f.Path, name+"/")
	})
}

// at makes a finding at a position in Go source.
func (t *Tree) at(pos token.Pos, format string, args ...any) Finding {
	p := t.Fset.Position(pos)
	return Finding{Path: p.Filename, Line: p.Line, Text: fmt.Sprintf(format, args...)}
}

// imported returns the paths that the file imports, with their nodes, in order.
func (f *GoFile) imported() []importLine {
	var lines []importLine
	for _, spec := range f.AST.Imports {
		if name, err := strconv.Unquote(spec.Path.Value); err == nil {
			lines = append(lines, importLine{path: name, spec: spec})
		}
	}
	return lines
}

type importLine struct {
	path string
	spec *ast.ImportSpec
}

// localName is the name under which the file uses the standard library package
// at importPath, or "" if it does not import it by a name.
func (f *GoFile) localName(importPath string) string {
	for _, line := range f.imported() {
		if line.path != importPath {
			continue
		}
		if line.spec.Name == nil {
			return path.Base(importPath)
		}
		if name := line.spec.Name.Name; name != "_" && name != "." {
			return name
		}
	}
	return ""
}

// uses calls found for every selector importPath.name in the file, called or
// passed as a value, where name is one of names.
func (f *GoFile) uses(importPath string, names []string, found func(*ast.SelectorExpr)) {
	local := f.localName(importPath)
	if local == "" {
		return
	}
	ast.Inspect(f.AST, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		// An identifier that resolves inside the file is a variable of that
		// name, not the package.
		if id, ok := sel.X.(*ast.Ident); ok && id.Name == local && id.Obj == nil && slices.Contains(names, sel.Sel.Name) {
			found(sel)
		}
		return true
	})
}

// enclosing names the function declaration around pos, or "" outside of any.
func (f *GoFile) enclosing(pos token.Pos) string {
	for _, decl := range f.AST.Decls {
		if fn, ok := decl.(*ast.FuncDecl); ok && fn.Pos() <= pos && pos < fn.End() {
			return fn.Name.Name
		}
	}
	return ""
}
