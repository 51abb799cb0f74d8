package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fettle/internal/fleet/segment"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/store/storetest"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

// keepersOf are the keepers of servers that fetch from each other, as far as the way to
// the one that is asked is not cut.
func keepersOf(t *testing.T, stores []*store.Etcd, links []*link) []*store.Keeper {
	t.Helper()
	fetch := func(_ context.Context, address string, r segment.Ref) ([]byte, error) {
		for i, e := range stores {
			if address != fmt.Sprint("nowhere:", i) {
				continue
			}
			links[i].mu.Lock()
			cut := links[i].cut
			links[i].mu.Unlock()
			if cut {
				return nil, errors.New("no contact")
			}
			return e.Segment(r)
		}
		return nil, fmt.Errorf("nobody is at %s", address)
	}
	var keepers []*store.Keeper
	for _, e := range stores {
		if err := e.Announce(t.Context()); err != nil {
			t.Fatal(err)
		}
		keepers = append(keepers, store.NewKeeper(e, store.KeeperOptions{Fetch: fetch}))
	}
	return keepers
}

// leading has a server be elected, and lead until the test ends.
func leading(t *testing.T, of *store.Etcd) loop.State {
	t.Helper()
	e := &elected{Etcd: of}
	t.Cleanup(e.resign)
	s, err := e.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func filesOf(t *testing.T, e *store.Etcd) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(store.SegmentsDir(e), "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestThreeServersHoldTheSame: nothing leaves etcd before a majority of the servers holds
// it; the one that was away gets it afterwards from the others; what one loses, or what is
// altered there, it gets again.
func TestThreeServersHoldTheSame(t *testing.T) {
	stores, links := three(t, store.Limits{SegmentEntries: 50, KeepEntries: 20})
	s := leading(t, stores[0])
	k := keepersOf(t, stores, links)
	commit(t, stores[0], s, 200, 10)
	links[2].set(true)

	rounds(t, k[0], 3)
	if u, _ := stores[0].Usage(); u.InFiles != 0 || u.InStore != 200 {
		t.Fatalf("one of three servers holds it, and it left etcd: %+v", u)
	}
	for range 8 {
		rounds(t, k[1], 1)
		rounds(t, k[0], 1)
	}
	u, _ := stores[0].Usage()
	first, _, err := store.EntriesInStore(t.Context(), stores[0])
	if err != nil || u.InFiles < 150 || first != u.InFiles+1 {
		t.Fatalf("two of three servers hold it: %+v, %d, %v", u, first, err)
	}
	n, _ := whole(t, stores[0])

	links[2].set(false)
	for ok := false; !ok; { // until it has caught up
		head, err := stores[2].Head(t.Context())
		ok = err == nil && head.Entries == n
	}
	if got := filesOf(t, stores[2]); len(got) != 0 {
		t.Fatalf("it was away and has %v", got)
	}
	rounds(t, k[2], 1)
	if got, want := filesOf(t, stores[2]), filesOf(t, stores[0]); len(got) != len(want) || len(want) != int(u.Segments) {
		t.Errorf("it has %d files, the leader %d", len(got), len(want))
	}
	for _, e := range stores {
		whole(t, e)
	}

	victim := filesOf(t, stores[2])[1]
	if err := os.Remove(victim); err != nil {
		t.Fatal(err)
	}
	whole(t, stores[2]) // which asked another server
	data, err := os.ReadFile(victim)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(victim, bytes.Replace(data, []byte("xxx"), []byte("xyx"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := stores[2].Check(t.Context()); err == nil || !strings.Contains(err.Error(), filepath.Base(victim)) {
		t.Errorf("one that was altered: %v", err)
	}
	rounds(t, k[2], 1)
	whole(t, stores[2])
	if _, err := os.Stat(victim + ".aside0"); err != nil {
		t.Errorf("what was altered is not kept: %v", err)
	}
}

// TestLeaderDiesWithItsOffer: a segment of incidents that only the leader held, who is
// gone, is withdrawn by the next one, and made anew.
func TestLeaderDiesWithItsOffer(t *testing.T) {
	stores, links := three(t, store.Limits{SegmentEntries: 50, KeepEntries: 20, KeepIncidents: 2})
	keepersOf(t, stores, links) // announces them
	lead := func(i int) (*store.Term, loop.State) {
		t.Helper()
		term, err := stores[i].Campaign(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s, err := stores[i].Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return term, s
	}
	first, s := lead(0)
	txn := loop.Txn{Token: s.Token, Log: []loop.Entry{storetest.Entry("x")}}
	for n := range int64(9) {
		txn.Records = append(txn.Records, over(n))
	}
	flying := over(100)
	txn.Records = append(txn.Records, flying)
	in := storetest.Intent("k")
	in.Dispatch.Incident = over(3).ID
	txn.Intents = []loop.Intent{in}
	if err := stores[0].Commit(t.Context(), txn); err != nil {
		t.Fatal(err)
	}
	rounds(t, keeperOf(stores[0], nil), 2)
	if len(filesOf(t, stores[0])) != 1 {
		t.Fatal("it offers nothing")
	}
	if err := first.Resign(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(store.SegmentsDir(stores[0])); err != nil {
		t.Fatal(err)
	}
	links[0].set(true)

	second, s := lead(1)
	defer func() {
		if err := second.Resign(); err != nil {
			t.Log(err)
		}
	}()
	var forgotten []string
	k1 := keeperOf(stores[1], func(ids []string) { forgotten = append(forgotten, ids...) })
	k2 := keeperOf(stores[2], nil)
	k1from := store.Fetch(func(_ context.Context, address string, r segment.Ref) ([]byte, error) {
		if address == "nowhere:1" {
			return stores[1].Segment(r)
		}
		return nil, fs.ErrNotExist
	})
	store.FetchWith(stores[2], k1from)
	for range 4 {
		rounds(t, k1, 1)
		rounds(t, k2, 1)
	}
	want := map[string]bool{}
	for _, r := range txn.Records {
		want[r.ID] = true
	}
	everyIncident(t, stores[1], s, want)
	if len(forgotten) != 7 {
		t.Errorf("forgotten: %v", forgotten)
	}
	left, err := stores[1].Records(t.Context())
	if err != nil || strings.Join(left, " ") != strings.Join([]string{over(3).ID, over(8).ID, flying.ID}, " ") {
		t.Errorf("left in etcd, one of them with a step in flight: %v, %v", left, err)
	}
	whole(t, stores[1])
	whole(t, stores[2])
}

// TestIncidentThatChanged: one that changes after it was put into a file stays in etcd,
// and the file that has it last counts.
func TestIncidentThatChanged(t *testing.T) {
	e, s := loaded(t, crashOptions(filepath.Join(t.TempDir(), "store")))
	var list []incident.Record
	for n := range int64(9) {
		list = append(list, over(n))
	}
	put := func(list ...incident.Record) {
		t.Helper()
		if err := e.Commit(t.Context(), loop.Txn{Token: s.Token, Records: list}); err != nil {
			t.Fatal(err)
		}
	}
	put(list...)
	k := keeperOf(e, nil)
	changed := list[2]
	changed.Why = "again"
	store.StopAt(k, func(step string) {
		if step == "sealed" {
			put(changed)
			store.StopAt(k, nil)
		}
	})
	rounds(t, k, 1)
	if left, err := e.Records(t.Context()); err != nil || len(left) != 4 {
		t.Errorf("%v, %v", left, err)
	}
	rounds(t, k, 3)
	got, ok, err := e.EndedIncident(t.Context(), changed.ID)
	if !ok || err != nil || got.Why != "again" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, ok, err := e.EndedIncident(t.Context(), "never"); ok || err != nil {
		t.Errorf("one that never was: %v %v", ok, err)
	}
	want := map[string]bool{}
	for _, r := range list {
		want[r.ID] = true
	}
	everyIncident(t, e, s, want)
	whole(t, e)
}

// TestDefragmentedOneAfterTheOther: each server's etcd gives back what its file holds in
// vain, never two at a time, the leader's last.
func TestDefragmentedOneAfterTheOther(t *testing.T) {
	stores, links := three(t, store.Limits{Quota: quota})
	leading(t, stores[0])
	for i := range 50 {
		if err := store.FillBehind(t.Context(), stores[0], fmt.Sprint(i), make([]byte, 100<<10)); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range stores { // one that is behind would say of itself that it is small
		if err := store.Abreast(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.EmptyBehind(t.Context(), stores[0]); err != nil {
		t.Fatal(err)
	}
	keepers := keepersOf(t, stores, links)
	var order []int
	for i, k := range keepers {
		store.StopAt(k, func(step string) {
			if step == "defragmented" {
				order = append(order, i)
			}
		})
	}
	for round := 0; len(order) < 3 && round < 500; round++ {
		for i, k := range keepers {
			rounds(t, k, 1)
			store.Settle(stores[i])
		}
	}
	if len(order) != 3 || order[2] != 0 {
		t.Errorf("defragmented: %v", order)
	}
	for i, e := range stores {
		if u, _ := e.Usage(); u.File > quota/4 {
			t.Errorf("server %d: %+v", i, u)
		}
	}
}

// TestQuietServer: of a server that is away the size of its file holds up nobody for long;
// nor does it take a turn from those that are there. One that is there says so.
func TestQuietServer(t *testing.T) {
	stores, _ := three(t, store.Limits{Quota: quota})
	s := leading(t, stores[0])
	now := time.Now()
	var k []*store.Keeper
	for _, e := range []*store.Etcd{stores[0], stores[2]} {
		k = append(k, store.NewKeeper(e, store.KeeperOptions{Wall: func() time.Time { return now }}))
	}
	both := func() {
		t.Helper()
		rounds(t, k[1], 1)
		rounds(t, k[0], 1)
	}
	if err := store.Say(t.Context(), stores[0], "s1", quota, quota); err != nil { // and then it is away
		t.Fatal(err)
	}
	both()
	one := loop.Txn{Token: s.Token, Log: []loop.Entry{storetest.Entry("x")}}
	if u, _ := stores[0].Usage(); u.InUse != quota || u.State != store.Full {
		t.Errorf("it is full on s1: %+v", u)
	}
	if err := stores[0].Commit(t.Context(), one); !errors.Is(err, loop.ErrFull) {
		t.Errorf("full on s1: %v", err)
	}
	for range 4 { // s2 says in between that it is there
		now = now.Add(store.QuietAfter / 3)
		both()
	}
	if u, _ := stores[0].Usage(); u.InUse >= quota/2 || u.State != "" {
		t.Errorf("s1 is away: %+v", u)
	}
	if err := stores[0].Commit(t.Context(), one); err != nil {
		t.Errorf("s1 is away: %v", err)
	}
	for range 24 { // it had its turn, and did not take it
		now = now.Add(store.QuietAfter / 3)
		both()
	}
	if err := store.Say(t.Context(), stores[0], "s2", 0, quota); err != nil { // it pays there, too
		t.Fatal(err)
	}
	rounds(t, k[0], 1)
	if turn, err := store.Turn(t.Context(), stores[0]); err != nil || turn != "s2" {
		t.Errorf("it is the turn of %q, %v", turn, err)
	}
}

// TestServersSayThatTheyAreThere: one of which nothing changes is not taken for away.
func TestServersSayThatTheyAreThere(t *testing.T) {
	stores, _ := three(t, store.Limits{Quota: quota})
	now := time.Now()
	k := store.NewKeeper(stores[1], store.KeeperOptions{Wall: func() time.Time { return now }})
	said := map[string]bool{}
	for range 3 {
		rounds(t, k, 1)
		text, err := store.Said(t.Context(), stores[1], "s1")
		if err != nil || text == "" || said[text] {
			t.Errorf("it says %q, %v", text, err)
		}
		said[text] = true
		now = now.Add(store.QuietAfter / 3)
	}
}
