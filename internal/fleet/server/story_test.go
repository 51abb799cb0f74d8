package server_test

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fettle/internal/act/journal"
	"fettle/internal/adapter/systemd"
	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

// ownChain is a log as an agent keeps it: n entries of it, as they are kept.
func ownChain(t *testing.T, n int) (id string, kept [][]byte, heads []loop.Head) {
	t.Helper()
	st, err := store.OpenFile(t.Context(), filepath.Join(t.TempDir(), "alone"), "f", journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	state, err := st.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	txn := loop.Txn{Token: state.Token}
	for range n {
		txn.Log = append(txn.Log, loop.Entry{At: time.Now(), Kind: "note", Text: "what I did"})
	}
	if err := st.Commit(t.Context(), txn); err != nil {
		t.Fatal(err)
	}
	heads = []loop.Head{{}}
	if err := st.Sealed(t.Context(), 1, func(e loop.Entry, data []byte) error {
		kept = append(kept, append([]byte(nil), data...))
		heads = append(heads, loop.Head{Entries: e.Seq, Hash: e.Hash})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return st.ID(), kept, heads
}

// raw is a session that a test holds itself, as an agent that may be anybody's.
type raw struct {
	t      *testing.T
	stream wire.AgentService_SessionClient
}

func (s *spine) raw(t *testing.T, id *pki.Identity) *raw {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	stream, err := s.session(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	r := &raw{t, stream}
	r.send(&wire.SessionRequest{What: &wire.SessionRequest_Hello{Hello: &wire.Hello{Schema: wire.Schema, Host: string(id.Name.Host()), Incarnation: "i", Label: "raw", Permits: true}}})
	return r
}

func (r *raw) send(m *wire.SessionRequest) {
	r.t.Helper()
	m.NowNs = time.Now().UnixNano()
	if err := r.stream.Send(m); err != nil {
		r.t.Fatal(err)
	}
}

// tell tells a part of a story and returns the answer.
func (r *raw) tell(w *wire.Story) *wire.StoryTaken {
	r.t.Helper()
	r.send(&wire.SessionRequest{What: &wire.SessionRequest_Story{Story: w}})
	for {
		m, err := r.stream.Recv()
		if err != nil {
			r.t.Fatal(err)
		}
		if got := m.GetStoryTaken(); got != nil {
			return got
		}
	}
}

// TestStoriesThatAreNotTaken: what an agent tells must be one chain, go on from what it
// told before, and be about its own host; the server goes on serving.
func TestStoriesThatAreNotTaken(t *testing.T) {
	s, _ := newSpine(t)
	r := s.raw(t, s.box.id)
	chain, kept, heads := ownChain(t, 5)
	_, other, _ := ownChain(t, 5)
	if got := r.tell(&wire.Story{Id: 1, Chain: chain, Entries: kept[:3]}); got.GetRefused() != "" || got.GetEntries() != 3 || got.GetHash() != heads[3].Hash {
		t.Fatalf("a good one: %+v", got)
	}
	foreign := incident.Record{Incident: fettle.Incident{Schema: 1, ID: "x", Cause: fettle.ConditionKey{Code: "fettle.agent_lost", Subject: s.box.host}}}
	alien := incident.Record{Incident: fettle.Incident{Schema: 1, ID: "y", Cause: fettle.ConditionKey{Code: systemd.UnitFailed, Subject: s.unit("web.service")}}}
	alien.Progress.Done = []incident.DoneStep{{ID: "s", Step: fettle.Step{Host: "host:other"}}}
	for name, c := range map[string]struct {
		story *wire.Story
		never bool
		why   string
	}{
		"without a name": {&wire.Story{Entries: kept[3:], After: 3, AfterHash: heads[3].Hash}, false, "which chain"},
		"with a gap":     {&wire.Story{Chain: chain, Entries: kept[4:], After: 4, AfterHash: heads[4].Hash}, false, "begins after entry 4"},
		"broken":         {&wire.Story{Chain: chain, Entries: [][]byte{kept[3], kept[3]}, After: 3, AfterHash: heads[3].Hash}, true, "stands in its place"},
		"changed":        {&wire.Story{Chain: chain, Entries: [][]byte{[]byte(strings.Replace(string(kept[3]), "what I did", "what I say", 1))}, After: 3, AfterHash: heads[3].Hash}, true, "does not follow"},
		"of other words": {&wire.Story{Chain: chain, Entries: other}, true, "not the one that was told before"},
		"no JSON":        {&wire.Story{Chain: chain, Entries: [][]byte{[]byte("x")}, After: 3, AfterHash: heads[3].Hash}, true, "cannot be read"},
	} {
		c.story.Id = 2
		if got := r.tell(c.story); got.GetNever() != c.never || !strings.Contains(got.GetRefused(), c.why) {
			t.Errorf("%s: %+v, want %q", name, got, c.why)
		}
	}
	var records [][]byte
	for _, rec := range []incident.Record{foreign, alien, {}} {
		data, err := json.Marshal(rec)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, data)
	}
	if got := r.tell(&wire.Story{Id: 3, Chain: chain, Entries: kept, Records: append(records, []byte("{"))}); got.GetRefused() != "" || got.GetEntries() != 5 {
		t.Errorf("all of it: %+v", got)
	}
	if lines := s.merged(t); len(lines) != 5 {
		t.Errorf("the log has %d of its lines", len(lines))
	}
	if err := s.loop.Ask(t.Context(), func(m *incident.Mind) {
		if list := m.Incidents(); len(list) != 0 {
			t.Errorf("incidents that are not its to tell: %+v", list)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.Check(t.Context()); err != nil {
		t.Error(err)
	}
}
