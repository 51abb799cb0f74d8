package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/fleet/segment"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/store/storetest"
	"fettle/internal/judge/guard"
	"fettle/internal/loop"
)

// bytesBelow is what the keys and values below a prefix have, without the prefix.
func (o *outsider) bytesBelow(prefix string) (n int64) {
	o.t.Helper()
	got, err := o.Get(o.t.Context(), prefix+"/", clientv3.WithPrefix())
	if err != nil {
		o.t.Fatal(err)
	}
	for _, kv := range got.Kvs {
		n += int64(len(kv.Key) - len(prefix) - 1 + len(kv.Value))
	}
	return n
}

// TestExistingIsBounded writes several times what the fleet's keys may have in an etcd that
// is there. They never have more, nothing of the log is lost, and that etcd's history and
// file are left to its owner.
func TestExistingIsBounded(t *testing.T) {
	const most = 2 << 20
	o := startOutsider(t, 1)
	o.limits = store.Limits{Quota: most, SegmentEntries: 50, KeepEntries: 20}
	o.put("others", "first")
	o.put("others", "second")
	began, err := o.Get(t.Context(), "others")
	if err != nil {
		t.Fatal(err)
	}
	e, s := o.lead("/fettle/small", "one")
	k := store.NewKeeper(e.Etcd, store.KeeperOptions{})
	const commits, entries, size = 80, 10, 8 << 10
	for i := range commits {
		commitInRoom(t, e.Etcd, k, s, entries, size)
		if i%4 == 3 {
			rounds(t, k, 1)
		}
		if u, _ := e.Usage(); i > 4 && (u.InUse > most || u.File != 0) {
			t.Fatalf("after %d commits: %+v", i, u)
		}
	}
	rounds(t, k, 3)
	n, sealed := whole(t, e.Etcd)
	u, _ := e.Usage()
	if n != commits*entries+sealed || sealed < 10 || u.InStore+u.InFiles != n || u.Quota != most {
		t.Errorf("%d entries, %d of segments, %+v", n, sealed, u)
	}
	var is int64
	for is = o.bytesBelow("/fettle/small"); u.InUse != is; is = o.bytesBelow("/fettle/small") { // until it was told of all
		rounds(t, k, 1)
		u, _ = e.Usage()
	}
	t.Logf("%d KiB were written; %d KiB are in etcd, %d entries in %d files", commits*entries*size>>10, is>>10, u.InFiles, u.Segments)
	// Its owner's: what was overwritten is there still.
	if got, err := o.Get(t.Context(), "others", clientv3.WithRev(began.Header.Revision-1)); err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "first" {
		t.Errorf("its history: %v, %v", got, err)
	}
	if rest := o.keys("/fettle/small/"); rest != "others=second" {
		t.Errorf("outside of the prefix is %s", rest)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	again, s := o.lead("/fettle/small", "one")
	if m, _ := whole(t, again.Etcd); m != n || s.Head.Entries != n {
		t.Errorf("after a restart: %d, %d", m, s.Head.Entries)
	}
	// What it lets in begins with what is there, also where it has just been opened.
	rounds(t, store.NewKeeper(again.Etcd, store.KeeperOptions{}), 1)
	if u, _ := again.Usage(); u.InUse < is-1024 || u.InUse > is+64<<10 {
		t.Errorf("%d bytes are counted, there were %d", u.InUse, is)
	}
}

// TestExistingServersHoldTheSame: nothing leaves an etcd that is there before a majority of
// the fleet's servers holds it. Meanwhile the fleet's keys take no more than they may: the
// text goes first, a freeze is kept. Who was away gets the files from the others.
func TestExistingServersHoldTheSame(t *testing.T) {
	const most = 1 << 20
	o := startOutsider(t, 1)
	o.limits = store.Limits{Quota: most, SegmentEntries: 20, KeepEntries: 10}
	var stores []*store.Etcd
	fetch := func(_ context.Context, address string, r segment.Ref) ([]byte, error) {
		for i, e := range stores {
			if address == fmt.Sprint("nowhere:", i) {
				return e.Segment(r)
			}
		}
		return nil, errors.New("no contact")
	}
	var keepers []*store.Keeper
	for i := range 3 {
		name := fmt.Sprint("s", i)
		e, err := o.open(store.Existing{Where: o.where("/fettle/three"), Name: name, Address: fmt.Sprint("nowhere:", i), Found: true}, storetest.Fleet)
		if err != nil {
			t.Fatal(err)
		}
		enter(t, e, name)
		if err := e.Announce(t.Context()); err != nil {
			t.Fatal(err)
		}
		stores, keepers = append(stores, e), append(keepers, store.NewKeeper(e, store.KeeperOptions{Fetch: fetch}))
	}
	first := &elected{Etcd: stores[0]}
	s, err := first.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer first.resign()
	rounds(t, keepers[0], 1)
	full := error(nil)
	for n := 0; full == nil && n < 1000; n++ {
		full = stores[0].Commit(t.Context(), loop.Txn{Token: s.Token, Log: []loop.Entry{storetest.Entry(strings.Repeat("x", 8<<10))}})
		if n%8 == 0 {
			rounds(t, keepers[0], 1)
		}
	}
	if !errors.Is(full, loop.ErrFull) || !strings.Contains(full.Error(), "--store-quota") {
		t.Fatalf("one of three holds it, and the rest is away: %v", full)
	}
	u, _ := stores[0].Usage()
	if u.State == "" || u.InFiles != 0 || o.bytesBelow("/fettle/three") > most {
		t.Errorf("%+v", u)
	}
	if err := stores[0].Commit(t.Context(), loop.Txn{Token: s.Token, Freeze: &guard.Freeze{By: "ann"}, Log: []loop.Entry{storetest.Entry("freeze")}}); err != nil {
		t.Errorf("a freeze: %v", err)
	}
	for range 12 { // a second one is back
		rounds(t, keepers[1], 1)
		rounds(t, keepers[0], 1)
	}
	commit(t, stores[0], s, 1, 8<<10)
	n, _ := whole(t, stores[0])
	u, _ = stores[0].Usage()
	if u.State != "" || u.InFiles < n/2 || len(filesOf(t, stores[2])) != 0 {
		t.Errorf("%d entries, %+v", n, u)
	}
	rounds(t, keepers[2], 1) // the third, of entries that are in etcd no more
	if got, want := filesOf(t, stores[2]), filesOf(t, stores[0]); len(got) != len(want) || len(got) < 2 {
		t.Errorf("it has %d files, the leader %d", len(got), len(want))
	}
	whole(t, stores[2])

	// The one that leads dies: the next one has what it needs, and goes on.
	first.resign()
	second := &elected{Etcd: stores[1]}
	if s, err = second.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer second.resign()
	commit(t, stores[1], s, 60, 10)
	before := u.InFiles
	for range 4 {
		rounds(t, keepers[1], 1)
		rounds(t, keepers[2], 1)
	}
	if u, _ := stores[1].Usage(); u.InFiles <= before || s.Freeze == nil {
		t.Errorf("it does not go on: %+v, %+v", u, s.Freeze)
	}
	whole(t, stores[1])
}

// TestExistingKilledWhileSealing is TestKilledWhileSealing in an etcd that is there.
func TestExistingKilledWhileSealing(t *testing.T) {
	o := startOutsider(t, 1)
	o.limits = crashOptions("").Limits
	first, _ := o.lead("", "one")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	dir := o.dir("", "one")
	killedWhileSealing(t, []string{"in place*1", "offered*2", "sealed*1", "dropped*1", "taken out*1", "held*6"}, dir+"@"+o.endpoints[0], func() (*store.Etcd, loop.State, func() error) {
		leases, err := o.Leases(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range leases.Leases { // of who is dead: it is not waited for
			if _, err := o.Revoke(t.Context(), l.ID); err != nil {
				t.Log(err) // it has ended
			}
		}
		e, s := o.lead("", "one")
		return e.Etcd, s, e.Close
	})
}

// TestExistingIsFull: the owner's etcd takes no writes. That is said, with whose it is to
// mend; nothing is compacted or defragmented; and it goes on when the owner has mended it.
func TestExistingIsFull(t *testing.T) {
	o := startOutsider(t, 1, "--quota-backend-bytes", fmt.Sprint(4<<20))
	o.put("others", "theirs")
	e, s := o.lead("", "one")
	commit(t, e.Etcd, s, 1, 10)
	now := time.Now()
	k := store.NewKeeper(e.Etcd, store.KeeperOptions{Wall: func() time.Time { now = now.Add(time.Minute); return now }})
	rounds(t, k, 1)
	full := error(nil)
	for n := 0; full == nil && n < 1000; n++ {
		_, full = o.Put(t.Context(), fmt.Sprint("others/", n), strings.Repeat("x", 256<<10))
	}
	err := e.Commit(t.Context(), loop.Txn{Token: s.Token, Log: []loop.Entry{storetest.Entry("text")}})
	if !errors.Is(err, loop.ErrFull) || !strings.Contains(err.Error(), "owner's") {
		t.Errorf("a commit: %v", err)
	}
	_ = k.Round(t.Context()) // what it writes is refused, too
	if u, _ := e.Usage(); u.State != store.Full || !strings.Contains(u.Why, "NOSPACE") || !strings.Contains(u.Why, "not Fettle's to mend") {
		t.Errorf("%+v", u)
	}
	if n, err := e.Check(t.Context()); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.Get(t.Context(), "others", clientv3.WithRev(2)); err != nil { // nobody compacted it
		t.Errorf("its history: %v", err)
	}
	gone, err := o.Delete(t.Context(), "others/", clientv3.WithPrefix())
	must(err)
	_, err = o.Compact(t.Context(), gone.Header.Revision, clientv3.WithCompactPhysical())
	must(err)
	_, err = o.Defragment(t.Context(), o.endpoints[0])
	must(err)
	_, err = o.AlarmDisarm(t.Context(), &clientv3.AlarmMember{})
	must(err)
	s, err = e.Load(t.Context()) // its lease may have ended meanwhile
	must(err)
	commit(t, e.Etcd, s, 1, 10)
	rounds(t, k, 1)
	if u, _ := e.Usage(); u.State != "" {
		t.Errorf("%+v", u)
	}
	whole(t, e.Etcd)
}

// TestExistingBackupWithFiles: a backup holds what has gone to files, and is restored into
// an etcd that is there, from an embedded store and from one like it. The other servers get
// the files from the one that restored. What is no whole backup leaves nothing behind.
func TestExistingBackupWithFiles(t *testing.T) {
	o := startOutsider(t, 1)
	o.limits = store.Limits{SegmentEntries: 20, KeepEntries: 10}
	embedded, s := loaded(t, tinyOptions(t))
	commit(t, embedded, s, 300, 1000)
	rounds(t, store.NewKeeper(embedded, store.KeeperOptions{}), 8)
	n, _ := whole(t, embedded)
	u, _ := embedded.Usage()
	if u.InFiles < 200 {
		t.Fatalf("%+v", u)
	}
	var b bytes.Buffer
	if err := embedded.Backup(t.Context(), &b, time.Unix(9, 0)); err != nil {
		t.Fatal(err)
	}
	restore := func(prefix string, data []byte) error {
		_, err := store.RestoreExisting(t.Context(), o.where(prefix), o.dir(prefix, "one"), "by a test", bytes.NewReader(data), 2, []byte("signed"))
		return err
	}
	lines := bytes.SplitAfter(b.Bytes(), []byte("\n"))
	lacking := bytes.Join(append([][]byte{lines[0]}, lines[2:]...), nil) // a file of it is not there
	for what, data := range map[string][]byte{"half": b.Bytes()[:b.Len()*2/3], "without a file": lacking} {
		if err := restore("/fettle/moved", data); err == nil {
			t.Errorf("%s a backup was restored", what)
		}
		if left := o.keys("nothing"); left != "" {
			t.Errorf("%s a backup left %.200s", what, left)
		}
	}
	if err := restore("/fettle/moved", b.Bytes()); err != nil {
		t.Fatal(err)
	}
	one, s := o.lead("/fettle/moved", "one")
	if m, _ := whole(t, one.Etcd); m != n || s.Head.Entries != n || s.Token.Epoch != 2 {
		t.Errorf("%d entries of %d, %+v", m, n, s.Token)
	}
	if err := one.Announce(t.Context()); err != nil {
		t.Fatal(err)
	}
	two := o.must("/fettle/moved", "two")
	rounds(t, store.NewKeeper(two, store.KeeperOptions{Fetch: func(_ context.Context, _ string, r segment.Ref) ([]byte, error) {
		return one.Segment(r)
	}}), 1)
	if got, want := len(filesOf(t, two)), len(filesOf(t, one.Etcd)); got != want || want != int(u.Segments) {
		t.Errorf("the second server has %d files of %d, %d", got, want, u.Segments)
	}
	whole(t, two)
	alone := o.must("/fettle/moved", "three") // with nobody to ask
	if _, err := alone.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "no other server") && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what it cannot read is whole: %v", err)
	}
	// And once more, out of that one.
	b.Reset()
	if err := one.Backup(t.Context(), &b, time.Unix(10, 0)); err != nil {
		t.Fatal(err)
	}
	if err := restore("/fettle/again", b.Bytes()); err != nil {
		t.Fatal(err)
	}
	third, _ := o.lead("/fettle/again", "one")
	if m, _ := whole(t, third.Etcd); m != n {
		t.Errorf("%d entries of %d", m, n)
	}
}
