package executor_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/loghead"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/warrant"
)

// change takes an authority through a whole change, and returns its three words: the new
// one is believed too, it issues, the old one is believed no more.
func change(t *testing.T, ca *pki.CA) (words [3]pki.SignedWord) {
	t.Helper()
	old := ca.Pin()
	der, err := ca.Prepare(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := pki.PinOf(der)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range []pki.Word{
		{Trust: []string{old, fresh}, Use: old, Goal: fresh},
		{Trust: []string{old, fresh}, Use: fresh, Goal: fresh},
		{Trust: []string{fresh}, Use: fresh, Goal: fresh},
	} {
		w.At, w.Serial = time.Now(), ca.Trust().Serial()+1
		if words[i], err = ca.Say(w); err == nil {
			err = ca.Believe(words[i : i+1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return words
}

// copyOf is the same authority in another folder.
func copyOf(t *testing.T, ca *pki.CA) *pki.CA {
	t.Helper()
	key, err := ca.Export()
	if err != nil {
		t.Fatal(err)
	}
	c, err := pki.Import(filepath.Join(t.TempDir(), "pki"), key, ca.Pin())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// believing is an executor in a process of its own, with the file in which it keeps whom
// it believes.
func believing(t *testing.T, f *fleet) (*host, *executor.Believed, string) {
	t.Helper()
	dir := t.TempDir()
	if err := executor.Save(dir, f.compromise); err != nil {
		t.Fatal(err)
	}
	b, err := executor.OpenPin(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f.host(dir, func(o *executor.Options) { o.Trust, o.Keep = b.Trust, b.Keep }), b, dir
}

// TestNobodyPlantsAnAuthority: who is the agent hands over whatever it likes; only the
// word of an authority that is believed, and stays, changes anything, and no older one.
func TestNobodyPlantsAnAuthority(t *testing.T) {
	f := newFleet(t)
	h, b, dir := believing(t, f)
	path := filepath.Join(t.TempDir(), "socket")
	serve(t, h.ex, path, os.Geteuid())
	agent := client(t, path)
	rogue := copyOf(t, f.ca) // a server's folder that was stolen long ago
	stolen := change(t, rogue)
	foreign, err := pki.Init(filepath.Join(t.TempDir(), "pki"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other := change(t, foreign)
	words := change(t, f.ca)
	tampered := stolen[2]
	tampered.Note = []byte(strings.Replace(string(tampered.Note), "serial 3", "serial 9", 1))
	swapped := words[0]
	swapped.Authorities = slices.Clone(swapped.Authorities)
	swapped.Authorities[1] = stolen[2].Authorities[0]
	before, err := os.ReadFile(filepath.Join(dir, "fleet.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, words := range map[string][]pki.SignedWord{
		"of another fleet":          {other[0]},
		"of another fleet, all":     other[:],
		"by one that is unknown":    {stolen[2]},
		"another serial":            {tampered},
		"another certificate":       {swapped},
		"no certificates":           {{Note: words[0].Note}},
		"nothing":                   {{}},
		"unsigned":                  {{Note: []byte(strings.SplitAfter(string(words[0].Note), "\n\n")[0]), Authorities: words[0].Authorities}},
		"the end without the start": {words[2]},
	} {
		if serial, err := agent.Believe(t.Context(), words); err == nil {
			t.Errorf("%s: it is believed, as %d", name, serial)
		}
	}
	if after, err := os.ReadFile(filepath.Join(dir, "fleet.json")); err != nil || string(after) != string(before) {
		t.Fatalf("what it keeps has changed: %v", err)
	}
	// The true way, a step at a time, and over a start.
	for i := range words {
		serial, err := agent.Believe(t.Context(), words[:i+1])
		if err != nil || serial != int64(i+1) {
			t.Fatalf("word %d: %d, %v", i+1, serial, err)
		}
		again, err := executor.OpenPin(dir)
		if err != nil || again.Trust().Serial() != serial || !slices.Equal(again.Trust().Pins(), b.Trust().Pins()) {
			t.Fatalf("it keeps %v, %v", again, err)
		}
	}
	// Older words, and the stolen key of the authority that is gone.
	for name, words := range map[string][]pki.SignedWord{"replayed": words[:2], "stolen": stolen[:2]} {
		if serial, err := agent.Believe(t.Context(), words); err != nil || serial != 3 {
			t.Errorf("%s: %d, %v", name, serial, err)
		}
	}
	late := change(t, rogue) // serials 4 to 6, by an authority that was never believed
	if serial, err := agent.Believe(t.Context(), late[:1]); err == nil {
		t.Errorf("a newer word of one that is not believed: %d", serial)
	}
	if got := b.Trust().Pins(); !slices.Equal(got, []string{f.ca.Pin()}) {
		t.Errorf("it believes %v", got)
	}
}

// TestOrdersOverTheChange: during the overlap orders of both are obeyed, behind it those
// of the old one are refused, also where its certificate was verified a moment ago.
func TestOrdersOverTheChange(t *testing.T) {
	f := newFleet(t)
	h, _, _ := believing(t, f)
	old := f.server
	words := change(t, f.ca)
	fresh, err := f.ca.Mint(pki.RoleServer, "h1", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	by := func(id *pki.Identity, key string) fettle.Outcome {
		f.server = id
		h.head++
		out, err := h.ex.Do(t.Context(), h.order(h.dispatch(key, light)))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out := by(fresh, "early"); out.Class != fettle.Refused {
		t.Errorf("the new one before its time: %+v", out)
	}
	f.server = old
	h.head-- // what it showed was not believed
	if _, err := h.ex.Believe(t.Context(), words[:2]); err != nil {
		t.Fatal(err)
	}
	h.meet()
	for key, id := range map[string]*pki.Identity{"old": old, "new": fresh} {
		if out := by(id, key); out.Fate != fettle.Done {
			t.Errorf("the %s one during the overlap: %+v", key, out)
		}
	}
	if out := by(old, "last"); out.Fate != fettle.Done { // its certificate was verified just now
		t.Errorf("%+v", out)
	}
	if _, err := h.ex.Believe(t.Context(), words[2:]); err != nil {
		t.Fatal(err)
	}
	if out := by(old, "late"); out.Class != fettle.Refused {
		t.Errorf("the old one after the end: %+v", out)
	}
	if n := h.lamp.count(); n != 3 {
		t.Errorf("%d steps were done", n)
	}
}

// meet shows the executor the server's log anew.
func (h *host) meet() {
	h.t.Helper()
	g, err := h.ex.Greet(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	st := h.statement()
	st.Place = &loghead.Place{Seq: g.Head.Entries, Hash: warrant.HashOf([]byte{byte(g.Head.Entries)})}
	if why, err := h.ex.Meet(h.t.Context(), executor.Introduction{Asked: g.Head, Log: h.shown(st)}); err != nil || why != "" {
		h.t.Fatal(why, err)
	}
}
