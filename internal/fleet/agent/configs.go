package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"fettle/internal/act/roster"
)

// foundDir is where, under the state folder, what was found is kept.
const foundDir = "found"

// configurations returns what is to be open: an adapter's files, or else what it
// finds now and what it found earlier and is down at present.
func (a *Agent) configurations(ctx context.Context) []roster.Conf {
	kept := filepath.Join(a.o.StateDir, foundDir)
	earlier := map[string]roster.Conf{}
	for _, c := range a.written(kept) {
		if c.Err == nil && !c.Off() { // nothing: what a power cut left of it
			earlier[c.Key()] = c
		}
	}
	written := a.written(a.o.ConfigDir)
	var list []roster.Conf
	byHand := map[string]bool{}
	for _, c := range written {
		byHand[c.AdapterName()] = true
		if c.Err == nil && !c.Off() {
			list = append(list, c)
		}
	}
	for _, c := range roster.Found(ctx, a.o.Adapters, a.o.Machine, written, func(adapter string, err error) {
		if ctx.Err() == nil {
			a.o.Log.Warn("an adapter could not look for what is on this machine", "adapter", adapter, "error", err)
		}
	}) {
		list = append(list, c)
		was, again := earlier[c.Key()]
		delete(earlier, c.Key())
		if again && bytes.Equal(was.Text, asKept(c)) {
			continue
		}
		if err := keep(kept, c); err != nil {
			a.o.Log.Warn("what was found could not be kept; it is found again after a restart, if it runs then", "configuration", c.Key(), "error", err)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(earlier)) {
		if c := earlier[key]; !byHand[c.AdapterName()] {
			list = append(list, c)
		}
	}
	return list
}

// written reads the configurations in a folder. What cannot be read is told to the
// log, and is of no use.
func (a *Agent) written(dir string) []roster.Conf {
	list, err := roster.Written(dir, a.o.Adapters)
	if err != nil {
		a.o.Log.Error("the adapters' configurations cannot be read", "error", err)
	}
	for _, c := range list {
		if c.Err != nil {
			a.o.Log.Error("a configuration is of no use", "error", c.Err)
		}
	}
	return list
}

// checkConfig refuses a file in the configuration's folder that is of no use when
// the agent starts: what an administrator wrote is meant.
func (a *Agent) checkConfig() error {
	list, err := roster.Written(a.o.ConfigDir, a.o.Adapters)
	for _, c := range list {
		err = errors.Join(err, c.Err)
	}
	return err
}

// asKept is the configuration as it is kept: with where it was found.
func asKept(c roster.Conf) []byte {
	return append([]byte("# "+strings.ReplaceAll(c.From, "\n", " ")+"\n"), c.Text...)
}

// keep keeps what was found, for a restart while it is down.
func keep(dir string, c roster.Conf) error {
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
	return syncDir(dir)
}
