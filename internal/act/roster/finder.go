package roster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"fettle/internal/machine"
)

// Finder says again and again which configurations are to be open on a machine, and
// remembers what was found, so that it is still there after a restart while what it is
// for is down.
type Finder struct {
	Adapters []machine.Adapter
	Machine  machine.Machine
	Dir      string // what an administrator wrote; "": nothing
	Kept     string // folder of what was found; made when something is
	Log      *slog.Logger
}

// Find returns what is to be open: an adapter's files, or else what it finds now and
// what it found earlier and is down at present. What is of no use is told to the log.
func (f Finder) Find(ctx context.Context) []Conf {
	earlier := map[string]Conf{}
	for _, c := range f.written(f.Kept) {
		if c.Err == nil && !c.Off() { // nothing: what a power cut left of it
			earlier[c.Key()] = c
		}
	}
	written := f.written(f.Dir)
	var list []Conf
	byHand := map[string]bool{}
	for _, c := range written {
		byHand[c.AdapterName()] = true
		if c.Err == nil && !c.Off() {
			list = append(list, c)
		}
	}
	for _, c := range Found(ctx, f.Adapters, f.Machine, written, func(adapter string, err error) {
		if ctx.Err() == nil {
			f.Log.Warn("an adapter could not look for what is on this machine", "adapter", adapter, "error", err)
		}
	}) {
		list = append(list, c)
		was, again := earlier[c.Key()]
		delete(earlier, c.Key())
		if again && bytes.Equal(was.Text, asKept(c)) {
			continue
		}
		if err := keep(f.Kept, c); err != nil {
			f.Log.Warn("what was found could not be kept; it is found again after a restart, if it runs then", "configuration", c.Key(), "error", err)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(earlier)) {
		if c := earlier[key]; !byHand[c.AdapterName()] {
			list = append(list, c)
		}
	}
	return list
}

// Check refuses a file in the configuration's folder that is of no use: what an
// administrator wrote is meant.
func (f Finder) Check() error {
	list, err := Written(f.Dir, f.Adapters)
	for _, c := range list {
		err = errors.Join(err, c.Err)
	}
	return err
}

func (f Finder) written(dir string) []Conf {
	list, err := Written(dir, f.Adapters)
	if err != nil {
		f.Log.Error("the adapters' configurations cannot be read", "error", err)
	}
	for _, c := range list {
		if c.Err != nil {
			f.Log.Error("a configuration is of no use", "error", c.Err)
		}
	}
	return list
}

// asKept is the configuration as it is kept: with where it was found.
func asKept(c Conf) []byte {
	return append([]byte("# "+strings.ReplaceAll(c.From, "\n", " ")+"\n"), c.Text...)
}

// keep keeps what was found, for a restart while it is down.
func keep(dir string, c Conf) error {
	if strings.ContainsAny(c.Name, "/\x00") || strings.HasPrefix(c.Name, ".") {
		return fmt.Errorf("the name %q is not one for a file", c.Name)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, c.File())
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(asKept(c))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
