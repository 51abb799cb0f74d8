package store_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/store/storetest"
)

// Who is in the fleet is told as it is, and then with every change, in a store of one's
// own as in one that is there already.
func TestShelfIsFollowed(t *testing.T) {
	outsider := startOutsider(t, 1)
	for name, open := range map[string]func(*testing.T) *store.Etcd{
		"its own": func(t *testing.T) *store.Etcd {
			return openEtcd(t, store.EtcdOptions{Dir: filepath.Join(t.TempDir(), "store"), Fleet: storetest.Fleet})
		},
		"already there": func(*testing.T) *store.Etcd { return outsider.must("/fettle/followed", "one") },
	} {
		t.Run(name, func(t *testing.T) {
			shelf := open(t).Shelf()
			var want []string
			for i := range 300 { // more than one page of the store's
				id := fmt.Sprintf("h%03d", i)
				if err := shelf.Create(t.Context(), "hosts", id, []byte("{}")); err != nil {
					t.Fatal(err)
				}
				want = append(want, id)
			}
			if err := shelf.Create(t.Context(), "servers", "s1", []byte("{}")); err != nil {
				t.Fatal(err)
			}
			followed, ok := shelf.(pki.Followed)
			if !ok {
				t.Fatal("it cannot be followed")
			}
			ctx, cancel := context.WithCancel(t.Context())
			var mu sync.Mutex
			in := map[pki.Record]bool{}
			news := make(chan struct{}, 10)
			ended := make(chan error, 1)
			go func() {
				ended <- followed.Follow(ctx, func(all map[pki.Record]bool) {
					mu.Lock()
					in = all
					mu.Unlock()
					news <- struct{}{}
				}, func(r pki.Record, there bool) {
					mu.Lock()
					if in[r] = there; !there {
						delete(in, r)
					}
					mu.Unlock()
					news <- struct{}{}
				})
			}()
			hosts := func(what string) []string {
				t.Helper()
				select {
				case <-news:
				case err := <-ended:
					t.Fatalf("%s: it ended: %v", what, err)
				case <-time.After(30 * time.Second):
					t.Fatalf("%s: nothing is told", what)
				}
				mu.Lock()
				defer mu.Unlock()
				var list []string
				for r := range in {
					if r.Kind == "hosts" {
						list = append(list, r.ID)
					}
				}
				slices.Sort(list)
				return list
			}
			if got := hosts("at first"); !slices.Equal(got, want) || !in[pki.Record{Kind: "servers", ID: "s1"}] {
				t.Errorf("told of %d hosts, want %d, and of the server", len(got), len(want))
			}
			if err := shelf.Remove(t.Context(), "hosts", "h000"); err != nil {
				t.Fatal(err)
			}
			if got := hosts("one is sent away"); !slices.Equal(got, want[1:]) {
				t.Errorf("after one was sent away it has %d", len(got))
			}
			if err := shelf.Create(t.Context(), "hosts", "h300", []byte("{}")); err != nil {
				t.Fatal(err)
			}
			if got := hosts("one more"); !slices.Equal(got, append(want[1:], "h300")) {
				t.Errorf("after one more it has %d", len(got))
			}
			cancel()
			<-ended
		})
	}
}
