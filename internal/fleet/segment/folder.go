package segment

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// What files of a folder are called that are no segments.
const (
	half  = ".half"  // being written
	aside = ".aside" // was not what its name says
)

// Folder holds segments. Its methods may be called concurrently; a segment is put by one
// at a time.
type Folder struct{ dir string }

// Open opens a folder, making it for its owner only. What was half written when a
// process was killed is removed.
func Open(dir string) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("folder of segments: %w", err)
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("folder of segments: %w", err)
	}
	for _, entry := range list {
		if strings.HasSuffix(entry.Name(), half) {
			if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
				return nil, fmt.Errorf("folder of segments: %w", err)
			}
		}
	}
	return &Folder{dir}, nil
}

// Dir is where the segments are.
func (f *Folder) Dir() string { return f.dir }

func (f *Folder) path(r Ref) string { return filepath.Join(f.dir, r.Name()) }

// Load returns the lines of a segment. The error is a *Bad where it is missing or is not
// what was sealed.
func (f *Folder) Load(r Ref) ([][]byte, error) {
	_, lines, err := f.read(r)
	return lines, err
}

// Bytes returns all bytes of a segment, found to be those that were sealed. Errors are
// those of Load.
func (f *Folder) Bytes(r Ref) ([]byte, error) {
	data, _, err := f.read(r)
	return data, err
}

// read reads a segment and looks at all of it, once.
func (f *Folder) read(r Ref) (data []byte, lines [][]byte, err error) {
	if err := r.check(); err != nil {
		return nil, nil, err
	}
	file, err := os.Open(f.path(r))
	if err != nil {
		return nil, nil, &Bad{r, err}
	}
	defer file.Close()
	data, err = io.ReadAll(io.LimitReader(file, MaxBytes+1))
	if err != nil {
		return nil, nil, &Bad{r, err}
	}
	if lines, err = Parse(r, data); err != nil {
		return nil, nil, err
	}
	return data, lines, nil
}

// Has reports whether a segment's file is there and as long as it should be, without
// reading it.
func (f *Folder) Has(r Ref) bool {
	info, err := os.Stat(f.path(r))
	return err == nil && info.Mode().IsRegular() && info.Size() == r.Bytes
}

// Put keeps a segment, durably when it returns nil. What is not the segment is a *Bad,
// and nothing is kept. A file in its place that is not it is set aside first.
func (f *Folder) Put(r Ref, data []byte) error {
	if _, err := Parse(r, data); err != nil {
		return err
	}
	path := f.path(r)
	if _, err := f.Bytes(r); err == nil {
		return f.sync() // a rename that was seen need not be durable yet
	} else if _, serr := os.Lstat(path); serr == nil {
		if err := f.setAside(r); err != nil {
			return err
		}
	}
	err := write(path+half, data)
	if err == nil {
		err = os.Rename(path+half, path)
	}
	if err != nil {
		return fmt.Errorf("keep %s: %w", r, errors.Join(err, remove(path+half)))
	}
	return f.sync()
}

func write(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sync makes durable which files there are.
func (f *Folder) sync() error {
	dir, err := os.Open(f.dir)
	if err == nil {
		err = errors.Join(dir.Sync(), dir.Close())
	}
	if err != nil {
		return fmt.Errorf("folder of segments: %w", err)
	}
	return nil
}

// setAside takes a file that is not what its name says out of the way, as evidence.
// Where there is none it does nothing.
func (f *Folder) setAside(r Ref) error {
	for n := 0; ; n++ {
		to := fmt.Sprintf("%s%s%d", f.path(r), aside, n)
		if _, err := os.Lstat(to); err == nil {
			continue
		}
		if err := os.Rename(f.path(r), to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set %s aside: %w", r, err)
		}
		return f.sync()
	}
}

// Trim removes copies of what nobody knows: files of segments that are not among those
// that are wanted. What was set aside stays.
func (f *Folder) Trim(wanted func(name string) bool) error {
	list, err := os.ReadDir(f.dir)
	if err != nil {
		return fmt.Errorf("folder of segments: %w", err)
	}
	for _, name := range names(list) {
		if !wanted(name) {
			if err := os.Remove(filepath.Join(f.dir, name)); err != nil {
				return fmt.Errorf("folder of segments: %w", err)
			}
		}
	}
	return nil
}

func names(list []fs.DirEntry) []string {
	var out []string
	for _, entry := range list {
		if strings.HasSuffix(entry.Name(), ".jsonl") {
			out = append(out, entry.Name())
		}
	}
	slices.Sort(out)
	return out
}
