package agent

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"fettle/internal/fleet/member"
	"fettle/internal/fleet/wire"
)

func ringKey(c string) []byte { return []byte(strings.Repeat(c, 32)) }

func someRing() ring {
	return ring{Schema: ringSchema, Name: "f/0", Keys: [][]byte{ringKey("a"), ringKey("b")}, Use: member.IDOf(ringKey("b")), Seeds: []string{"10.0.0.5:7403", "rubbish"}, Bind: "10.0.0.7:7403"}
}

// TestRingIsKept: the last word is there after a restart, for its owner only, and no text
// about it has a key.
func TestRingIsKept(t *testing.T) {
	f := ringFileIn(t.TempDir())
	if r, err := f.read(); err != nil || r.Name != "" {
		t.Errorf("before there is one: %v, %v", r, err)
	}
	want := someRing()
	if err := f.write(want); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(string(f))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	got, err := f.read()
	if err != nil || got.otherNode(want) || got.Use != want.Use || len(got.Keys) != 2 || len(got.seeds()) != 1 {
		t.Errorf("read: %v, %v", got, err)
	}
	for _, text := range []string{fmt.Sprint(got), fmt.Sprintf("%v %s", got, got)} {
		if strings.Contains(text, "aaaa") || strings.Contains(text, "97 97") {
			t.Errorf("a key is in %q", text)
		}
	}
	if err := os.WriteFile(string(f), []byte(`{"schema":1,"name":"x","keys":["`+base64.StdEncoding.EncodeToString(ringKey("a"))), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.read(); err == nil || strings.Contains(err.Error(), "YWFh") {
		t.Errorf("a damaged file: %v", err)
	}
}

// TestRingKeysChange: keys come before they are used, and go after.
func TestRingKeysChange(t *testing.T) {
	r := someRing()
	keys, err := r.newKeys()
	if err != nil {
		t.Fatal(err)
	}
	if got := keys.List(); len(got) != 2 || got[0] != r.Use {
		t.Errorf("at first: %v", got)
	}
	next := r
	next.Keys, next.Use = [][]byte{ringKey("b"), ringKey("c")}, member.IDOf(ringKey("c"))
	if err := next.install(keys); err != nil {
		t.Fatal(err)
	}
	if got := keys.List(); !slices.Equal(got, []member.KeyID{member.IDOf(ringKey("c")), member.IDOf(ringKey("b"))}) {
		t.Errorf("afterwards: %v", got)
	}
}

// TestBadRings: a word that cannot be followed is refused.
func TestBadRings(t *testing.T) {
	use := string(member.IDOf(ringKey("a")))
	for name, w := range map[string]*wire.Ring{
		"no key":             {Name: "r", Use: use},
		"another key in use": {Name: "r", Use: "x", Keys: [][]byte{ringKey("a")}},
		"too many keys":      {Name: "r", Use: use, Keys: slices.Repeat([][]byte{ringKey("a")}, ringKeysMax+1)},
		"too many seeds":     {Name: "r", Use: use, Keys: [][]byte{ringKey("a")}, Seeds: slices.Repeat([]string{"10.0.0.1:1"}, ringSeedsMax+1)},
		"settings":           {Name: "r", Use: use, Keys: [][]byte{ringKey("a")}, Settings: []byte("{")},
	} {
		if _, err := readRing(w); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if r, err := readRing(&wire.Ring{}); err != nil || r.Name != "" {
		t.Errorf("no ring: %v, %v", r, err)
	}
}

// TestWhereToGossip: by the way to the server, and at the same address as before while
// this host has it.
func TestWhereToGossip(t *testing.T) {
	for _, c := range []struct{ listen, server, before, want, err string }{
		{"10.9.8.7:1", "127.0.0.1:1", "", "10.9.8.7:1", ""},
		{"10.9.8.7", "127.0.0.1:1", "", "", "want one address"},
		{GossipAuto, "127.0.0.1:1", "", "", "--gossip-listen"},
		{GossipAuto, "not a server", "", "", "--gossip-listen"},
		{GossipAuto, "not asked", "127.0.0.1:7403", "127.0.0.1:7403", ""},
		{GossipAuto, "127.0.0.1:1", "192.0.2.1:7403", "", "loopback"}, // not this host's any more
	} {
		got, err := bindFor(t.Context(), c.listen, c.server, c.before)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
}

func FuzzParseRing(f *testing.F) {
	good, err := json.Marshal(someRing())
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{good, []byte(`{"schema":1}`), []byte(`{"schema":2,"name":"x"}`), []byte(`{"schema":1,"name":"x","keys":[""],"use":""}`), nil, bytes.Repeat([]byte{' '}, ringMax+1)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRing(data)
		if err != nil || r.Name == "" {
			return
		}
		if r.using() == nil || len(r.Keys) > ringKeysMax || len(r.Seeds) > ringSeedsMax {
			t.Errorf("taken: %v", r)
		}
		for _, at := range r.seeds() {
			if !at.IsValid() {
				t.Errorf("a seed %v", at)
			}
		}
	})
}
