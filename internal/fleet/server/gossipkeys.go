package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"fettle/internal/fleet/member"
	"fettle/internal/fleet/pki"
)

// The gossip's keys stand on the register's shelf, under this kind. A record is made
// once and taken away once, so every server reads the same, and a change that was broken
// off is gone on with by the next leader:
//
//	key-N   a key, with its secret
//	use-N   all hosts accept key N: it is the one to encrypt with
const (
	shelfGossip = "gossip"
	keyPrefix   = "key-"
	usePrefix   = "use-"
)

// gossipKeySize chooses AES-256.
const gossipKeySize = 32

// gossipKey is one key. Its secret goes to agents and nowhere else (S14).
type gossipKey struct {
	serial int
	secret []byte
	id     member.KeyID
}

// keyRecord is a key on the shelf.
type keyRecord struct {
	Schema int       `json:"schema"`
	Secret []byte    `json:"secret"`
	Made   time.Time `json:"made"`
}

// keyset is the keys as the shelf has them, oldest first, and the serial of the one in
// use; 0: none yet.
type keyset struct {
	keys []gossipKey
	use  int
}

// newest is the last key; false where there is none.
func (k keyset) newest() (gossipKey, bool) {
	if len(k.keys) == 0 {
		return gossipKey{}, false
	}
	return k.keys[len(k.keys)-1], true
}

// using is the key to encrypt with.
func (k keyset) using() gossipKey {
	for _, one := range k.keys {
		if one.serial == k.use {
			return one
		}
	}
	return gossipKey{}
}

// phase is what a rotation waits for.
type phase uint8

const (
	settled    phase = iota // one key, and it is used
	installing              // a new key is on its way to all hosts
	using                   // all have the new key, and are told to use it
)

func (p phase) String() string {
	switch p {
	case installing:
		return "the new key is on its way: every host must have it before one uses it"
	case using:
		return "the new key is being taken into use: the old one goes when every host has done so"
	case settled:
	}
	return ""
}

// phase says how far a rotation is.
func (k keyset) phase() phase {
	newest, _ := k.newest()
	switch {
	case newest.serial > k.use:
		return installing
	case len(k.keys) > 1:
		return using
	}
	return settled
}

// confirms reports whether a host that has these keys, the one it uses first, is as far
// as the phase wants it.
func (k keyset) confirms(have []string) bool {
	newest, _ := k.newest()
	switch k.phase() { //exhaustive:enforce
	case installing:
		return slices.Contains(have, string(newest.id))
	case using, settled:
		return len(have) > 0 && have[0] == string(newest.id)
	}
	return false
}

// readKeys reads the shelf. Errors have nothing of a secret.
func readKeys(ctx context.Context, shelf pki.Shelf) (keyset, error) {
	records, err := shelf.List(ctx, shelfGossip)
	if err != nil {
		return keyset{}, fmt.Errorf("the gossip's keys: %w", err)
	}
	var set keyset
	uses := []int{0}
	for id, data := range records { // any order: keys are sorted below, the highest use counts
		if n, ok := serialOf(id, usePrefix); ok {
			uses = append(uses, n)
		}
		n, ok := serialOf(id, keyPrefix)
		if !ok {
			continue
		}
		var r keyRecord
		if json.Unmarshal(data, &r) != nil || len(r.Secret) != gossipKeySize {
			return keyset{}, fmt.Errorf("the gossip's key %s is damaged (restore the store from a backup)", id)
		}
		set.keys = append(set.keys, gossipKey{serial: n, secret: r.Secret, id: member.IDOf(r.Secret)})
	}
	slices.SortFunc(set.keys, func(a, b gossipKey) int { return cmp.Compare(a.serial, b.serial) })
	set.use = slices.Max(uses)
	if set.using().secret == nil {
		set.use = 0
	}
	return set, nil
}

func serialOf(id, prefix string) (int, bool) {
	text, ok := strings.CutPrefix(id, prefix)
	n, err := strconv.Atoi(text)
	return n, ok && err == nil && n > 0
}

// mintKey puts a new key on the shelf. That another server did so meanwhile is no error:
// there is one then.
func mintKey(ctx context.Context, shelf pki.Shelf, serial int, now time.Time) error {
	secret := make([]byte, gossipKeySize)
	_, _ = rand.Read(secret) // crypto/rand: it never fails
	data, err := json.Marshal(keyRecord{Schema: 1, Secret: secret, Made: now.UTC()})
	if err == nil {
		err = shelf.Create(ctx, shelfGossip, keyPrefix+strconv.Itoa(serial), data)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keep a new key for the gossip: %w", err)
	}
	return nil
}

// useKey notes that a key is the one to encrypt with.
func useKey(ctx context.Context, shelf pki.Shelf, serial int) error {
	err := shelf.Create(ctx, shelfGossip, usePrefix+strconv.Itoa(serial), []byte(`{"schema":1}`))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("take a new key for the gossip into use: %w", err)
	}
	return nil
}

// removeKeys takes all keys before the one in use away.
func removeKeys(ctx context.Context, shelf pki.Shelf, set keyset) error {
	for _, k := range set.keys {
		if k.serial >= set.use {
			continue
		}
		for _, id := range []string{keyPrefix + strconv.Itoa(k.serial), usePrefix + strconv.Itoa(k.serial)} {
			if err := shelf.Remove(ctx, shelfGossip, id); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("take an old key of the gossip away: %w", err)
			}
		}
	}
	return nil
}

// advance takes a rotation one phase on: every host that takes part has confirmed the
// present one.
func (k keyset) advance(ctx context.Context, shelf pki.Shelf) error {
	switch k.phase() { //exhaustive:enforce
	case installing:
		newest, _ := k.newest()
		return useKey(ctx, shelf, newest.serial)
	case using:
		return removeKeys(ctx, shelf, k)
	case settled:
	}
	return nil
}
