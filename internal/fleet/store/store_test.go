package store_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/act/journal"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/store/storetest"
	"fettle/internal/loop"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Open {
		m := store.NewMemory(storetest.Fleet)
		return func(*testing.T) loop.Store { return m }
	})
}

// closing closes a store at the end of the test, if the test did not.
func closing(t *testing.T, s loop.Store) loop.Store {
	t.Helper()
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, context.Canceled) {
			t.Logf("close: %v", err)
		}
	})
	return s
}

func openFile(t *testing.T, path string) loop.Store {
	t.Helper()
	f, err := store.OpenFile(t.Context(), path, storetest.Fleet, journal.Options{Reserve: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return closing(t, f)
}

func TestFile(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Open {
		path := filepath.Join(t.TempDir(), "store")
		return func(t *testing.T) loop.Store { return openFile(t, path) }
	})
}

func openEtcd(t *testing.T, o store.EtcdOptions) *store.Etcd {
	t.Helper()
	e, err := store.OpenEtcd(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	closing(t, e)
	return e
}

func options(t *testing.T) store.EtcdOptions {
	return store.EtcdOptions{Dir: filepath.Join(t.TempDir(), "store"), Fleet: storetest.Fleet}
}

func TestEtcd(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Open {
		o := options(t)
		return func(t *testing.T) loop.Store { return openEtcd(t, o) }
	})
}

func TestFileOfAnotherFleet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	s := openFile(t, path)
	if _, err := s.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenFile(t.Context(), path, "other", journal.Options{}); err == nil || !strings.Contains(err.Error(), "other") {
		t.Errorf("got %v", err)
	}
	openFile(t, path) // the refusal let go of the lock
}

// TestEtcdIsOutOfReach: no TCP, and a socket that only the owner can get to.
func TestEtcdIsOutOfReach(t *testing.T) {
	o := options(t)
	openEtcd(t, o)
	sockets := 0
	err := filepath.WalkDir(o.Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type() == fs.ModeSocket {
			sockets++
		}
		return err
	})
	if err != nil || sockets != 1 {
		t.Errorf("%d sockets below %s (%v), want 1", sockets, o.Dir, err)
	}
	if info, err := os.Stat(o.Dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder %v, %v", info.Mode(), err)
	}
	// Only this process's own sockets: of all of /proc/net/tcp those whose inode
	// is among our descriptors.
	own := map[string]bool{}
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "socket:[") {
			own[strings.Trim(to[len("socket:"):], "[]")] = true
		}
	}
	if len(own) == 0 {
		t.Fatal("found none of our own sockets: this test looks in the wrong place")
	}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if err != nil {
			continue // no IPv6
		}
		for line := range strings.Lines(string(data)) {
			if f := strings.Fields(line); len(f) > 9 && own[f[9]] {
				t.Errorf("%s: %s", table, line)
			}
		}
	}
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenEtcd(t.Context(), store.EtcdOptions{Dir: open, Fleet: "f"}); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("a folder that others may enter: %v", err)
	}
}

func TestEtcdOfAnotherFleet(t *testing.T) {
	o := options(t)
	e := openEtcd(t, o)
	if _, err := e.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	o.Fleet = "other"
	if _, err := openEtcd(t, o).Load(t.Context()); err == nil || !strings.Contains(err.Error(), storetest.Fleet) {
		t.Errorf("got %v", err)
	}
}

func TestEtcdInALongFolder(t *testing.T) {
	o := options(t)
	o.Dir = filepath.Join(t.TempDir(), strings.Repeat("long/", 30))
	if _, err := openEtcd(t, o).Load(t.Context()); err != nil {
		t.Error(err)
	}
}

// tamper changes the store behind its back.
func tamper(t *testing.T, o store.EtcdOptions, change func(kv clientv3.KV)) {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + filepath.Join(o.Dir, "etcd.sock")}, DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	change(c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCheckFindsTampering(t *testing.T) {
	key := func(n string) string { return "/fettle/log/" + strings.Repeat("0", 19) + n }
	for name, c := range map[string]struct {
		change func(t *testing.T, kv clientv3.KV)
		want   string
	}{
		"edited": {func(t *testing.T, kv clientv3.KV) {
			got, err := kv.Get(t.Context(), key("2"))
			if err != nil || len(got.Kvs) != 1 {
				t.Fatal(got, err)
			}
			must(t)(kv.Put(t.Context(), key("2"), strings.Replace(string(got.Kvs[0].Value), `"two"`, `"TWO"`, 1)))
		}, "at entry 2"},
		"taken out": {func(t *testing.T, kv clientv3.KV) {
			_, err := kv.Delete(t.Context(), key("2"))
			if err != nil {
				t.Fatal(err)
			}
		}, "at entry 2"},
		"swapped": {func(t *testing.T, kv clientv3.KV) {
			one, err := kv.Get(t.Context(), key("1"))
			if err != nil {
				t.Fatal(err)
			}
			must(t)(kv.Put(t.Context(), key("2"), string(one.Kvs[0].Value)))
		}, "at entry 2"},
		"end cut off": {func(t *testing.T, kv clientv3.KV) {
			if _, err := kv.Delete(t.Context(), key("3")); err != nil {
				t.Fatal(err)
			}
		}, "at entry 3"},
		"unreadable": {func(t *testing.T, kv clientv3.KV) {
			must(t)(kv.Put(t.Context(), key("1"), "{"))
		}, "at entry 1"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			e := openEtcd(t, o)
			s, err := e.Load(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Commit(t.Context(), loop.Txn{Token: s.Token, Log: []loop.Entry{storetest.Entry("one"), storetest.Entry("two"), storetest.Entry("three")}}); err != nil {
				t.Fatal(err)
			}
			tamper(t, o, func(kv clientv3.KV) { c.change(t, kv) })
			var broken *store.Broken
			if _, err := e.Check(t.Context()); !errors.As(err, &broken) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func must(t *testing.T) func(*clientv3.PutResponse, error) {
	return func(_ *clientv3.PutResponse, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestLostLeadership: somebody else takes the leader key; nothing is written any
// more, also when the key comes to be gone.
func TestLostLeadership(t *testing.T) {
	for name, change := range map[string]func(kv clientv3.KV) error{
		"taken over": func(kv clientv3.KV) error {
			if _, err := kv.Delete(t.Context(), "/fettle/leader"); err != nil {
				return err
			}
			_, err := kv.Put(t.Context(), "/fettle/leader", storetest.Fleet)
			return err
		},
		"gone": func(kv clientv3.KV) error {
			_, err := kv.Delete(t.Context(), "/fettle/leader")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			e := openEtcd(t, o)
			s, err := e.Load(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			tamper(t, o, func(kv clientv3.KV) {
				if err := change(kv); err != nil {
					t.Fatal(err)
				}
			})
			for range 2 {
				if err := e.Commit(t.Context(), loop.Txn{Token: s.Token, Log: []loop.Entry{storetest.Entry("x")}}); !errors.Is(err, loop.ErrNotLeader) {
					t.Errorf("got %v, want ErrNotLeader", err)
				}
			}
			if n, err := e.Check(t.Context()); n != 0 || err != nil {
				t.Errorf("%d entries, %v", n, err)
			}
		})
	}
}

// TestCommitIsTriedAgain: what etcd lost on its way is written again, long before the
// caller's patience ends; what was carried out, and only its answer lost, is not.
func TestCommitIsTriedAgain(t *testing.T) {
	for name, carriedOut := range map[string]bool{"lost": false, "answer lost": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := openEtcd(t, options(t))
			s, err := e.Load(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for i, text := range []string{"one", "two", "three"} {
				if i == 1 {
					store.LoseTxn(e, carriedOut)
				}
				if err := e.Commit(t.Context(), loop.Txn{Token: s.Token, Log: []loop.Entry{storetest.Entry(text)}}); err != nil {
					t.Fatal(err)
				}
			}
			if n, err := e.Check(t.Context()); n != 3 || err != nil {
				t.Errorf("%d entries, %v", n, err)
			}
		})
	}
}

// TestLostAnswer: a commit that got no answer was kept after all, at once or only
// later. The next one is chained to it.
func TestLostAnswer(t *testing.T) {
	e := openEtcd(t, options(t))
	s, err := e.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	commit := func(text string) error {
		return e.Commit(t.Context(), loop.Txn{Token: s.Token, Log: []loop.Entry{storetest.Entry(text)}})
	}
	if err := commit("one"); err != nil {
		t.Fatal(err)
	}
	store.LoseAnswer(e)
	if err := commit("two"); !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "tests nothing") {
		t.Fatalf("got %v", err)
	}
	if err := commit("three"); err != nil {
		t.Fatal(err)
	}
	if err := store.AppendBehind(t.Context(), e, storetest.Entry("late")); err != nil {
		t.Fatal(err)
	}
	if err := commit("four"); err != nil {
		t.Fatal(err)
	}
	if n, err := e.Check(t.Context()); n != 5 || err != nil {
		t.Errorf("%d entries, %v", n, err)
	}
}
