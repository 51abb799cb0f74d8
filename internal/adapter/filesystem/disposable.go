package filesystem

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"fettle/internal/machine"
)

// file is one file with its path.
type file struct {
	path string
	stat machine.Stat
}

func total(files []file) int64 {
	sum := int64(0)
	for _, f := range files {
		sum += f.stat.Allocated
	}
	return sum
}

// under lists the regular files below a folder, on one device, at most depth
// folders deep, that keep accepts, sorted by path. keep is also told what else
// is in the folder. A folder that is not there holds nothing; one that cannot be
// read is an error.
func (i *instance) under(ctx context.Context, dir string, device uint64, depth int, keep func(name string, siblings []machine.Stat) bool) ([]file, error) {
	entries, err := i.m.Files.ReadDir(ctx, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	var out []file
	for _, e := range entries {
		p := path.Join(dir, e.Name)
		switch {
		case e.Device != device:
		case e.Mode.IsDir() && depth > 0:
			deeper, err := i.under(ctx, p, device, depth-1, keep)
			if err != nil {
				return nil, err
			}
			out = append(out, deeper...)
		case e.Mode.IsRegular() && keep(e.Name, entries):
			out = append(out, file{p, e})
		}
	}
	return out, nil
}

func (i *instance) underAll(ctx context.Context, dirs []string, device uint64, depth int, keep func(string, []machine.Stat) bool) ([]file, error) {
	var out []file
	for _, dir := range dirs {
		files, err := i.under(ctx, dir, device, depth, keep)
		if err != nil {
			return nil, err
		}
		out = append(out, files...)
	}
	return out, nil
}

// journalFiles lists the files of the system journal: DIR/MACHINE-ID/*.journal,
// those that were found damaged with a tilde.
func (i *instance) journalFiles(ctx context.Context, device uint64) ([]file, error) {
	return i.underAll(ctx, i.config.JournalDirs, device, 1, isJournal)
}

func isJournal(name string, _ []machine.Stat) bool {
	return strings.HasSuffix(name, ".journal") || strings.HasSuffix(name, ".journal~")
}

// packages lists downloaded packages.
func (i *instance) packages(ctx context.Context, device uint64) ([]file, error) {
	return i.underAll(ctx, i.config.PackageCaches, device, 0, func(n string, _ []machine.Stat) bool { return strings.HasSuffix(n, ".deb") })
}

// rotatedLogs lists logs that were rotated and not compressed: NAME.1, NAME.2 …
// beside NAME. Without NAME the number may be anything, a version for instance.
func (i *instance) rotatedLogs(ctx context.Context, device uint64) ([]file, error) {
	return i.underAll(ctx, i.config.LogDirs, device, 2, func(name string, siblings []machine.Stat) bool {
		live, ok := rotated(name)
		return ok && slices.ContainsFunc(siblings, func(s machine.Stat) bool { return s.Name == live && s.Mode.IsRegular() })
	})
}

// rotated splits NAME.N as logrotate(8) numbers logs: from 1, without leading
// zeros. Binary logs of databases (binlog.000012) are numbered with them, and
// are anything but disposable.
func rotated(name string) (live string, ok bool) {
	ext := path.Ext(name)
	if len(ext) < 2 {
		return "", false
	}
	live = strings.TrimSuffix(name, ext)
	n, err := strconv.Atoi(ext[1:])
	if err != nil || n < 1 || n >= 1000 || strconv.Itoa(n) != ext[1:] || live == "" || live == "." {
		return "", false
	}
	return live, true
}
