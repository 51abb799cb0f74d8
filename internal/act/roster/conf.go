package roster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"fettle/internal/machine"
)

const (
	// maxConf is the largest configuration of an adapter in bytes.
	maxConf = 1 << 20
	// discoverWithin bounds what one adapter may take to find what it looks after:
	// one that hangs must not keep the others from being opened.
	discoverWithin = 10 * time.Second
	suffix         = ".yaml"
)

// Conf is one configuration of one adapter.
type Conf struct {
	Adapter machine.Adapter
	Name    string // tells it from others of the same adapter; "" when there is only one
	Text    []byte // YAML
	From    string // the file, or why it was found
	Err     error  // not nil: a file that cannot be read or is meant for no adapter here
}

// AdapterName is the name of its adapter, "" when no adapter here has it.
func (c Conf) AdapterName() string {
	if c.Adapter == nil {
		return ""
	}
	return c.Adapter.Catalogue().Adapter
}

// Key is its name among all, ADAPTER or ADAPTER-NAME, and that of its file without
// the suffix.
func (c Conf) Key() string {
	if c.Name == "" {
		return c.AdapterName()
	}
	return c.AdapterName() + "-" + c.Name
}

// File is the name of the file that it is kept in.
func (c Conf) File() string { return c.Key() + suffix }

// Off reports whether it holds nothing but comments. A file like that turns off
// what it is named after: the adapter looks after nothing by itself.
func (c Conf) Off() bool {
	for line := range bytes.Lines(c.Text) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && !bytes.Equal(line, []byte("---")) {
			return false
		}
	}
	return c.Err == nil
}

// Written reads the files ADAPTER.yaml and ADAPTER-NAME.yaml in dir, sorted. One
// that is of no use is among them, with its Err. A folder that is not there, or the
// name "", holds none; the error is that the folder cannot be read.
func Written(dir string, adapters []machine.Adapter) ([]Conf, error) {
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the adapters' configurations: %w", err)
	}
	var list []Conf
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || e.IsDir() {
			continue
		}
		adapter, name, _ := strings.Cut(base, "-")
		c := Conf{Name: name, From: filepath.Join(dir, e.Name())}
		for _, a := range adapters {
			if a.Catalogue().Adapter == adapter {
				c.Adapter = a
			}
		}
		if c.Adapter == nil {
			c.Err = fmt.Errorf("%s: no adapter here is called %q (see `fettle adapters`)", c.From, adapter)
		} else {
			c.Text, c.Err = readConf(c.From)
		}
		list = append(list, c)
	}
	return list, nil
}

func readConf(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read a configuration: %w", err)
	}
	if info.Size() > maxConf {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read", path, info.Size(), maxConf)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read a configuration: %w", err)
	}
	return text, nil
}

// Found asks the adapters, each for at most ten seconds, what they find on the
// machine. An adapter that a file in written speaks of is not asked: what an
// administrator wrote is meant. failed is told who could not look, and may be nil.
func Found(ctx context.Context, adapters []machine.Adapter, m machine.Machine, written []Conf, failed func(adapter string, err error)) []Conf {
	byHand := map[string]bool{}
	for _, c := range written {
		byHand[c.AdapterName()] = true
	}
	var list []Conf
	for _, a := range adapters {
		name := a.Catalogue().Adapter
		if byHand[name] {
			continue
		}
		look, cancel := context.WithTimeout(ctx, discoverWithin)
		found, err := a.Discover(look, m)
		cancel()
		if err != nil && failed != nil {
			failed(name, err)
		}
		for _, f := range found {
			list = append(list, Conf{Adapter: a, Name: f.Name, Text: f.Config, From: f.Why})
		}
	}
	return list
}
