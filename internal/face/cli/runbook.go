package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fettle/internal/face/show"
	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/rehearse"
	"fettle/internal/judge/runbook"
)

func (a *app) runbookCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "runbook", Short: "List, show, check and test runbooks",
		Example: "  fettle runbook list\n  fettle runbook lint ./my-runbooks\n  fettle runbook test ./my-runbooks\n  fettle runbook schema > runbook.schema.json",
	}
	c.AddCommand(a.runbookList(), a.runbookShow(), a.runbookLint(), a.runbookTest(), a.runbookSchema())
	return c
}

// testSuffix ends the names of files that hold a runbook's tests.
const testSuffix = "_test.yaml"

// env is what runbooks are checked against.
func (a *app) env() (*expr.Env, []fettle.Catalogue, error) {
	cats := fettle.Join(a.catalogues())
	env, err := expr.New(cats)
	return env, cats, err
}

func (a *app) runbookList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the runbooks of this binary", Example: "  fettle runbook list", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			set, cats, err := a.ownBooks()
			if err != nil {
				return err
			}
			type row struct {
				Name  string      `json:"name"`
				For   fettle.Code `json:"for"`
				Rungs []string    `json:"rungs"`
			}
			rows := []row{}
			for _, b := range set.All() {
				r := row{Name: b.Name, For: b.For}
				for _, rung := range b.Rungs {
					r.Rungs = append(r.Rungs, rung.Name)
				}
				rows = append(rows, r)
			}
			return a.print(rows, func(p *show.Printer) {
				for _, r := range rows {
					p.Text(fmt.Sprintf("%-28s ", r.Name), strings.Join(r.Rungs, " → "))
				}
				for _, code := range set.Uncovered(cats) {
					p.Line("%-28s %s", code, p.Yellow("no runbook"))
				}
			})
		},
	}
}

func (a *app) ownBooks() (*runbook.Set, []fettle.Catalogue, error) {
	env, cats, err := a.env()
	if err != nil {
		return nil, nil, err
	}
	set, err := a.books(env, cats)
	return set, cats, err
}

func (a *app) runbookShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a runbook's file", Example: "  fettle runbook show etcd.data_lost", Args: cobra.ExactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			set, _, err := a.ownBooks()
			if err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
			var names []string
			for _, b := range set.All() {
				names = append(names, b.Name)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			set, _, err := a.ownBooks()
			if err != nil {
				return err
			}
			book, ok := set.Named(args[0])
			if !ok {
				return exit(ExitUsage, "no runbook %q (see `fettle runbook list`)", args[0])
			}
			src, err := fs.ReadFile(a.Runbooks, book.File)
			if err != nil {
				return err
			}
			return a.print(map[string]string{"name": book.Name, "file": book.File, "hash": book.Hash, "text": string(src)}, func(p *show.Printer) {
				p.Line("%s", strings.TrimRight(string(src), "\n"))
			})
		},
	}
}

// files lists the YAML files of folders or of the binary's own runbooks; each
// with its source.
func (a *app) files(args []string) (map[string]fs.FS, error) {
	if len(args) == 0 {
		return map[string]fs.FS{"": a.Runbooks}, nil
	}
	out := map[string]fs.FS{}
	for _, dir := range args {
		info, err := os.Stat(dir)
		if err != nil {
			return nil, exit(ExitUsage, "%w (name a folder of runbooks)", err)
		}
		if !info.IsDir() {
			return nil, exit(ExitUsage, "%s is not a folder of runbooks", dir)
		}
		out[dir] = os.DirFS(dir)
	}
	return out, nil
}

func walk(fsys fs.FS, each func(name string, src []byte) error) error {
	return fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(name) != ".yaml" {
			return err
		}
		src, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		return each(name, src)
	})
}

func (a *app) runbookLint() *cobra.Command {
	return &cobra.Command{
		Use: "lint [DIR…]", Short: "Check runbooks and their tests; without a folder, our own",
		Example: "  fettle runbook lint\n  fettle runbook lint ./my-runbooks",
		RunE: func(_ *cobra.Command, args []string) error {
			env, cats, err := a.env()
			if err != nil {
				return err
			}
			sources, err := a.files(args)
			if err != nil {
				return err
			}
			checked, wrong := 0, []string{}
			for dir, fsys := range sources {
				err := walk(fsys, func(name string, src []byte) error {
					checked++
					var err error
					file := filepath.Join(dir, name)
					if strings.HasSuffix(name, testSuffix) {
						_, err = runbook.ParseTests(file, src, cats)
					} else {
						_, err = runbook.Parse(file, src, env, cats)
					}
					if err != nil {
						wrong = append(wrong, err.Error())
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
			slices.Sort(wrong)
			if checked == 0 {
				return exit(ExitUsage, "no .yaml file was found, so nothing was checked")
			}
			if err := a.print(map[string]any{"checked": checked, "errors": wrong}, func(p *show.Printer) {
				for _, w := range wrong {
					p.Line("%s", w)
				}
				p.Line("%d files checked, %d with errors", checked, len(wrong))
			}); err != nil {
				return err
			}
			if len(wrong) > 0 {
				return &Exit{Code: ExitIll}
			}
			return nil
		},
	}
}

func (a *app) runbookTest() *cobra.Command {
	return &cobra.Command{
		Use: "test [DIR…]", Short: "Run runbook tests offline; without a folder, our own",
		Long: `Runs the tests (*_test.yaml) in folders, offline. A runbook there takes the
place of the shipped one of its name.`,
		Example: "  fettle runbook test\n  fettle runbook test ./my-runbooks",
		RunE: func(_ *cobra.Command, args []string) error {
			env, cats, err := a.env()
			if err != nil {
				return err
			}
			sources, err := a.files(args)
			if err != nil {
				return err
			}
			var results []rehearse.Result
			for _, dir := range slices.Sorted(maps.Keys(sources)) {
				list, err := a.testFolder(dir, sources[dir], env, cats)
				if err != nil {
					return &Exit{Code: ExitIll, Err: err}
				}
				results = append(results, list...)
			}
			return a.reportTests(results)
		},
	}
}

// testFolder runs the tests of one folder. The runbooks are compiled once for
// all its cases.
func (a *app) testFolder(dir string, fsys fs.FS, env *expr.Env, cats []fettle.Catalogue) ([]rehearse.Result, error) {
	set, err := a.booksWith(dir, fsys, env, cats)
	if err != nil {
		return nil, err
	}
	mind := func(policy fettle.Policy) (*incident.Mind, error) {
		compiled := func(*expr.Env, []fettle.Catalogue) (*runbook.Set, error) { return set, nil }
		return incident.New(incident.Options{Catalogues: a.catalogues(), Books: compiled, Policy: policy})
	}
	var results []rehearse.Result
	err = walk(fsys, func(name string, src []byte) error {
		if !strings.HasSuffix(name, testSuffix) {
			return nil
		}
		t, err := runbook.ParseTests(filepath.Join(dir, name), src, cats)
		if err != nil {
			return err
		}
		list, err := rehearse.File(t, mind)
		results = append(results, list...)
		return err
	})
	return results, err
}

// booksWith returns the binary's runbooks and those of a folder, each of which
// takes the place of the binary's of its name.
func (a *app) booksWith(dir string, fsys fs.FS, env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
	shipped, err := a.books(env, cats)
	if err != nil || dir == "" {
		return shipped, err
	}
	var books []*runbook.Runbook
	var wrong []error
	own := map[string]bool{}
	err = walk(fsys, func(name string, src []byte) error {
		if strings.HasSuffix(name, testSuffix) {
			return nil
		}
		b, err := runbook.Parse(filepath.Join(dir, name), src, env, cats)
		if err != nil {
			wrong = append(wrong, err)
			return nil
		}
		own[b.Name] = true
		books = append(books, b)
		return nil
	})
	if err := errors.Join(append(wrong, err)...); err != nil {
		return nil, err
	}
	for _, b := range shipped.All() {
		if !own[b.Name] {
			books = append(books, b)
		}
	}
	return runbook.NewSet(books...)
}

func (a *app) reportTests(results []rehearse.Result) error {
	failed := 0
	for _, r := range results {
		if len(r.Wrong) > 0 {
			failed++
		}
	}
	if len(results) == 0 {
		return exit(ExitUsage, "no *_test.yaml file was found, so nothing was tested")
	}
	if err := a.print(results, func(p *show.Printer) {
		for _, r := range results {
			p.Line("%s", r)
		}
		p.Line("%d passed, %d failed", len(results)-failed, failed)
	}); err != nil {
		return err
	}
	if failed > 0 {
		return &Exit{Code: ExitIll}
	}
	return nil
}

func (a *app) runbookSchema() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of runbook files, for editors", Args: cobra.NoArgs,
		Example: "  fettle runbook schema > runbook.schema.json",
		RunE: func(*cobra.Command, []string) error {
			_, err := a.out.Write(runbook.Schema())
			return err
		},
	}
}
