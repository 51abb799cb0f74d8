package repolint

import (
	"bytes"
	"fmt"
	"go/importer"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// root finds the repository: the nearest directory above with a go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the working directory")
		}
		dir = up
	}
}

// goCommand runs the go command in dir and gives what it prints.
func goCommand(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// exportData makes a lookup that finds the compiled type information of the
// packages that go list is asked for, and of all that they import. The go
// command builds it, or has it in its cache.
func exportData(t *testing.T, dir string, packages ...string) func(string) (io.ReadCloser, error) {
	t.Helper()
	args := append([]string{"list", "-export", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}"}, packages...)
	files := map[string]string{}
	for line := range strings.Lines(goCommand(t, dir, nil, args...)) {
		if name, file, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok && file != "" {
			files[name] = file
		}
	}
	return func(name string) (io.ReadCloser, error) {
		file, ok := files[name]
		if !ok {
			return nil, fmt.Errorf("no type information for %s", name)
		}
		return os.Open(file)
	}
}

// loaded is the repository, parsed once for all tests of this package.
var loaded struct {
	once sync.Once
	tree *Tree
	err  error
}

func repository(t *testing.T) *Tree {
	t.Helper()
	dir := root(t)
	loaded.once.Do(func() { loaded.tree, loaded.err = Load(os.DirFS(dir)) })
	if loaded.err != nil {
		t.Fatal(loaded.err)
	}
	return loaded.tree
}

// TestRepository holds the repository to every rule: one subtest a rule, so
// that `go test -run TestRepository/imports` asks for one of them.
func TestRepository(t *testing.T) {
	tree := repository(t)
	for _, rule := range Rules() {
		t.Run(rule.Name, func(t *testing.T) {
			if rule.Name == "judge-map-order" {
				withTypes := *tree
				withTypes.Importer = importer.ForCompiler(tree.Fset, "gc", exportData(t, root(t), "./"+judgeRoom+"/..."))
				tree = &withTypes
			}
			findings := Run(rule, tree)
			for _, f := range findings {
				t.Error(f)
			}
			if len(findings) > 0 {
				t.Log("What to do: " + rule.Todo)
			}
		})
	}
}

// TestRepositoryIsSeen guards the rules against passing because they looked at
// nothing: the tree has the packages that the rules are about.
func TestRepositoryIsSeen(t *testing.T) {
	tree := repository(t)
	for _, dir := range []string{"cmd/fettle", "internal/fettle", "internal/judge", "internal/machine", "internal/act", "internal/loop",
		"internal/adapter", "internal/fleet", "internal/face", "runbooks", "lab"} {
		seen := false
		for _, f := range tree.Go {
			seen = seen || inRoom(f.Dir, dir+"/...") && !f.Test
		}
		if !seen {
			t.Errorf("%s has no Go source: either the walk missed it, or rooms.go speaks of a room that is not there", dir)
		}
	}
	if tree.Module != "fettle" {
		t.Errorf("module %q: import rules compare with the module path of go.mod", tree.Module)
	}
}
