package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"fettle/internal/machine"
)

const (
	// maxConfig is the largest configuration of an adapter in bytes.
	maxConfig = 1 << 20
	// discoverWait is how long one adapter may look for what is on the machine.
	discoverWait = 10 * time.Second
	foundDir     = "found"
	confSuffix   = ".yaml"
)

// conf is one configuration of one adapter.
type conf struct {
	adapter machine.Adapter
	name    string
	text    []byte
	from    string // where it stands, or how it was found
}

func (c conf) key() string { return c.adapter.Catalogue().Adapter + "." + c.name }

// configurations returns what is to be open: files first, then what is found now,
// then what was found earlier and is down at present. A file takes the place of
// what is found under the same name; an empty one turns it off.
func (a *Agent) configurations(ctx context.Context) []conf {
	kept := filepath.Join(a.o.StateDir, foundDir)
	earlier := map[string]conf{}
	for _, c := range a.read(kept) {
		earlier[c.key()] = c
	}
	var list []conf
	named := map[string]bool{}
	add := func(c conf) bool {
		if named[c.key()] {
			return false
		}
		named[c.key()] = true
		if !blank(c.text) {
			list = append(list, c)
		}
		return true
	}
	for _, c := range a.read(a.o.ConfigDir) {
		add(c)
	}
	for _, c := range a.discover(ctx) {
		if add(c) && !bytes.Equal(earlier[c.key()].text, c.kept()) {
			if err := keep(kept, c); err != nil {
				a.o.Log.Warn("what was found could not be kept; it is found again after a restart, if it runs then", "configuration", c.key(), "error", err)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(earlier)) {
		if !blank(earlier[key].text) { // what a power cut left of a file turns nothing off
			add(earlier[key])
		}
	}
	return list
}

// discover asks all adapters what they find on the machine.
func (a *Agent) discover(ctx context.Context) []conf {
	var list []conf
	for _, ad := range a.o.Adapters {
		look, cancel := context.WithTimeout(ctx, discoverWait)
		found, err := ad.Discover(look, a.o.Machine)
		cancel()
		if err != nil && ctx.Err() == nil {
			a.o.Log.Warn("an adapter could not look for what is on this machine", "adapter", ad.Catalogue().Adapter, "error", err)
		}
		for _, f := range found {
			list = append(list, conf{adapter: ad, name: f.Name, text: f.Config, from: f.Why})
		}
	}
	return list
}

// read reads the configurations in a folder. What cannot be read or belongs to no
// adapter is told to the log and left out.
func (a *Agent) read(dir string) []conf {
	if dir == "" {
		return nil
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			a.o.Log.Error("the adapters' configurations cannot be read", "error", err)
		}
		return nil
	}
	var list []conf
	for _, f := range files {
		base, ok := strings.CutSuffix(f.Name(), confSuffix)
		if !ok || f.IsDir() {
			continue
		}
		adapter, name, _ := strings.Cut(base, ".")
		if name == "" {
			name = "main"
		}
		ad := a.adapterOf(adapter)
		if ad == nil {
			continue // the folder holds other configuration too
		}
		path := filepath.Join(dir, f.Name())
		text, err := readFile(path)
		if err != nil {
			a.o.Log.Error("a configuration cannot be read", "error", err)
			continue
		}
		list = append(list, conf{adapter: ad, name: name, text: text, from: path})
	}
	return list
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxConfig {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read", path, info.Size(), maxConfig)
	}
	return os.ReadFile(path)
}

// kept is the configuration as it is kept: with where it was found.
func (c conf) kept() []byte {
	return append([]byte("# "+strings.ReplaceAll(c.from, "\n", " ")+"\n"), c.text...)
}

// keep keeps what was found, for a restart while it is down.
func keep(dir string, c conf) error {
	if strings.ContainsAny(c.name, "/\x00") || c.name == "" || strings.HasPrefix(c.name, ".") {
		return fmt.Errorf("the name %q is not one for a file", c.name)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, c.key()+confSuffix)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(c.kept())
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(dir)
}

// blank reports whether a document holds nothing but comments.
func blank(text []byte) bool {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && !bytes.Equal(line, []byte("---")) {
			return false
		}
	}
	return true
}
