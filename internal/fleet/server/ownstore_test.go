package server

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/wire"
)

// outsideStore is servers whose store is an existing etcd, of which a test says the name.
type outsideStore struct {
	Cluster
	id string
}

func (e *outsideStore) Outside() (string, bool)                              { return e.id, true }
func (e *outsideStore) Leader() (store.Leader, bool)                         { return store.Leader{}, false }
func (e *outsideStore) Addresses(context.Context) (map[string]string, error) { return nil, nil }

// stopped is a clock on which nothing ever comes.
type stopped struct{ still }

func (*stopped) After(time.Duration) (<-chan time.Time, func()) { return nil, func() {} }

// TestServerSaysWhatHoldsItsStore: before anything else, and by the name that the store
// has now; a permit says it too.
func TestServerSaysWhatHoldsItsStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &outsideStore{id: "cafe"}
		s := &Server{o: Options{Clock: &stopped{still{now: time.Now()}}, Log: slog.New(slog.DiscardHandler), Cluster: e, Register: pki.NewRegister(nil, pki.Folder(t.TempDir())), LostAfter: time.Second},
			self: fettle.NewSubject(KindServer, "me"), hosts: map[fettle.Subject]*host{}, observers: map[look][]*host{}}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // the term ends as soon as it has begun
		brain := &told{}
		if err := s.Lead(ctx, brain); err != nil && ctx.Err() == nil {
			t.Fatal(err)
		}
		if len(brain.seen) == 0 || brain.seen[0].Probe != StoreProbe || brain.seen[0].Subject != s.self {
			t.Fatalf("what is said first is %+v", brain.seen)
		}
		if g, ok := fettle.StoreGroupOf(brain.seen[0].Facts); !ok || g != (fettle.StoreGroup{Kind: "etcd", ID: "cafe"}) {
			t.Errorf("it says %v", brain.seen[0].Facts)
		}
		e.id = "beef"
		if g := s.storeGroup(); g == nil || g.ID != "beef" {
			t.Errorf("a store that was restored is %v", g)
		}
		s.o.Cluster = nil
		if list := s.holds(); len(list) != 0 || s.storeGroup() != nil {
			t.Errorf("a server that is alone says %v", list)
		}
	})
}

// TestRoomFor: who joins names the same kind of store as the others, and there are five
// at most.
func TestRoomFor(t *testing.T) {
	shelf := pki.Folder(t.TempDir())
	e := &enrol{s: &Server{o: Options{Register: pki.NewRegister(nil, shelf)}}}
	check := func(peer string, outside bool, want string) {
		t.Helper()
		err := e.roomFor(t.Context(), &wire.JoinServerRequest{Peer: peer}, outside)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("peer %q, outside %v: %v, want %q", peer, outside, err, want)
		}
	}
	check("10.0.0.1:7402", false, "")
	check("", false, "want host:port")
	check("", true, "")
	check("10.0.0.1:7402", true, "--store")
	for i := range mostServers {
		check("", true, "")
		if err := shelf.Create(t.Context(), "servers", fmt.Sprint("s", i), fmt.Appendf(nil, `{"id":"s%d"}`, i)); err != nil {
			t.Fatal(err)
		}
	}
	check("", true, "there are 5 servers")
	if err := e.roomFor(t.Context(), &wire.JoinServerRequest{}, true); status.Code(err) != codes.FailedPrecondition {
		t.Error(err)
	}
}
