package demo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
)

// store is a member that holds some keys and answers ranges of them, as etcd
// does, for as many calls as it is left.
type store struct {
	etcdserverpb.UnimplementedKVServer
	keys  map[string]string
	calls atomic.Int64
	left  int64 // calls that are answered; 0: all
}

func (s *store) Range(_ context.Context, r *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	if n := s.calls.Add(1); s.left > 0 && n > s.left {
		return nil, grpcstatus.Error(codes.PermissionDenied, "not any more")
	}
	if !r.Serializable {
		return nil, grpcstatus.Error(codes.FailedPrecondition, "a read that the other members answer for proves nothing about this one")
	}
	resp := &etcdserverpb.RangeResponse{Header: &etcdserverpb.ResponseHeader{}}
	for _, k := range slices.Sorted(maps.Keys(s.keys)) {
		switch {
		case k < string(r.Key) || k >= string(r.RangeEnd):
		case r.Limit > 0 && int64(len(resp.Kvs)) == r.Limit:
			resp.More = true
			return resp, nil
		default:
			resp.Kvs = append(resp.Kvs, &mvccpb.KeyValue{Key: []byte(k), Value: []byte(s.keys[k])})
		}
	}
	return resp, nil
}

// serve returns the store's address.
func serve(t *testing.T, s *store) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	etcdserverpb.RegisterKVServer(srv, s)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

func written(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprintf("demo/client0/%06d", i)] = fmt.Sprintf("value %d", i)
	}
	return m
}

func TestLost(t *testing.T) {
	acked := written(3)
	for _, c := range []struct {
		name   string
		change func(map[string]string)
		want   []string
	}{
		{"nothing", func(map[string]string) {}, nil},
		{"a key is missing", func(m map[string]string) { delete(m, "demo/client0/000001") }, []string{"demo/client0/000001"}},
		{"a value is another", func(m map[string]string) { m["demo/client0/000002"] = "value 1" }, []string{"demo/client0/000002"}},
		{"a value is empty", func(m map[string]string) { m["demo/client0/000000"] = "" }, []string{"demo/client0/000000"}},
		{"everything", func(m map[string]string) { clear(m) }, []string{"demo/client0/000000", "demo/client0/000001", "demo/client0/000002"}},
		{"one is found under another key", func(m map[string]string) {
			m["demo/client0/000001x"] = m["demo/client0/000001"]
			delete(m, "demo/client0/000001")
		}, []string{"demo/client0/000001"}},
		{"more than was acknowledged is nothing lost", func(m map[string]string) { m["demo/client1/000000"] = "not acknowledged" }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			held := maps.Clone(acked)
			c.change(held)
			gone, err := lost(t.Context(), serve(t, &store{keys: held}), acked)
			if err != nil || !slices.Equal(gone, c.want) {
				t.Errorf("lost are %v (%v), want %v", gone, err, c.want)
			}
		})
	}
}

// TestLostReadsEveryPage: what is on the second page is neither lost nor
// forgotten, and a page that does not come is no answer.
func TestLostReadsEveryPage(t *testing.T) {
	acked := written(5002)
	s := &store{keys: maps.Clone(acked)}
	delete(s.keys, "demo/client0/005001")
	gone, err := lost(t.Context(), serve(t, s), acked)
	if err != nil || !slices.Equal(gone, []string{"demo/client0/005001"}) || s.calls.Load() != 2 {
		t.Errorf("lost are %v after %d pages: %v", gone, s.calls.Load(), err)
	}
	half := &store{keys: acked, left: 1}
	if gone, err := lost(t.Context(), serve(t, half), acked); err == nil || gone != nil {
		t.Errorf("a member that answered half is taken at its word: %d lost", len(gone))
	}
}

// TestLostWithoutAnAnswer: a member that cannot be asked is an error, never
// "nothing lost".
func TestLostWithoutAnAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	silent := "http://" + l.Addr().String() // accepts, and never says anything
	defer l.Close()
	if gone, err := lost(ctx, silent, written(1)); err == nil || !strings.Contains(err.Error(), silent) || gone != nil {
		t.Errorf("want an error that names the member, got %v %v", gone, err)
	}
}

// TestAudit: one key that is missing on one member fails the scene, and so do a
// member that cannot be asked and a read that was answered wrongly.
func TestAudit(t *testing.T) {
	acked := written(4)
	less := maps.Clone(acked)
	delete(less, "demo/client0/000003")
	whole, partly, mute := &store{keys: acked}, &store{keys: less}, &store{keys: acked, left: 1}
	mute.calls.Store(1)
	for _, c := range []struct {
		name    string
		members []*store
		wrong   int64
		want    Result
	}{
		{"all there", []*store{whole, whole, whole}, 0, Result{Outcome: "mended", Writes: 4}},
		{"one lost on one", []*store{whole, partly, whole}, 0, Result{Outcome: "failed", Writes: 4, Lost: 1, Wrong: "1 acknowledged writes are missing"}},
		{"one not asked", []*store{whole, mute}, 0, Result{Outcome: "failed", Writes: 4, NotAsked: []string{"m1"}}},
		{"a wrong read", []*store{whole}, 2, Result{Outcome: "failed", Writes: 4, Wrong: "2 reads did not return what had been acknowledged"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var members []member
			for i, s := range c.members {
				members = append(members, member{name: fmt.Sprintf("m%d", i), clientURL: serve(t, s)})
			}
			s := &stage{load: &load{acked: acked}}
			s.load.wrong.Store(c.wrong)
			r := Result{Outcome: "mended"}
			s.audit(t.Context(), &r, members)
			if c.want.NotAsked != nil {
				if !strings.Contains(r.Wrong, "m1 could not be asked") {
					t.Errorf("it says %q", r.Wrong)
				}
				r.Wrong = ""
			}
			if r.Outcome != c.want.Outcome || r.Writes != c.want.Writes || r.Lost != c.want.Lost || r.Wrong != c.want.Wrong || !slices.Equal(r.NotAsked, c.want.NotAsked) {
				t.Errorf("got %+v, want %+v", r, c.want)
			}
		})
	}
}

func TestIsNoSpace(t *testing.T) {
	for _, err := range []error{rpctypes.ErrNoSpace, fmt.Errorf("put: %w", rpctypes.ErrNoSpace), errors.New("etcdserver: mvcc: database space exceeded")} {
		if !isNoSpace(err) {
			t.Errorf("%v is not recognized", err)
		}
	}
	if isNoSpace(errors.New("no space left on device")) || isNoSpace(context.DeadlineExceeded) {
		t.Error("another trouble is taken for the quota")
	}
}

// TestFreePorts: none is found twice.
func TestFreePorts(t *testing.T) {
	ports, err := freePorts(6)
	if err != nil || len(slices.Compact(slices.Sorted(slices.Values(ports)))) != 6 {
		t.Errorf("%v: %v", ports, err)
	}
}
