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

func (c conf) adapterName() string { return c.adapter.Catalogue().Adapter }

// key names the configuration, and its file without the suffix.
func (c conf) key() string {
	if c.name == "" {
		return c.adapterName()
	}
	return c.adapterName() + "-" + c.name
}

// configurations returns what is to be open: an adapter's files, or else what it
// finds now and what it found earlier and is down at present. An empty file turns
// what it is named after off. What is found is only what no file speaks of, the
// rule of act/roster.
func (a *Agent) configurations(ctx context.Context) []conf {
	kept := filepath.Join(a.o.StateDir, foundDir)
	earlier := map[string]conf{}
	for _, c := range a.files(kept) {
		earlier[c.key()] = c
	}
	var list []conf
	byHand := map[string]bool{}
	for _, c := range a.files(a.o.ConfigDir) {
		byHand[c.adapterName()] = true
		if !blank(c.text) {
			list = append(list, c)
		}
	}
	named := map[string]bool{}
	for _, c := range a.discover(ctx, byHand) {
		named[c.key()] = true
		list = append(list, c)
		if was, ok := earlier[c.key()]; ok && bytes.Equal(was.text, c.kept()) {
			continue
		}
		if err := keep(kept, c); err != nil {
			a.o.Log.Warn("what was found could not be kept; it is found again after a restart, if it runs then", "configuration", c.key(), "error", err)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(earlier)) {
		c := earlier[key]
		if !named[key] && !byHand[c.adapterName()] && !blank(c.text) { // blank: what a power cut left of it
			list = append(list, c)
		}
	}
	return list
}

// checkConfig refuses a file in the configuration's folder that is meant for no
// adapter that is here: what an administrator wrote is meant.
func (a *Agent) checkConfig() error {
	entries, err := os.ReadDir(a.o.ConfigDir)
	if a.o.ConfigDir == "" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the adapters' configurations: %w", err)
	}
	for _, e := range entries {
		if base, ok := strings.CutSuffix(e.Name(), confSuffix); ok && !e.IsDir() {
			if adapter, _, _ := strings.Cut(base, "-"); a.adapterOf(adapter) == nil {
				return fmt.Errorf("%s: no adapter here is called %q (see `fettle adapters`)", filepath.Join(a.o.ConfigDir, e.Name()), adapter)
			}
		}
	}
	return nil
}

// discover asks the adapters what they find on the machine.
func (a *Agent) discover(ctx context.Context, not map[string]bool) []conf {
	var list []conf
	for _, ad := range a.o.Adapters {
		if not[ad.Catalogue().Adapter] {
			continue
		}
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

// files reads the configurations in a folder, ADAPTER.yaml and ADAPTER-NAME.yaml.
// What cannot be read is told to the log and left out.
func (a *Agent) files(dir string) []conf {
	if dir == "" {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			a.o.Log.Error("the adapters' configurations cannot be read", "error", err)
		}
		return nil
	}
	var list []conf
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), confSuffix)
		if !ok || e.IsDir() {
			continue
		}
		adapter, name, _ := strings.Cut(base, "-")
		ad := a.adapterOf(adapter)
		if ad == nil {
			continue // see checkConfig
		}
		path := filepath.Join(dir, e.Name())
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
	if strings.ContainsAny(c.name, "/\x00") || strings.HasPrefix(c.name, ".") {
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
