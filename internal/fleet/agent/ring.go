package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"

	"fettle/internal/fleet/member"
	"fettle/internal/fleet/wire"
)

// ringSchema is the version of the file that this package writes, and the newest that
// it reads.
const ringSchema = 1

// ringMax is how large that file may be, and how many keys and seeds a ring may have.
const (
	ringMax      = 64 << 10
	ringKeysMax  = 8
	ringSeedsMax = 64
)

// ring is the word of which gossip ring this host takes part in. It has secrets: it is
// never logged.
type ring struct {
	Schema   int             `json:"schema"`
	Name     string          `json:"name"` // "": in none
	Keys     [][]byte        `json:"keys"` // all are accepted
	Use      member.KeyID    `json:"use"`  // the one to encrypt with
	Seeds    []string        `json:"seeds"`
	Zone     string          `json:"zone,omitempty"`
	Rack     string          `json:"rack,omitempty"`
	Settings member.Settings `json:"settings"`
	Bind     string          `json:"bind"` // this host's own address and port for it
}

// String leaves the secrets out.
func (r ring) String() string { return fmt.Sprintf("ring %q at %s, key %s", r.Name, r.Bind, r.Use) }

// readRing reads the server's word.
func readRing(w *wire.Ring) (ring, error) {
	if w.GetName() == "" {
		return ring{Schema: ringSchema}, nil
	}
	r := ring{Schema: ringSchema, Name: w.GetName(), Keys: w.GetKeys(), Use: member.KeyID(w.GetUse()), Seeds: w.GetSeeds(), Zone: w.GetZone(), Rack: w.GetRack()}
	if s := w.GetSettings(); len(s) > 0 {
		if err := json.Unmarshal(s, &r.Settings); err != nil {
			return ring{}, fmt.Errorf("the gossip's settings: %w", err)
		}
	}
	return r, r.check()
}

func (r ring) check() error {
	switch {
	case len(r.Keys) == 0 || len(r.Keys) > ringKeysMax:
		return fmt.Errorf("gossip ring %q: %d keys, want 1 to %d", r.Name, len(r.Keys), ringKeysMax)
	case len(r.Seeds) > ringSeedsMax:
		return fmt.Errorf("gossip ring %q: %d seeds, want %d at most", r.Name, len(r.Seeds), ringSeedsMax)
	case r.using() == nil:
		return fmt.Errorf("gossip ring %q: the key to use, %.12s, is not among those that were sent", r.Name, r.Use)
	}
	return nil
}

// using is the key to encrypt with, nil if it is not there.
func (r ring) using() []byte {
	for _, k := range r.Keys {
		if member.IDOf(k) == r.Use {
			return k
		}
	}
	return nil
}

func (r ring) newKeys() (*member.Keys, error) {
	return member.NewKeys(r.using(), r.Keys...)
}

// install makes the keys those of this word: new ones first, so that the one in use is
// always among them, and what is not named any more last.
func (r ring) install(keys *member.Keys) error {
	var err error
	for _, k := range r.Keys {
		err = errors.Join(err, keys.Install(k))
	}
	err = errors.Join(err, keys.Use(r.Use))
	for _, id := range keys.List() {
		if !slices.ContainsFunc(r.Keys, func(k []byte) bool { return member.IDOf(k) == id }) {
			err = errors.Join(err, keys.Remove(id))
		}
	}
	return err
}

// seeds are the addresses of others; what is none is passed over.
func (r ring) seeds() []netip.AddrPort {
	var list []netip.AddrPort
	for _, text := range r.Seeds {
		if at, err := netip.ParseAddrPort(text); err == nil {
			list = append(list, at)
		}
	}
	return list
}

// otherNode reports whether going from one word to the other takes another node; keys
// and seeds change in a node that runs.
func (r ring) otherNode(from ring) bool {
	return r.Name != from.Name || r.Bind != from.Bind || r.Zone != from.Zone || r.Rack != from.Rack || r.Settings != from.Settings
}

// ringFile is where the last word is kept, for its owner only.
type ringFile string

func ringFileIn(dir string) ringFile { return ringFile(filepath.Join(dir, "ring")) }

// read returns the word that was kept, the zero ring where there is none.
func (f ringFile) read() (ring, error) {
	data, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return ring{}, nil
	}
	if err != nil {
		return ring{}, err
	}
	r, err := parseRing(data)
	if err != nil {
		return ring{}, fmt.Errorf("%s: %w", string(f), err)
	}
	return r, nil
}

// parseRing reads the file. Its errors have no part of it.
func parseRing(data []byte) (ring, error) {
	var r ring
	if len(data) > ringMax {
		return ring{}, fmt.Errorf("%d bytes, more than %d", len(data), ringMax)
	}
	if err := json.Unmarshal(bytes.TrimSpace(data), &r); err != nil {
		return ring{}, errors.New("it is damaged (it is written anew at the next contact with a server)")
	}
	if r.Schema != ringSchema {
		return ring{}, fmt.Errorf("schema %d; this version reads schema %d", r.Schema, ringSchema)
	}
	if r.Name == "" {
		return ring{Schema: ringSchema}, nil
	}
	return r, r.check()
}

func (f ringFile) write(r ring) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return renameio.WriteFile(string(f), data, 0o600)
}
