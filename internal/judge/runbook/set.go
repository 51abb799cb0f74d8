package runbook

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
)

// Set is all runbooks of a fleet. It is not changed after it was made.
type Set struct {
	books []*Runbook // sorted by name
	hash  string
}

// Load reads every <adapter>/*.yaml of a tree, except *_test.yaml. Errors of all
// files are joined; no set is returned beside one.
func Load(fsys fs.FS, env *expr.Env, catalogue []fettle.Catalogue) (*Set, error) {
	names, err := fs.Glob(fsys, "*/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list runbooks: %w", err)
	}
	var books []*Runbook
	var wrong []error
	for _, name := range names {
		if strings.HasSuffix(name, "_test.yaml") {
			continue
		}
		src, err := fs.ReadFile(fsys, name)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("read runbook: %w", err))
			continue
		}
		b, err := Parse(name, src, env, catalogue)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		books = append(books, b)
	}
	set, err := NewSet(books...)
	if err := errors.Join(append(wrong, err)...); err != nil {
		return nil, err
	}
	return set, nil
}

// NewSet makes a set; two runbooks of one name are an error.
func NewSet(books ...*Runbook) (*Set, error) {
	sorted := slices.Clone(books)
	slices.SortStableFunc(sorted, func(a, b *Runbook) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.File, b.File)) })
	var wrong []error
	sum := sha256.New()
	for i, b := range sorted {
		if i > 0 && sorted[i-1].Name == b.Name {
			wrong = append(wrong, fmt.Errorf("%s: runbook %q is also in %s; policies and incidents speak of runbooks by name, so rename one", b.File, b.Name, sorted[i-1].File))
		}
		fmt.Fprintf(sum, "%q %s\n", b.Name, b.Hash)
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	return &Set{books: sorted, hash: hex.EncodeToString(sum.Sum(nil))}, nil
}

// All returns all runbooks, sorted by name.
func (s *Set) All() []*Runbook { return slices.Clone(s.books) }

// For returns the runbooks for a cause, sorted by name.
func (s *Set) For(code fettle.Code) []*Runbook {
	var list []*Runbook
	for _, b := range s.books {
		if b.For == code {
			list = append(list, b)
		}
	}
	return list
}

// Named returns the runbook of this name.
func (s *Set) Named(name string) (*Runbook, bool) {
	i, ok := slices.BinarySearchFunc(s.books, name, func(b *Runbook, n string) int { return cmp.Compare(b.Name, n) })
	if !ok {
		return nil, false
	}
	return s.books[i], true
}

// Hash is over the names and hashes of all runbooks; a replay pins it.
func (s *Set) Hash() string { return s.hash }

// Uncovered returns the conditions that have neither a runbook nor a reason why
// not (NotMended, or Explains), sorted.
func (s *Set) Uncovered(catalogue []fettle.Catalogue) []fettle.Code {
	var list []fettle.Code
	for i := range catalogue {
		for _, c := range catalogue[i].Conditions {
			if c.NotMended == "" && !c.Explains && len(s.For(c.Code)) == 0 {
				list = append(list, c.Code)
			}
		}
	}
	slices.Sort(list)
	return list
}
