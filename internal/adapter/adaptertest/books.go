package adaptertest

import (
	"io/fs"
	"strings"
	"testing"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/runbook"
	"fettle/internal/machine"
)

// Books returns a Suite.Books that reads an adapter's runbooks.
func Books(fsys fs.FS, a machine.Adapter) func(*testing.T) map[fettle.Code]bool {
	return func(t *testing.T) map[fettle.Code]bool {
		t.Helper()
		cats := fettle.Join([]fettle.Catalogue{a.Catalogue()})
		env, err := expr.New(cats)
		if err != nil {
			t.Fatal(err)
		}
		names, err := fs.Glob(fsys, a.Catalogue().Adapter+"/*.yaml")
		if err != nil {
			t.Fatal(err)
		}
		mended := map[fettle.Code]bool{}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.yaml") {
				continue
			}
			src, err := fs.ReadFile(fsys, name)
			if err != nil {
				t.Fatal(err)
			}
			b, err := runbook.Parse(name, src, env, cats)
			if err != nil {
				t.Fatal(err)
			}
			mended[b.For] = true
		}
		return mended
	}
}
