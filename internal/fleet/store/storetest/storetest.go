// Package storetest is what every loop.Store must do, as tests: what is kept,
// through restarts; who may write; what the log promises. The crash tests, which
// need processes to kill, stand beside the stores.
package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

// Fleet is whose store is tested.
const Fleet = "fleet1"

// Open opens the store under test on what the one before it, which was closed,
// has kept.
type Open func(t *testing.T) loop.Store

// Run runs the suite. make gives an Open for an empty store each time.
func Run(t *testing.T, make func(t *testing.T) Open) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Open)
	}{
		{"empty", empty},
		{"survives", survives},
		{"windows", windows},
		{"settled and thawed", settled},
		{"one leader", oneLeader},
		{"token grows", tokenGrows},
		{"all or nothing", allOrNothing},
		{"log", log},
		{"tip", tip},
		{"same time", sameTime},
		{"ended context", endedContext},
		{"long story", longStory},
		{"merged", merged},
		{"model", model},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, make(t)) })
	}
}

// session is a loaded store.
type session struct {
	loop.Store
	t     *testing.T
	state loop.State
}

func load(t *testing.T, open Open) *session {
	t.Helper()
	s := &session{Store: open(t), t: t}
	s.reload()
	return s
}

func (s *session) reload() {
	s.t.Helper()
	state, err := s.Load(s.t.Context())
	if err != nil {
		s.t.Fatalf("load: %v", err)
	}
	s.state = state
}

func (s *session) commit(t loop.Txn) {
	s.t.Helper()
	t.Token = s.state.Token
	if err := s.Commit(s.t.Context(), t); err != nil {
		s.t.Fatalf("commit: %v", err)
	}
}

func (s *session) again(open Open) *session {
	s.t.Helper()
	if err := s.Close(); err != nil {
		s.t.Fatalf("close: %v", err)
	}
	return load(s.t, open)
}

func (s *session) log(from int64) []loop.Entry {
	s.t.Helper()
	var list []loop.Entry
	if err := s.Log(s.t.Context(), from, func(e loop.Entry) error { list = append(list, e); return nil }); err != nil {
		s.t.Fatalf("log: %v", err)
	}
	return list
}

func (s *session) check(want int64) {
	s.t.Helper()
	if n, err := s.Check(s.t.Context()); err != nil || n != want {
		s.t.Fatalf("check: %d entries, %v; want %d", n, err, want)
	}
}

var at = time.Date(2026, 11, 22, 12, 0, 0, 123456789, time.UTC)

// Record makes a record with a story of n events.
func Record(id string, n int) incident.Record {
	r := incident.Record{
		Incident: fettle.Incident{
			Schema: 1, ID: id, Opened: at, State: fettle.Acting,
			Cause:      fettle.ConditionKey{Code: "etcd.member_lost", Subject: "etcd-member:c1/m1"},
			Conditions: []fettle.ConditionKey{{Code: "etcd.member_lost", Subject: "etcd-member:c1/m1"}},
			Plan: &fettle.Plan{Schema: 1, Incident: id, Steps: []fettle.Step{{
				ID: "s", Action: "etcd.start", Target: "etcd-member:c1/m1", Host: "host:h1",
				Params: fettle.Facts{"force": false, "n": int64(7), "urls": []string{"http://a<b>"}},
			}}, Hash: "abc"},
		},
		Progress: incident.Progress{Phase: incident.PhaseIntent, Since: at, Try: 1, Key: id + ".1.s"},
	}
	for i := range n {
		r.Story = append(r.Story, fettle.Event{
			At: at.Add(time.Duration(i) * time.Second), Kind: fettle.EvRefused, Text: fmt.Sprintf("event %d", i),
			Verdicts: []fettle.Verdict{{Guard: "quorum", Invariant: "S2", Why: strings.Repeat("because ", 64)}},
		})
	}
	return r
}

// Intent makes an intent.
func Intent(key string) loop.Intent {
	return loop.Intent{At: at, Dispatch: fettle.Dispatch{Schema: 1, Key: key, Incarnation: "i1", Deadline: at.Add(time.Minute),
		Step: fettle.Step{ID: "s", Action: "etcd.start", Target: "etcd-member:c1/m1", Host: "host:h1", Params: fettle.Facts{"n": int64(1)}}},
		Claims: []fettle.Claim{{What: fettle.TakesVotes, Of: "etcd:c1", Member: "etcd-member:c1/m1"}}}
}

// Entry makes a log entry.
func Entry(text string) loop.Entry {
	return loop.Entry{At: at, Kind: "note", Incident: "i", Text: text, Data: json.RawMessage(`{"text": "<` + text + `>", "n": 1}`)}
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func empty(t *testing.T, open Open) {
	s := load(t, open)
	tok := s.state.Token
	if tok.Fleet != Fleet || tok.Epoch == 0 || tok.Revision == 0 {
		t.Errorf("token %+v", tok)
	}
	s.state.Token = fettle.Token{}
	equal(t, "state", s.state, loop.State{})
	s.check(0)
	equal(t, "log", s.log(0), []loop.Entry(nil))
}

func survives(t *testing.T, open Open) {
	s := load(t, open)
	freeze := guard.Freeze{By: "ann", Since: at, Why: "maintenance"}
	records := []incident.Record{Record("a", 3), Record("b", 0)}
	intents := []loop.Intent{Intent("a.1.s"), Intent("b.1.s")}
	s.commit(loop.Txn{Records: records, Intents: intents, Freeze: &freeze, Log: []loop.Entry{Entry("1"), Entry("2")}})
	changed := Record("b", 5)
	s.commit(loop.Txn{Records: []incident.Record{changed}, Log: []loop.Entry{Entry("3")}})
	log := s.log(0)

	s = s.again(open)
	equal(t, "records", s.state.Records, []incident.Record{records[0], changed})
	equal(t, "intents", s.state.Intents, intents)
	equal(t, "freeze", s.state.Freeze, &freeze)
	equal(t, "log", s.log(0), log)
	if s.state.Head.Entries != 3 || s.state.Head.Hash != log[2].Hash {
		t.Errorf("head %+v, last entry %+v", s.state.Head, log[2])
	}
	s.check(3)
	s.commit(loop.Txn{Log: []loop.Entry{Entry("4")}})
	s.check(4)
}

func settled(t *testing.T, open Open) {
	s := load(t, open)
	s.commit(loop.Txn{Intents: []loop.Intent{Intent("k1"), Intent("k2")}, Freeze: &guard.Freeze{By: "ann", Since: at}})
	s.commit(loop.Txn{Settled: []string{"k1", "never was", "k1"}, Thaw: true})
	s.commit(loop.Txn{Intents: []loop.Intent{Intent("k3")}, Settled: []string{"k3"}})
	s = s.again(open)
	equal(t, "intents", s.state.Intents, []loop.Intent{Intent("k2")})
	if s.state.Freeze != nil {
		t.Errorf("still frozen: %+v", s.state.Freeze)
	}
	s.commit(loop.Txn{Freeze: &guard.Freeze{By: "bob", Since: at}, Thaw: true})
	s.reload()
	if s.state.Freeze == nil {
		t.Error("a freeze and a thaw at once thawed: in doubt it is frozen")
	}
}

func oneLeader(t *testing.T, open Open) {
	s := load(t, open)
	old := s.state.Token
	s.commit(loop.Txn{Log: []loop.Entry{Entry("by the first")}})
	s.reload()
	refused := func(name string, tok fettle.Token) {
		t.Helper()
		err := s.Commit(t.Context(), loop.Txn{Token: tok, Records: []incident.Record{Record("x", 0)}, Log: []loop.Entry{Entry("x")}})
		if !errors.Is(err, loop.ErrNotLeader) {
			t.Errorf("%s: %v, want ErrNotLeader", name, err)
		}
	}
	forged := s.state.Token
	forged.Revision++
	epoch := s.state.Token
	epoch.Epoch++
	fleet := s.state.Token
	fleet.Fleet = "other"
	refused("old token", old)
	refused("no token", fettle.Token{})
	refused("higher revision", forged)
	refused("higher epoch", epoch)
	refused("other fleet", fleet)
	s.commit(loop.Txn{Log: []loop.Entry{Entry("by the second")}})
	s.check(2)
	s.reload()
	if len(s.state.Records) != 0 {
		t.Errorf("who does not lead has written %v", s.state.Records)
	}
}

func tokenGrows(t *testing.T, open Open) {
	s := load(t, open)
	for i := range 3 {
		before := s.state.Token
		s.commit(loop.Txn{Log: []loop.Entry{Entry("x")}})
		if i%2 == 0 {
			s = s.again(open)
		} else {
			s.reload()
		}
		if !before.Less(s.state.Token) {
			t.Errorf("token %+v after %+v", s.state.Token, before)
		}
	}
}

func allOrNothing(t *testing.T, open Open) {
	s := load(t, open)
	s.commit(loop.Txn{Records: []incident.Record{Record("a", 1)}, Log: []loop.Entry{Entry("1")}})
	huge := Entry("2")
	huge.Text = strings.Repeat("x", 3<<20)
	nameless := Intent("")
	big := Record("b", 0)
	big.Why = strings.Repeat("x", 3<<20)
	for name, txn := range map[string]loop.Txn{
		"huge entry":      {Records: []incident.Record{Record("b", 1)}, Log: []loop.Entry{Entry("x"), huge}},
		"no key":          {Records: []incident.Record{Record("b", 1)}, Intents: []loop.Intent{nameless}},
		"no ID":           {Records: []incident.Record{Record("", 1)}, Log: []loop.Entry{Entry("x")}},
		"huge record":     {Records: []incident.Record{big}, Intents: []loop.Intent{Intent("k")}},
		"too much":        {Log: slices.Repeat([]loop.Entry{{At: at, Kind: "note", Text: strings.Repeat("x", 1<<20)}}, 32)},
		"data is no JSON": {Records: []incident.Record{Record("b", 1)}, Log: []loop.Entry{{At: at, Kind: "note", Data: json.RawMessage("{")}}},
	} {
		txn.Token = s.state.Token
		if err := s.Commit(t.Context(), txn); err == nil || errors.Is(err, loop.ErrNotLeader) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.check(1)
	s = s.again(open)
	equal(t, "records", s.state.Records, []incident.Record{Record("a", 1)})
	if len(s.state.Intents) != 0 || s.state.Head.Entries != 1 {
		t.Errorf("kept of refused changes: %v, head %+v", s.state.Intents, s.state.Head)
	}
	s.check(1)
}

func log(t *testing.T, open Open) {
	s := load(t, open)
	given := []loop.Entry{Entry("1"), Entry("2")}
	before := slices.Clone(given)
	s.commit(loop.Txn{Log: given})
	equal(t, "the caller's entries", given, before)
	for i := 3; i <= 600; {
		var batch []loop.Entry
		for range 199 {
			batch = append(batch, Entry(fmt.Sprint(i)))
			i++
		}
		s.commit(loop.Txn{Log: batch})
	}
	s = s.again(open)
	all := s.log(0)
	hashes := map[string]bool{}
	for i, e := range all {
		if e.Seq != int64(i+1) || e.Text != fmt.Sprint(i+1) || !e.At.Equal(at) || e.Hash == "" || hashes[e.Hash] {
			t.Fatalf("entry %d: %+v", i, e)
		}
		hashes[e.Hash] = true
		var data struct{ Text string }
		if err := json.Unmarshal(e.Data, &data); err != nil || data.Text != "<"+e.Text+">" {
			t.Fatalf("entry %d: data %s (%v)", i, e.Data, err)
		}
	}
	s.check(int64(len(all)))
	for _, from := range []int64{1, 2, 257, 599, int64(len(all)), int64(len(all)) + 1} {
		equal(t, fmt.Sprintf("log from %d", from), s.log(from), append([]loop.Entry(nil), all[from-1:]...))
	}
	stop := errors.New("enough")
	n := 0
	err := s.Log(t.Context(), 1, func(loop.Entry) error {
		if n++; n == 3 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || n != 3 {
		t.Errorf("stopped after %d with %v", n, err)
	}
}

func sameTime(t *testing.T, open Open) {
	s := load(t, open)
	const writers, each = 8, 20
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				id := fmt.Sprintf("w%d-%d", w, i)
				if err := s.Commit(t.Context(), loop.Txn{Token: s.state.Token, Records: []incident.Record{Record(id, 1)}, Log: []loop.Entry{Entry(id)}}); err != nil {
					t.Errorf("%s: %v", id, err)
				}
			}
		})
	}
	wg.Wait()
	s.check(writers * each)
	s = s.again(open)
	if len(s.state.Records) != writers*each {
		t.Errorf("%d records, want %d", len(s.state.Records), writers*each)
	}
}

func endedContext(t *testing.T, open Open) {
	s := load(t, open)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Commit(ctx, loop.Txn{Token: s.state.Token, Log: []loop.Entry{Entry("1")}}); err == nil {
		t.Error("committed although the context had ended")
	}
	s.commit(loop.Txn{Log: []loop.Entry{Entry("2")}})
	log := s.log(0)
	s.check(int64(len(log)))
	if log[len(log)-1].Text != "2" {
		t.Errorf("the last entry is %+v", log[len(log)-1])
	}
	if _, err := s.Load(ctx); err == nil {
		t.Error("loaded although the context had ended")
	}
}

// model does random changes, restarts between some, and compares with a map.
func model(t *testing.T, open Open) {
	r := rand.New(rand.NewPCG(1, 2))
	s := load(t, open)
	records, intents := map[string]incident.Record{}, map[string]loop.Intent{}
	var frozen *guard.Freeze
	entries := int64(0)
	name := func() string { return fmt.Sprintf("n%02d", r.IntN(12)) }
	for range 150 {
		var txn loop.Txn
		for range r.IntN(3) {
			rec := Record(name(), r.IntN(4))
			txn.Records = append(txn.Records, rec)
			records[rec.ID] = rec
		}
		for range r.IntN(3) {
			in := Intent(name())
			in.At = at.Add(time.Duration(r.IntN(1000)) * time.Second)
			txn.Intents = append(txn.Intents, in)
			intents[in.Dispatch.Key] = in
		}
		for range r.IntN(3) {
			key := name()
			txn.Settled = append(txn.Settled, key)
			delete(intents, key)
		}
		switch r.IntN(6) {
		case 0:
			txn.Freeze = &guard.Freeze{By: name(), Since: at}
			frozen = txn.Freeze
		case 1:
			txn.Thaw = true
			frozen = nil
		}
		for range r.IntN(3) {
			txn.Log = append(txn.Log, Entry(name()))
			entries++
		}
		s.commit(txn)
		switch r.IntN(25) {
		case 0:
			s = s.again(open)
		case 1:
			s.reload()
		}
	}
	s = s.again(open)
	var wantRecords []incident.Record
	for _, id := range slices.Sorted(maps.Keys(records)) {
		wantRecords = append(wantRecords, records[id])
	}
	var wantIntents []loop.Intent
	for _, key := range slices.Sorted(maps.Keys(intents)) {
		wantIntents = append(wantIntents, intents[key])
	}
	equal(t, "records", s.state.Records, wantRecords)
	equal(t, "intents", s.state.Intents, wantIntents)
	equal(t, "freeze", s.state.Freeze, frozen)
	s.check(entries)
}
