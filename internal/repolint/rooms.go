package repolint

import (
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strings"
)

// columns is the drawing of who may import whom. A package may import packages
// of any column below its own, and of its own room; never of a room beside it or
// above it. A room is a path, or a path with /... for all that is below it; the
// longest that fits counts.
//
//	cmd ─▶ face ─▶ fleet/server, fleet/agent ─▶ fleet/*, verify, drill ─▶ loop
//	    ─▶ act ─▶ judge, machine ─▶ fettle ─▶ standard library
func columns() [][]string {
	return [][]string{
		{"cmd/fettle"},
		{"internal/face/..."},
		{"internal/sim/..."}, // drives real servers and agents over a pretend network
		{"internal/fleet/server/...", "internal/fleet/agent/..."},
		{"internal/fleet/...", "internal/verify/...", "internal/drill/..."},
		{"internal/loop/..."},
		{"internal/act/..."},
		{"internal/judge/...", "internal/machine/..."},
		{"internal/fettle"},
	}
}

// side is a room that is in no column: it says itself whom it may import.
type side struct {
	room string
	may  []string // rooms, besides its own; "*" is everything, guests too
	why  string
}

func sides() []side {
	return []side{
		{"internal/adapter/all", []string{"internal/adapter/*", "internal/fettle", "internal/machine"}, "it is the list of adapters and nothing else"},
		{"internal/adapter/adaptertest/...", []string{"*"}, "a suite of tests may import what it needs"},
		{"internal/adapter/*", []string{"internal/fettle", "internal/machine"},
			"an adapter knows the vocabulary, the machine's ports and its own client library"},
		{"runbooks/...", []string{"internal/fettle"}, "runbooks are data"},
		{"packaging", nil, "units are data"},
		{"lab/...", []string{"internal/fettle", "internal/machine"}, "the lab breaks hosts and knows nothing of who mends them"},
		{"bench/...", []string{"*"}, "measurements may import what they measure"},
		{"internal/repolint", nil, "it judges the repository and is no part of it"},
	}
}

// guest is a room that only a few may import.
type guest struct {
	room string
	by   []string // rooms besides its own, and those that may import everything
	why  string
}

func guests() []guest {
	return []guest{
		{"internal/adapter/all", []string{"cmd/fettle"}, "only main knows which adapters there are; hand them down"},
		{"runbooks/...", []string{"cmd/fettle"}, "only main knows which runbooks there are; hand them down"},
		{"packaging", []string{"cmd/fettle"}, "only main knows which units there are; hand them down"},
		{"internal/adapter/adaptertest/...", nil, "only tests run the suite"},
		{"internal/adapter/*", []string{"internal/adapter/all"}, "adapters are reached through the list and the ports of internal/fettle"},
		{"lab/...", nil, "only tests, measurements and its own command use the lab"},
		{"bench/...", nil, "nothing depends on a measurement"},
		{"internal/repolint", nil, "it is tests"},
	}
}

// stdlibOnly are the rooms that import nothing but the standard library and
// what columns lets them import of our own.
func stdlibOnly() []string { return []string{"internal/fettle"} }

// execRooms are the rooms that may start processes by themselves. Everywhere
// else a command goes through the ports of internal/machine.
func execRooms() []string { return []string{"internal/machine/...", "lab/..."} }

// Imports checks the direct imports of every file that is not a test.
func Imports(t *Tree) []Finding {
	var found []Finding
	seen := map[string]bool{}
	for _, f := range t.Go {
		if f.Test {
			continue
		}
		if !seen[f.Dir] && roomOf(f.Dir) == "" {
			found = append(found, Finding{Path: f.Path, Text: fmt.Sprintf("package %s is in no room of rooms.go", f.Dir)})
		}
		seen[f.Dir] = true
		for _, line := range f.imported() {
			if why := t.importRefused(f.Dir, line.path); why != "" {
				found = append(found, t.at(line.spec.Pos(), "may not import %s: %s", line.path, why))
			}
			if line.spec.Name != nil && line.spec.Name.Name == "." {
				found = append(found, t.at(line.spec.Pos(), "dot import of %s hides where names come from", line.path))
			}
		}
	}
	return found
}

// importRefused says why the package in dir may not import target, or "".
func (t *Tree) importRefused(dir, target string) string {
	from := roomOf(dir)
	if target == "C" || target == "plugin" {
		return "the binary is one static file without cgo"
	}
	own, ours := strings.CutPrefix(target, t.Module+"/")
	if !ours {
		if slices.Contains(stdlibOnly(), from) && !isStdlib(target) {
			return from + " imports the standard library only"
		}
		return ""
	}
	to := roomOf(own)
	if from == "" || sameRoom(dir, own) {
		return ""
	}
	beside := slices.IndexFunc(sides(), func(s side) bool { return s.room == from })
	if beside >= 0 && slices.Contains(sides()[beside].may, "*") {
		return ""
	}
	for _, g := range guests() {
		if g.room == to && !slices.Contains(g.by, from) {
			return g.why
		}
	}
	if beside >= 0 {
		// A path without "/..." is that package alone: an adapter may have the
		// machine's ports, not what stands behind them.
		s := sides()[beside]
		if slices.Contains(s.may, own) || slices.Contains(s.may, to) {
			return ""
		}
		return s.why
	}
	mine, theirs := columnOf(from), columnOf(to)
	switch {
	case theirs < 0: // a guest that let us in
		return ""
	case theirs == mine:
		return fmt.Sprintf("%s and %s stand side by side", from, to)
	case theirs < mine:
		return fmt.Sprintf("%s is above %s", to, from)
	}
	return ""
}

// NoExec finds processes that are started outside of the rooms that may.
func NoExec(t *Tree) []Finding {
	var found []Finding
	starters := []struct {
		path  string
		names []string
	}{
		{"os", []string{"StartProcess"}},
		{"syscall", []string{"Exec", "ForkExec", "StartProcess"}},
		{"golang.org/x/sys/unix", []string{"Exec"}},
	}
	for _, f := range t.Go {
		if f.Test || slices.Contains(execRooms(), roomOf(f.Dir)) {
			continue
		}
		for _, line := range f.imported() {
			if line.path == "os/exec" {
				found = append(found, t.at(line.spec.Pos(), "imports os/exec"))
			}
		}
		for _, s := range starters {
			f.uses(s.path, s.names, func(sel *ast.SelectorExpr) {
				found = append(found, t.at(sel.Pos(), "starts a process with %s.%s", s.path, sel.Sel.Name))
			})
		}
	}
	return found
}

// roomOf is the room that dir is in, as the tables write it, or "".
func roomOf(dir string) string {
	best := ""
	consider := func(room string) {
		if inRoom(dir, room) && len(room) > len(best) {
			best = room
		}
	}
	for _, column := range columns() {
		for _, room := range column {
			consider(room)
		}
	}
	for _, s := range sides() {
		consider(s.room)
	}
	return best
}

// inRoom says whether dir is in room: the path itself, "/..." for it and all
// below, "/*" for one folder of it and all below that.
func inRoom(dir, room string) bool {
	if parent, ok := strings.CutSuffix(room, "/..."); ok {
		return dir == parent || strings.HasPrefix(dir, parent+"/")
	}
	if parent, ok := strings.CutSuffix(room, "/*"); ok {
		return strings.HasPrefix(dir, parent+"/")
	}
	return dir == room
}

// sameRoom says whether two directories are in one room. Each folder of a "/*"
// room is a room of its own.
func sameRoom(a, b string) bool {
	room := roomOf(a)
	if room != roomOf(b) {
		return false
	}
	parent, ok := strings.CutSuffix(room, "/*")
	if !ok {
		return true
	}
	first := func(dir string) string {
		name, _, _ := strings.Cut(strings.TrimPrefix(dir, parent+"/"), "/")
		return name
	}
	return first(a) == first(b)
}

func columnOf(room string) int {
	return slices.IndexFunc(columns(), func(column []string) bool { return slices.Contains(column, room) })
}

// isStdlib says whether an import path is of the standard library: those have
// no dot in their first element.
func isStdlib(target string) bool {
	first, _, _ := strings.Cut(path.Clean(target), "/")
	return !strings.Contains(first, ".")
}
