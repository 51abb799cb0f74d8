package member

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"
)

// Keys are the secrets that a ring's gossip is encrypted with (AES-GCM; 16, 24 or 32
// bytes choose AES-128, -192 or -256). The first encrypts, all decrypt. A secret is
// rotated without losing anybody in three rounds, each finished everywhere before the
// next begins: Install the new one, Use it, Remove the old one.
//
// Safe for concurrent use; a change holds from the next packet on. One Keys may serve
// one Node only. Nothing here prints a key.
type Keys struct {
	mu   sync.Mutex
	ring *memberlist.Keyring
}

// KeyID names a key without telling it: the beginning of its SHA-256.
type KeyID string

// IDOf is the name of a key.
func IDOf(key []byte) KeyID {
	sum := sha256.Sum256(key)
	return KeyID(hex.EncodeToString(sum[:6]))
}

// NewKeys makes the keys of a ring: the one to encrypt with, and others that are still
// or already accepted.
func NewKeys(use []byte, accept ...[]byte) (*Keys, error) {
	clones := make([][]byte, len(accept))
	for i, key := range accept {
		clones[i] = bytes.Clone(key)
	}
	ring, err := memberlist.NewKeyring(clones, bytes.Clone(use))
	if err == nil && len(use) == 0 {
		err = errors.New("no key to encrypt with; gossip is never sent in the clear")
	}
	if err != nil {
		return nil, fmt.Errorf("gossip keys: %w", err)
	}
	return &Keys{ring: ring}, nil
}

// Install accepts a key from now on. A key that is there already is no error.
func (k *Keys) Install(key []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.ring.AddKey(bytes.Clone(key)); err != nil {
		return fmt.Errorf("install gossip key: %w", err)
	}
	return nil
}

// Use encrypts with a key from now on. It must be installed.
func (k *Keys) Use(id KeyID) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := k.find(id)
	if key == nil {
		return fmt.Errorf("use gossip key %s: it is not installed here; install it on every member first", id)
	}
	if err := k.ring.UseKey(key); err != nil {
		return fmt.Errorf("use gossip key %s: %w", id, err)
	}
	return nil
}

// Remove accepts a key no longer. A key that is not there is no error; the one in use
// is.
func (k *Keys) Remove(id KeyID) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := k.find(id)
	if key == nil {
		return nil
	}
	if bytes.Equal(key, k.ring.GetPrimaryKey()) {
		return fmt.Errorf("remove gossip key %s: it is the one in use; use another first", id)
	}
	// memberlist's removal shifts the keys behind the one that goes, in the array that
	// a packet is being decrypted by at that moment. So they are taken off from the end,
	// where nothing shifts, and put back: for a microsecond one of them is not accepted,
	// which gossip takes for a lost packet.
	all := k.ring.GetKeys()
	at := slices.IndexFunc(all, func(other []byte) bool { return bytes.Equal(other, key) })
	behind := slices.Clone(all[at+1:])
	for _, last := range slices.Backward(append([][]byte{key}, behind...)) {
		if err := k.ring.RemoveKey(last); err != nil {
			return fmt.Errorf("remove gossip key %s: %w", id, err)
		}
	}
	for _, other := range behind {
		if err := k.ring.AddKey(other); err != nil {
			return fmt.Errorf("keep gossip key %s: %w", IDOf(other), err)
		}
	}
	return nil
}

// List names the installed keys, the one in use first.
func (k *Keys) List() []KeyID {
	k.mu.Lock()
	defer k.mu.Unlock()
	var ids []KeyID
	for _, key := range k.ring.GetKeys() {
		ids = append(ids, IDOf(key))
	}
	return ids
}

// find returns the installed key of that name, nil if there is none.
func (k *Keys) find(id KeyID) []byte {
	for _, key := range k.ring.GetKeys() {
		if IDOf(key) == id {
			return key
		}
	}
	return nil
}
