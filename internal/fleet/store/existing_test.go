package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/fleet/store"
	"fettle/internal/fleet/store/storetest"
	"fettle/internal/loop"
	"fettle/internal/machine/loopback"
)

// refused fails the test unless opening fails with all of these words.
func refused(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Error("it was opened")
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v\ndoes not say %q", err, w)
		}
	}
}

// TestExistingIsWhose: what is not this fleet's store is not touched, and whose it is is
// said.
func TestExistingIsWhose(t *testing.T) {
	o := startOutsider(t, 1)
	o.put("/others/x", "theirs")
	o.must("/fettle/ours", "one")
	shelf := o.must("/fettle/ours", "one").Shelf()
	if err := shelf.Create(t.Context(), "servers", "s1", []byte(`{"id":"s1","label":"anna"}`)); err != nil {
		t.Fatal(err)
	}
	open := func(prefix, fleet string, found bool) error {
		s, err := o.open(store.Existing{Where: o.where(prefix), Name: "x", Found: found}, fleet)
		if err == nil {
			err = s.Close()
		}
		return err
	}
	before := o.keys("nothing")
	refused(t, open("/fettle/ours", "stranger", true), storetest.Fleet, "anna", "--store-prefix")
	refused(t, open("/fettle/ours/sub", "stranger", true), "lies within /fettle/ours/", storetest.Fleet)
	refused(t, open("/fettle", "stranger", true), "servers with a store of their own")
	refused(t, open("/others", "stranger", true), "/others/x")
	refused(t, open("/fettle/gone", storetest.Fleet, false), "gone", "restore a backup")
	if after := o.keys("nothing"); after != before {
		t.Errorf("a refusal has changed what is there:\n%s\nto\n%s", before, after)
	}
	if err := open("/fettle/ours", storetest.Fleet, false); err != nil {
		t.Errorf("ours, once more: %v", err)
	}
	// The cluster is a copy: another one, with the same keys.
	copied := startOutsider(t, 1)
	copied.put("/first/change", "so that it is another history")
	for _, pair := range strings.Fields(o.keys("/others")) {
		key, value, _ := strings.Cut(pair, "=")
		copied.put(key, value)
	}
	s, err := copied.open(store.Existing{Where: copied.where("/fettle/ours"), Name: "x"}, storetest.Fleet)
	if err == nil {
		_ = s.Close()
	}
	refused(t, err, "copy", "restore")
	both := store.Where{Endpoints: slices.Concat(o.endpoints, copied.endpoints), Prefix: "/fettle/ours"}
	_, err = o.open(store.Existing{Where: both, Name: "x"}, storetest.Fleet)
	refused(t, err, "different clusters")
}

// TestExistingIsNotEmbedded: the store that other servers have for themselves is nobody
// else's, whoever can reach it.
func TestExistingIsNotEmbedded(t *testing.T) {
	in := options(t)
	e := openEtcd(t, in)
	if _, err := e.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := store.OpenEtcd(t.Context(), store.EtcdOptions{Dir: t.TempDir(), Fleet: "other", Existing: &store.Existing{
		Where: store.Where{Endpoints: []string{"unix://" + filepath.Join(in.Dir, "etcd.sock")}}, Name: "x", Found: true}})
	refused(t, err, "embedded store", storetest.Fleet, "--join")
}

// TestExistingGrowsByItsOwnTools: what changes the members of a store is not done to one
// that is not Fettle's own.
func TestExistingGrowsByItsOwnTools(t *testing.T) {
	o := startOutsider(t, 1)
	e := o.must("", "one")
	_, err := e.Add(t.Context(), "two", "10.0.0.1:2380")
	refused(t, err, "not supported", "its own tools")
	refused(t, e.Remove(t.Context(), "m0"), "not supported")
	if list, err := e.Members(t.Context()); len(list) != 0 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
	if id, ok := e.Outside(); !ok || id == "" || id == "0" {
		t.Errorf("the cluster is %q, %v", id, ok)
	}
	own := openEtcd(t, options(t))
	if id, ok := own.Outside(); ok {
		t.Errorf("a store of its own is in cluster %q", id)
	}
	if err := e.Shelf().Remove(t.Context(), "servers", "one"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Campaign(t.Context()); !errors.Is(err, store.ErrRemoved) {
		t.Errorf("who was taken out stands for election: %v", err)
	}
	s := store.NewServers(e)
	if err := s.Announce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "one"); err != nil {
		t.Errorf("a server's address: %v", err)
	}
	if list, err := s.Addresses(t.Context()); len(list) != 0 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
}

// TestExistingUsers: a user who may not write the whole prefix is found out at once; a
// password is taken from a file that nobody else may read, and stands in no error.
func TestExistingUsers(t *testing.T) {
	const password = "correct-horse-battery"
	o := startOutsider(t, 1)
	o.put("others", "theirs")
	anybody := o.must("/fettle/open", "one")
	if w := strings.Join(anybody.Warnings(t.Context()), "\n"); !strings.Contains(w, "without TLS") || !strings.Contains(w, "no users") {
		t.Errorf("it is not warned of: %s", w)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, user := range []string{"root", "fettle", "reader"} {
		_, err := o.UserAdd(t.Context(), user, password)
		must(err)
		_, err = o.RoleAdd(t.Context(), user)
		must(err)
		_, err = o.UserGrantRole(t.Context(), user, user)
		must(err)
	}
	grant := func(role, key string, kind clientv3.PermissionType) {
		_, err := o.RoleGrantPermission(t.Context(), role, key, clientv3.GetPrefixRangeEnd(key), kind)
		must(err)
	}
	grant("fettle", "/fettle/ours/", clientv3.PermissionType(clientv3.PermReadWrite))
	grant("reader", "/fettle/ours/", clientv3.PermissionType(clientv3.PermRead))
	_, err := o.AuthEnable(t.Context())
	must(err)
	file := filepath.Join(t.TempDir(), "password")
	must(os.WriteFile(file, []byte(password+"\n"), 0o600))
	open := func(user, file, prefix string) (*store.Etcd, error) {
		w := o.where(prefix)
		w.User, w.PasswordFile = user, file
		s, err := o.open(store.Existing{Where: w, Name: "one", Found: true}, storetest.Fleet)
		if err != nil && strings.Contains(err.Error(), password) {
			t.Errorf("the password stands in: %v", err)
		}
		return s, err
	}
	e, err := open("fettle", file, "/fettle/ours")
	must(err)
	if w := strings.Join(e.Warnings(t.Context()), "\n"); strings.Contains(w, "no users") {
		t.Errorf("it is warned of what is not so: %s", w)
	}
	enter(t, e, "one")
	led := &elected{Etcd: e}
	state, err := led.Load(t.Context())
	must(err)
	must(led.Commit(t.Context(), loop.Txn{Token: state.Token, Log: []loop.Entry{storetest.Entry("as a user")}}))
	must(led.Close())

	_, err = open("reader", file, "/fettle/ours")
	refused(t, err, "permission denied", "grant-permission")
	_, err = open("fettle", file, "/fettle/elsewhere")
	refused(t, err, "permission denied")
	_, err = open("", "", "/fettle/ours")
	refused(t, err, "user")
	wrong := filepath.Join(t.TempDir(), "wrong")
	must(os.WriteFile(wrong, []byte("wrong"), 0o600))
	_, err = open("fettle", wrong, "/fettle/ours")
	refused(t, err, "authentication failed")
	must(os.Chmod(file, 0o644))
	_, err = open("fettle", file, "/fettle/ours")
	refused(t, err, "chmod 600")
}

// TestExistingIsWaitedFor: while no member answers a server waits, says why, and goes on
// when one does.
func TestExistingIsWaitedFor(t *testing.T) {
	address, dir := loopback.Address(t), t.TempDir()
	told := make(chan error, 1)
	opened := make(chan error, 1)
	go func() {
		e, err := store.OpenEtcd(t.Context(), store.EtcdOptions{Dir: dir, Fleet: storetest.Fleet, Existing: &store.Existing{
			Where: store.Where{Endpoints: []string{"http://" + address}}, Name: "one", Found: true, Waiting: func(err error) {
				select {
				case told <- err:
				default:
				}
			}}})
		if err == nil {
			err = e.Close()
		}
		opened <- err
	}()
	select {
	case err := <-told:
		if !strings.Contains(err.Error(), address) {
			t.Errorf("why it waits: %v", err)
		}
	case err := <-opened:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("nobody was told")
	}
	o := startOutsider(t, 1)
	defer newLinkAt(t, address, strings.TrimPrefix(o.endpoints[0], "http://")).close()
	if err := <-opened; err != nil {
		t.Error(err)
	}
}
