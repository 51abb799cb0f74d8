package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fettle/internal/fleet/store"
	"fettle/internal/fleet/store/storetest"
	"fettle/internal/judge/guard"
	"fettle/internal/loop"
)

const quota = 8 << 20

// tiny are limits that a test reaches.
var tiny = store.Limits{Quota: quota, SegmentEntries: 50, KeepEntries: 20}

func tinyOptions(t *testing.T) store.EtcdOptions {
	o := options(t)
	o.Limits = tiny
	return o
}

// loaded opens a store and leads with it.
func loaded(t *testing.T, o store.EtcdOptions) (*store.Etcd, loop.State) {
	t.Helper()
	e := openEtcd(t, o)
	s, err := e.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return e, s
}

// said is a change of so many entries with so many bytes of text each.
func said(s loop.State, n, bytes int) loop.Txn {
	t := loop.Txn{Token: s.Token}
	for range n {
		t.Log = append(t.Log, storetest.Entry(strings.Repeat("x", bytes)))
	}
	return t
}

func commit(t *testing.T, e *store.Etcd, s loop.State, n, bytes int) {
	t.Helper()
	if err := e.Commit(t.Context(), said(s, n, bytes)); err != nil {
		t.Fatal(err)
	}
}

// commitInRoom commits, as one does who is refused for want of room now and then: it asks
// again after the keeper's next round. etcd tells how large its file is a moment late.
func commitInRoom(t *testing.T, e *store.Etcd, k *store.Keeper, s loop.State, n, bytes int) {
	t.Helper()
	const most = 20 // rounds
	for range most {
		err := e.Commit(t.Context(), said(s, n, bytes))
		if err == nil {
			return
		}
		if !errors.Is(err, loop.ErrFull) {
			t.Fatal(err)
		}
		rounds(t, k, 1)
	}
	t.Fatalf("there is no room after %d rounds", most)
}

func rounds(t *testing.T, k *store.Keeper, n int) {
	t.Helper()
	for range n {
		if err := k.Round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// whole verifies the log from its first entry on, each entry once, and returns how many
// there are and how many tell of a segment.
func whole(t *testing.T, e *store.Etcd) (n, sealed int64) {
	t.Helper()
	head, err := e.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.Check(t.Context()); err != nil || got != head.Entries {
		t.Fatalf("%d of %d entries are whole: %v", got, head.Entries, err)
	}
	err = e.Log(t.Context(), 1, func(entry loop.Entry) error {
		if n++; entry.Seq != n {
			return fmt.Errorf("entry %d is the %dth", entry.Seq, n)
		}
		if entry.Kind == store.KindSealed {
			sealed++
		}
		return nil
	})
	if err != nil || n != head.Entries {
		t.Fatalf("the log has %d of %d entries: %v", n, head.Entries, err)
	}
	return n, sealed
}

// TestBounded writes three times what etcd may hold (an entry has its text twice). It never holds more; no entry is lost
// or doubled.
func TestBounded(t *testing.T) {
	o := tinyOptions(t)
	o.Limits.SegmentEntries = 100 // each costs the disk a few waits
	e, s := loaded(t, o)
	k := store.NewKeeper(e, store.KeeperOptions{})
	const commits, entries, size = 50, 30, 8 << 10
	largest := int64(0)
	for i := range commits {
		commitInRoom(t, e, k, s, entries, size)
		if i%3 == 2 {
			rounds(t, k, 1)
			u, ok := e.Usage()
			if largest = max(largest, u.File); !ok || u.File > quota-u.Reserve/2 {
				t.Fatalf("after %d commits: %+v", i, u)
			}
		}
	}
	rounds(t, k, 3)
	n, sealed := whole(t, e)
	u, _ := e.Usage()
	if n != commits*entries+sealed || sealed < 12 || u.InStore+u.InFiles != n || u.State != "" {
		t.Errorf("%d entries, %d of segments, %+v", n, sealed, u)
	}
	first, in, err := store.EntriesInStore(t.Context(), e)
	if err != nil || in > 200 || first+in-1 != n {
		t.Errorf("etcd has %d entries from %d on, %v", in, first, err)
	}
	t.Logf("%d MB were written; etcd's file was %s at most; %d entries in %d segments of %s, %d in etcd", commits*entries*size>>20, store.Bytes(largest), u.InFiles, u.Segments, store.Bytes(u.FileBytes), in)
	for _, seq := range []int64{1, 2, 50, 51, first - 1, first, n} {
		hash, err := e.HashAt(t.Context(), seq)
		if err != nil || len(hash) != 64 {
			t.Errorf("entry %d: %q, %v", seq, hash, err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	again, s := loaded(t, o)
	if m, _ := whole(t, again); m != n || s.Head.Entries != n {
		t.Errorf("after a restart: %d, %d", m, s.Head.Entries)
	}
	commit(t, again, s, 1, 1)
	whole(t, again)
}

// TestCompactionNeedsLittleRoom: to forget what was overwritten needs no second copy of
// what stays, also where entries are large.
func TestCompactionNeedsLittleRoom(t *testing.T) {
	o := options(t)
	o.Limits.Quota = 64 << 20
	e, s := loaded(t, o)
	k := store.NewKeeper(e, store.KeeperOptions{})
	const size = 100 << 10
	for range 170 { // just more than half of the room
		commit(t, e, s, 1, size)
	}
	store.Settle(e)
	rounds(t, k, 2)
	if u, _ := e.Usage(); u.InFiles == 0 || u.File > u.Quota*3/4 || u.State != "" {
		t.Errorf("%+v", u)
	}
	whole(t, e)
}

// TestByAge: what is old goes to a file although it does not fill one.
func TestByAge(t *testing.T) {
	e, s := loaded(t, tinyOptions(t))
	commit(t, e, s, 7, 10) // of storetest's time
	now := storetest.Entry("").At
	k := store.NewKeeper(e, store.KeeperOptions{Wall: func() time.Time { return now }})
	rounds(t, k, 2)
	if u, _ := e.Usage(); u.InFiles != 0 {
		t.Errorf("%+v", u)
	}
	now = now.Add(40 * 24 * time.Hour)
	rounds(t, k, 2)
	if u, _ := e.Usage(); u.InFiles != 7 || u.InStore != 1 || u.Segments != 1 {
		t.Errorf("%+v", u)
	}
	whole(t, e)
}

// TestSegmentMissingOrAltered: what cannot be read is never said to be whole.
func TestSegmentMissingOrAltered(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"missing": os.Remove,
		"altered": func(path string) error {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, bytes.Replace(data, []byte("xxx"), []byte("xyx"), 1), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, s := loaded(t, tinyOptions(t))
			commit(t, e, s, 200, 10)
			k := store.NewKeeper(e, store.KeeperOptions{})
			rounds(t, k, 5)
			list, err := filepath.Glob(filepath.Join(store.SegmentsDir(e), "log-*"))
			if err != nil || len(list) < 3 {
				t.Fatal(list, err)
			}
			if err := harm(list[1]); err != nil {
				t.Fatal(err)
			}
			var broken *store.Broken
			n, err := e.Check(t.Context())
			if !errors.As(err, &broken) || broken.Seq != 51 || n != 50 || !strings.Contains(err.Error(), filepath.Base(list[1])) {
				t.Errorf("%d, %v", n, err)
			}
			if _, err := e.HashAt(t.Context(), 60); !errors.As(err, &broken) {
				t.Errorf("the hash of an entry in it: %v", err)
			}
			if err := e.Log(t.Context(), 1, func(loop.Entry) error { return nil }); err == nil || !strings.Contains(err.Error(), filepath.Base(list[1])) {
				t.Errorf("the log: %v", err)
			}
			rounds(t, k, 2)
			if u, _ := e.Usage(); len(u.Lacks) != 1 || !strings.Contains(u.Lacks[0], filepath.Base(list[1])) {
				t.Errorf("%+v", u)
			}
		})
	}
}

// TestFull: when there is no room left the text goes first, then new steps; what ends
// something, and a freeze, are kept.
func TestFull(t *testing.T) {
	o := tinyOptions(t)
	e, s := loaded(t, o)
	k := store.NewKeeper(e, store.KeeperOptions{})
	rounds(t, k, 1)
	fill := func(name string, upTo int64) {
		t.Helper()
		for i := 0; ; i++ {
			store.Settle(e)
			u, _ := e.Usage()
			if u.InUse >= upTo {
				return
			}
			if u.File-u.InUse > quota/32 { // etcd refuses by the file, holes and all
				if err := store.Tighten(e); err != nil {
					t.Fatal(err)
				}
			}
			if err := store.FillBehind(t.Context(), e, fmt.Sprint(name, i), make([]byte, 16<<10)); err != nil {
				t.Fatal(err)
			}
		}
	}
	text := func() error {
		return e.Commit(t.Context(), loop.Txn{Token: s.Token, Log: []loop.Entry{storetest.Entry("text")}})
	}
	intent := func(key string) error {
		return e.Commit(t.Context(), loop.Txn{Token: s.Token, Intents: []loop.Intent{storetest.Intent(key)}})
	}
	urgent := func() error {
		return errors.Join(
			e.Commit(t.Context(), loop.Txn{Token: s.Token, Settled: []string{"a"}, Log: []loop.Entry{storetest.Entry("outcome")}}),
			e.Commit(t.Context(), loop.Txn{Token: s.Token, Freeze: &guard.Freeze{By: "ann"}, Log: []loop.Entry{storetest.Entry("freeze")}}),
			e.Commit(t.Context(), loop.Txn{Token: s.Token, Thaw: true}),
			e.Commit(t.Context(), loop.Txn{Token: s.Token, Windows: &[]guard.Window{}}))
	}
	if err := errors.Join(text(), intent("a"), urgent()); err != nil {
		t.Fatal(err)
	}
	fill("a", quota*7/10+quota/16)
	if u, _ := e.Usage(); u.State != store.Filling || u.Why == "" {
		t.Errorf("%+v", u)
	}
	fill("b", quota-quota/16+quota/128)
	if u, _ := e.Usage(); u.State != store.Full || !strings.Contains(u.Why, "not kept") {
		t.Errorf("%+v", u)
	}
	if err := text(); !errors.Is(err, loop.ErrFull) || !strings.Contains(err.Error(), "--store-quota") {
		t.Errorf("text: %v", err)
	}
	if err := intent("a"); !errors.Is(err, loop.ErrFull) { // half of the reserve is in use
		t.Errorf("an intent: %v", err)
	}
	if err := urgent(); err != nil {
		t.Errorf("what is urgent: %v", err)
	}
	if err := store.EmptyBehind(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	for range 4 { // compacts, gives itself the turn, defragments
		rounds(t, k, 1)
		store.Settle(e)
	}
	if u, _ := e.Usage(); u.State != "" || u.File > quota/4 {
		t.Errorf("%+v", u)
	}
	if err := errors.Join(text(), intent("b")); err != nil {
		t.Error(err)
	}
	whole(t, e)
}

// TestAlarm: etcd's own alarm, which lets nothing be written, is shown with what to do,
// and ended when there is space again; also where it stands when the server starts.
func TestAlarm(t *testing.T) {
	o := tinyOptions(t)
	e, s := loaded(t, o)
	k := store.NewKeeper(e, store.KeeperOptions{})
	for range 2 {
		n := 0
		fill := func() {
			for full := error(nil); full == nil; n++ {
				full = store.FillBehind(t.Context(), e, fmt.Sprint(n), make([]byte, 32<<10))
			}
		}
		fill()
		if err := e.Commit(t.Context(), loop.Txn{Token: s.Token, Thaw: true, Freeze: &guard.Freeze{By: "ann"}}); !errors.Is(err, loop.ErrFull) || !strings.Contains(err.Error(), "--store-quota") {
			t.Errorf("a commit: %v", err)
		}
		err := k.Round(t.Context())
		for range 5 { // as long as there is something to be had from defragmentation
			if err == nil {
				fill()
				err = k.Round(t.Context())
			}
		}
		if err == nil || !strings.Contains(err.Error(), "larger --store-quota") {
			t.Errorf("a round: %v", err)
		}
		if u, _ := e.Usage(); u.State != store.Full || !strings.Contains(u.Why, "NOSPACE") {
			t.Errorf("%+v", u)
		}
		if err := store.EmptyBehind(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		e, s = loaded(t, o)
		k = store.NewKeeper(e, store.KeeperOptions{})
		rounds(t, k, 2)
		if u, _ := e.Usage(); u.State != "" {
			t.Errorf("%+v", u)
		}
		commit(t, e, s, 1, 1)
	}
	whole(t, e)
}
