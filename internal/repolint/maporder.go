package repolint

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"path"
	"slices"
	"strings"
)

// JudgeMapOrder finds places where the judge walks a map in the map's own
// order, which differs from run to run. It knows two walks whose order cannot
// show and lets them pass: slices.Sorted(maps.Keys(m)), and a loop that only
// collects the keys into a slice that the very next statement sorts by value.
// Everything else needs a comment `// any order: reason` on its line or the
// line above, for a person to agree with.
//
// It uses types, not names, so it sees maps behind named types and type
// parameters. It does not see a map that a library walks.
func JudgeMapOrder(t *Tree) []Finding {
	packages := map[string][]*GoFile{}
	var dirs []string
	for _, f := range t.Go {
		if f.Test || !inRoom(f.Dir, judgeRoom+"/...") {
			continue
		}
		if packages[f.Dir] == nil {
			dirs = append(dirs, f.Dir)
		}
		packages[f.Dir] = append(packages[f.Dir], f)
	}
	var found []Finding
	for _, dir := range dirs {
		found = append(found, t.mapOrderIn(dir, packages[dir])...)
	}
	return found
}

func (t *Tree) mapOrderIn(dir string, files []*GoFile) []Finding {
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
	var trees []*ast.File
	for _, f := range files {
		trees = append(trees, f.AST)
	}
	conf := types.Config{Importer: t.Importer}
	if _, err := conf.Check(path.Join(t.Module, dir), t.Fset, trees, info); err != nil {
		// Not seen is not the same as in order.
		return []Finding{{Path: dir, Text: fmt.Sprintf("cannot tell, the package does not type-check: %v", err)}}
	}
	var found []Finding
	for _, f := range files {
		w := &mapWalk{tree: t, info: info, allowed: t.anyOrderLines(f)}
		ast.Inspect(f.AST, w.visit)
		found = append(found, w.found...)
	}
	return found
}

// anyOrderMark is the comment by which a person vouches for a walk.
const anyOrderMark = "any order:"

// anyOrderLines are the lines on which the file's comments vouch for a walk:
// the last line of the comment and the one below it.
func (t *Tree) anyOrderLines(f *GoFile) map[int]bool {
	lines := map[int]bool{}
	for _, group := range f.AST.Comments {
		if _, reason, ok := strings.Cut(group.Text(), anyOrderMark); ok && len(strings.Fields(reason)) >= 3 {
			end := t.Fset.Position(group.End()).Line
			lines[end], lines[end+1] = true, true
		}
	}
	return lines
}

type mapWalk struct {
	tree    *Tree
	info    *types.Info
	allowed map[int]bool
	inOrder map[ast.Node]bool
	found   []Finding
}

func (w *mapWalk) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.BlockStmt:
		w.sortedCollections(n.List)
	case *ast.CaseClause:
		w.sortedCollections(n.Body)
	case *ast.RangeStmt:
		if isMap(w.info.TypeOf(n.X)) {
			w.report(n, "ranges over a map")
		}
	case *ast.CallExpr:
		w.call(n)
	}
	return true
}

func (w *mapWalk) report(n ast.Node, what string) {
	if !w.inOrder[n] && !w.allowed[w.tree.Fset.Position(n.Pos()).Line] {
		w.found = append(w.found, w.tree.at(n.Pos(), "%s in no particular order", what))
	}
}

// call looks at the calls that walk a map, and marks those whose result is put
// in order, or into another map, on the spot.
func (w *mapWalk) call(call *ast.CallExpr) {
	switch name := w.callee(call); name {
	case "slices.Sorted", "maps.Collect", "maps.Insert":
		for _, arg := range call.Args {
			w.harmless(ast.Unparen(arg))
		}
	case "maps.Keys", "maps.Values", "maps.All":
		w.report(call, name)
	case "(reflect.Value).MapRange", "(reflect.Value).MapKeys", "(*sync.Map).Range":
		w.report(call, name)
	}
}

// callee is the full name of the function or method that is called, or "".
func (w *mapWalk) callee(call *ast.CallExpr) string {
	fun := ast.Unparen(call.Fun)
	switch f := fun.(type) {
	case *ast.IndexExpr:
		fun = f.X
	case *ast.IndexListExpr:
		fun = f.X
	}
	var id *ast.Ident
	switch f := fun.(type) {
	case *ast.Ident:
		id = f
	case *ast.SelectorExpr:
		id = f.Sel
	default:
		return ""
	}
	fn, ok := w.info.Uses[id].(*types.Func)
	if !ok {
		return ""
	}
	return fn.FullName()
}

// sortedCollections marks loops of the form
//
//	for k := range m { keys = append(keys, k) }
//	slices.Sort(keys)
//
// Keys are unique and these sorts compare the whole value, so one order can
// come out. A comparison function may call different keys equal: it needs the
// comment.
func (w *mapWalk) sortedCollections(list []ast.Stmt) {
	for i, stmt := range list {
		loop, ok := stmt.(*ast.RangeStmt)
		if !ok || i+1 == len(list) || len(loop.Body.List) != 1 {
			continue
		}
		slice := appendedKey(loop)
		if slice == "" {
			continue
		}
		next, ok := list[i+1].(*ast.ExprStmt)
		if !ok {
			continue
		}
		call, ok := next.X.(*ast.CallExpr)
		if ok && len(call.Args) == 1 && types.ExprString(call.Args[0]) == slice &&
			slices.Contains([]string{"slices.Sort", "sort.Strings", "sort.Ints"}, w.callee(call)) {
			w.harmless(loop)
		}
	}
}

// appendedKey is the slice that the loop's only statement appends the loop's
// key to, or "".
func appendedKey(loop *ast.RangeStmt) string {
	key, ok := loop.Key.(*ast.Ident)
	if !ok {
		return ""
	}
	assign, ok := loop.Body.List[0].(*ast.AssignStmt)
	if !ok || assign.Tok != token.ASSIGN || len(assign.Lhs) != 1 || len(assign.Rhs) != 1 {
		return ""
	}
	call, ok := assign.Rhs[0].(*ast.CallExpr)
	if !ok || len(call.Args) != 2 || call.Ellipsis.IsValid() {
		return ""
	}
	slice := types.ExprString(assign.Lhs[0])
	if types.ExprString(call.Fun) != "append" || types.ExprString(call.Args[0]) != slice || types.ExprString(call.Args[1]) != key.Name {
		return ""
	}
	return slice
}

func (w *mapWalk) harmless(n ast.Node) {
	if w.inOrder == nil {
		w.inOrder = map[ast.Node]bool{}
	}
	w.inOrder[n] = true
}

// isMap says whether a value of type typ may be a map, also behind a name or a
// type parameter's constraint.
func isMap(typ types.Type) bool {
	if typ == nil {
		return false
	}
	if param, ok := types.Unalias(typ).(*types.TypeParam); ok {
		return mapInConstraint(param.Constraint())
	}
	_, ok := typ.Underlying().(*types.Map)
	return ok
}

func mapInConstraint(constraint types.Type) bool {
	iface, ok := constraint.Underlying().(*types.Interface)
	if !ok {
		return isMap(constraint)
	}
	for i := range iface.NumEmbeddeds() {
		switch e := iface.EmbeddedType(i).(type) {
		case *types.Union:
			for j := range e.Len() {
				if isMap(e.Term(j).Type()) {
					return true
				}
			}
		default:
			if mapInConstraint(e) {
				return true
			}
		}
	}
	return false
}
