package server

import (
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fettle/internal/fleet/pki"
)

// TestKeysTurn: a rotation goes on phase by phase, from what is on the shelf alone: each
// server that reads it goes on where the one before was.
func TestKeysTurn(t *testing.T) {
	ctx, shelf := t.Context(), pki.Folder(t.TempDir())
	read := func() keyset {
		t.Helper()
		set, err := readKeys(ctx, shelf)
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := read().newest(); ok {
		t.Error("there is a key from the beginning")
	}
	must(mintKey(ctx, shelf, 1, time.Now()))
	must(mintKey(ctx, shelf, 1, time.Now())) // two servers at once: the first stays
	must(useKey(ctx, shelf, 1))
	first := read()
	if first.phase() != settled || len(first.keys) != 1 || first.use != 1 {
		t.Fatalf("after the first: %v", first.phase())
	}
	must(mintKey(ctx, shelf, 2, time.Now()))
	set := read()
	old, fresh := string(set.keys[0].id), string(set.keys[1].id)
	if set.phase() != installing || set.using().id != first.keys[0].id || set.confirms([]string{old}) || !set.confirms([]string{old, fresh}) {
		t.Errorf("with a new key: %v", set.phase())
	}
	must(set.advance(ctx, shelf))
	set = read()
	if set.phase() != using || string(set.using().id) != fresh || set.confirms([]string{old, fresh}) || !set.confirms([]string{fresh, old}) || set.confirms(nil) {
		t.Errorf("with the new key in use: %v", set.phase())
	}
	must(set.advance(ctx, shelf))
	must(set.advance(ctx, shelf)) // broken off, and done again
	set = read()
	if set.phase() != settled || len(set.keys) != 1 || string(set.keys[0].id) != fresh {
		t.Errorf("at the end: %v, %d keys", set.phase(), len(set.keys))
	}
	must(set.advance(ctx, shelf))
}

// TestDamagedKey: an error about a key has nothing of it.
func TestDamagedKey(t *testing.T) {
	dir := t.TempDir()
	secret := base64.StdEncoding.EncodeToString([]byte("canary-canary-canary"))
	if err := os.MkdirAll(filepath.Join(dir, shelfGossip), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{`{"schema":1,"secret":"` + secret + `"}`, `{"schema":1,"secret":"` + secret, `"` + secret + `"`} {
		if err := os.WriteFile(filepath.Join(dir, shelfGossip, "key-1.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := readKeys(context.Background(), pki.Folder(dir))
		if err == nil || strings.Contains(err.Error(), secret[:8]) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
