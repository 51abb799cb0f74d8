package runbooks_test

import (
	"io/fs"
	"strings"
	"sync"
	"testing"

	"fettle/internal/adapter/etcd"
	"fettle/internal/adapter/filesystem"
	"fettle/internal/adapter/firewall"
	"fettle/internal/adapter/systemd"
	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/rehearse"
	"fettle/internal/judge/runbook"
	"fettle/runbooks"
)

func catalogues() []fettle.Catalogue {
	return []fettle.Catalogue{etcd.Catalogue(), systemd.Catalogue(), filesystem.Catalogue(), firewall.Catalogue()}
}

func mind(policy fettle.Policy) (*incident.Mind, error) {
	return incident.New(incident.Options{
		Catalogues: catalogues(), Policy: policy,
		Books: func(*expr.Env, []fettle.Catalogue) (*runbook.Set, error) { return books() },
	})
}

// books compiles the runbooks once for all the minds of these tests.
var books = sync.OnceValues(func() (*runbook.Set, error) {
	cats := fettle.Join(catalogues())
	env, err := expr.New(cats)
	if err != nil {
		return nil, err
	}
	return runbook.Load(runbooks.FS(), env, cats)
})

// TestRunbooks runs every runbook's tests, and every runbook has some.
func TestRunbooks(t *testing.T) {
	m, err := mind(fettle.Policy{})
	if err != nil {
		t.Fatal(err)
	}
	tested := map[string]bool{}
	err = fs.WalkDir(runbooks.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, "_test.yaml") {
			return err
		}
		src, err := fs.ReadFile(runbooks.FS(), name)
		if err != nil {
			return err
		}
		file, err := runbook.ParseTests("runbooks/"+name, src, m.Catalogues())
		if err != nil {
			t.Errorf("%v", err)
			return nil
		}
		tested[file.Runbook] = true
		results, err := rehearse.File(file, mind)
		if err != nil {
			return err
		}
		for _, r := range results {
			t.Run(file.Runbook+"/"+r.Case, func(t *testing.T) {
				if len(r.Wrong) > 0 {
					t.Error(r)
				}
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range m.Books().All() {
		if !tested[b.Name] {
			t.Errorf("runbook %s has no test; write runbooks/%s", b.Name, strings.TrimSuffix(b.File, ".yaml")+"_test.yaml")
		}
	}
	for _, code := range m.Books().Uncovered(m.Catalogues()) {
		t.Errorf("condition %s has neither a runbook nor a reason why not", code)
	}
}
