package roster_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fettle/internal/act/roster"
	"fettle/internal/fettle"
	"fettle/internal/machine"
)

// toy is an adapter that finds one thing and opens what does not say "bad".
type toy struct{ name string }

func (a toy) Catalogue() fettle.Catalogue { return fettle.Catalogue{Adapter: a.name} }

func (a toy) Discover(context.Context, machine.Machine) ([]machine.Found, error) {
	if a.name == "blind" {
		return nil, errors.New("it cannot look")
	}
	return []machine.Found{{Name: "found", Config: []byte("x: 1"), Why: "it runs"}}, nil
}

func (a toy) Open(_ context.Context, _ machine.Machine, config []byte) (fettle.Instance, error) {
	if strings.Contains(string(config), "bad") {
		return nil, errors.New("bad: no such setting")
	}
	return opened{}, nil
}

type opened struct{ fettle.Instance }

func (opened) Close() error { return nil }

func open(t *testing.T, files map[string]string, adapters ...string) (*roster.Roster, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var list []machine.Adapter
	for _, name := range adapters {
		list = append(list, toy{name})
	}
	return roster.Open(t.Context(), list, machine.Machine{}, dir)
}

func TestOpen(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  []string // keys of what is open
	}{
		{"what is found", nil, []string{"db-found", "web-found"}},
		{"a file wins over what would be found", map[string]string{"db.yaml": "x: 2"}, []string{"db", "web-found"}},
		{"each of several files", map[string]string{"db-b.yaml": "x: 2", "db-a.yaml": "x: 1"}, []string{"db-a", "db-b", "web-found"}},
		{"an empty file turns off", map[string]string{"db.yaml": "---\n# nothing here\n"}, []string{"web-found"}},
		{"what is no configuration is left alone", map[string]string{"README.md": "bad", "policy.yml": "bad"}, []string{"db-found", "web-found"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := open(t, c.files, "db", "web")
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, i := range r.Items {
				got = append(got, i.Name)
			}
			if slices.Sort(got); !slices.Equal(got, c.want) || len(r.Instances) != len(c.want) {
				t.Errorf("open: %v (%d instances), want %v", got, len(r.Instances), c.want)
			}
		})
	}
}

// What an administrator wrote is meant: a file that is of no use is an error that
// names it, not an adapter that looks after nothing.
func TestUselessFile(t *testing.T) {
	for name, text := range map[string]string{"nobody.yaml": "x: 1", "db-x.yaml": "bad: 1", "web.yaml": strings.Repeat("#", 1<<20+1)} {
		if _, err := open(t, map[string]string{name: text}, "db", "web"); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want an error that names it", name, err)
		}
	}
}

// One that cannot look is named; the others work.
func TestBlindAdapter(t *testing.T) {
	r, err := open(t, nil, "blind", "db")
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Instances) != 1 || len(r.Items) != 2 || !strings.Contains(r.Items[0].Error, "cannot look") {
		t.Errorf("%d instances, items %+v", len(r.Instances), r.Items)
	}
}
