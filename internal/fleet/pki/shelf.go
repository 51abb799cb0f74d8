package pki

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Shelf keeps what a Register writes: small records by kind and id, each made
// once, never changed and taken away at most once, durably when the call returns.
// Ids are of letters, digits and hyphens. All methods may be called concurrently.
type Shelf interface {
	// Create keeps a record. One that is there already is an error that wraps
	// fs.ErrExist.
	Create(ctx context.Context, kind, id string, data []byte) error
	// Read returns a record; the error wraps fs.ErrNotExist where there is none.
	Read(ctx context.Context, kind, id string) ([]byte, error)
	// Remove takes a record away. Of two that try, one gets fs.ErrNotExist.
	Remove(ctx context.Context, kind, id string) error
	// List returns the records of a kind by id.
	List(ctx context.Context, kind string) (map[string][]byte, error)
}

// Folder is a Shelf in a folder of files that only its owner may read.
type Folder string

func (f Folder) file(kind, id string) string {
	return filepath.Join(string(f), kind, filepath.Base(id)+".json")
}

// Create implements Shelf.
func (f Folder) Create(_ context.Context, kind, id string, data []byte) error {
	if err := makeDir(filepath.Join(string(f), kind)); err != nil {
		return err
	}
	return writeDurable(f.file(kind, id), data, true)
}

// Read implements Shelf.
func (f Folder) Read(_ context.Context, kind, id string) ([]byte, error) {
	return os.ReadFile(f.file(kind, id))
}

// Remove implements Shelf.
func (f Folder) Remove(_ context.Context, kind, id string) error {
	return removeDurable(f.file(kind, id))
}

// List implements Shelf.
func (f Folder) List(_ context.Context, kind string) (map[string][]byte, error) {
	names, err := filepath.Glob(f.file(kind, "*"))
	if err != nil {
		return nil, err
	}
	list := map[string][]byte{}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // taken away meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list[strings.TrimSuffix(filepath.Base(name), ".json")] = data
	}
	return list, nil
}
