package etcd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"fettle/internal/fettle"
)

// TestFateOfCutOffCalls: both followers are frozen, so that a change sits in the
// leader's log uncommitted when the call is cut off. As long as that is so nothing
// is claimed; thawed, the change takes effect, and Recover says so.
func TestFateOfCutOffCalls(t *testing.T) {
	r := newRig(t, rigOptions{})
	leads, others := r.leader()
	m := leads
	e, err := m.in.cluster.dial.to(leads.client)
	if err != nil {
		t.Fatal(err)
	}
	var number uint64
	err = m.in.cluster.attempt(r.ctx, func(ctx context.Context, e *endpoint) error {
		got, err := e.cluster.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}, IsLearner: true})
		number = got.GetMember().GetID()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	remove := r.dispatch(m, "etcd.member_remove", m.in.cluster.member("127.0.0.1:1"), fettle.Facts{"id": hex(number)})
	r.freeze(others...)
	// The call itself: what Apply would send, without its own looks, which would
	// refuse by now.
	short, cancel := context.WithTimeout(r.ctx, 300*time.Millisecond)
	err = removeAt(short, e, number)
	cancel()
	if got := fettle.ClassOf(outcome("x", "", err)); got != fettle.NoAnswer {
		t.Fatalf("a call that was cut off: %v (%v)", got, err)
	}
	act := m.in.Actions()["etcd.member_remove"]
	if fate, _, _ := act.Recover(r.ctx, remove); fate != fettle.UnknownFate {
		t.Fatalf("while it sits in the log: %v", fate)
	}
	r.thaw(others...)
	r.until("it takes effect", func() bool {
		fate, _, _ := act.Recover(r.ctx, remove)
		if fate == fettle.NeverWillBe {
			t.Fatalf("never will be, of what is committed")
		}
		return fate == fettle.Done
	})
}

// TestNeverWillBe: a call that was never made is unknown for as long as a server
// could still be working on it, and then never will be; not before, and not while
// a member is frozen.
func TestNeverWillBe(t *testing.T) {
	r := newRig(t, rigOptions{})
	leads, others := r.leader()
	id := r.observe(leads, memberProbe, others[0].in.member).Facts["member_id"]
	d := r.dispatch(leads, "etcd.member_remove", others[0].in.member, fettle.Facts{"id": id})
	act := leads.in.Actions()["etcd.member_remove"]
	started := time.Now()
	if fate, _, err := act.Recover(r.ctx, d); fate != fettle.UnknownFate || err != nil {
		t.Fatalf("at once: %v, %v", fate, err)
	}
	r.freeze(others[1])
	r.until("the servers have given up", func() bool { return time.Since(started) > serverGivesUp })
	if fate, _, _ := act.Recover(r.ctx, d); fate != fettle.UnknownFate {
		t.Fatalf("while a member is frozen: %v", fate)
	}
	r.thaw(others[1])
	r.until("it never will be", func() bool {
		fate, _, _ := act.Recover(r.ctx, d)
		return fate == fettle.NeverWillBe
	})
	if time.Since(started) < serverGivesUp {
		t.Errorf("it was said too soon")
	}
}

// freeze stops members and returns when they do not run any more: the signal is
// only sent when kill(2) returns, and a thread may answer one more call.
func (r *rig) freeze(members ...*testMember) {
	r.t.Helper()
	for _, m := range members {
		if err := r.svc.Kill(r.ctx, m.unit, int(syscall.SIGSTOP)); err != nil {
			r.t.Fatal(err)
		}
	}
	for _, m := range members {
		u, err := r.svc.Unit(r.ctx, m.unit)
		if err != nil {
			r.t.Fatal(err)
		}
		r.until(m.name+" is frozen", func() bool {
			stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", u.MainPID))
			if err != nil {
				r.t.Fatal(err)
			}
			return !slices.ContainsFunc(stats, func(file string) bool {
				stat, err := os.ReadFile(file)
				_, state, _ := strings.Cut(string(stat), ") ")
				return err == nil && !strings.HasPrefix(state, "T")
			})
		})
	}
}

func (r *rig) thaw(members ...*testMember) {
	r.t.Helper()
	for _, m := range members {
		if err := r.svc.Kill(r.ctx, m.unit, int(syscall.SIGCONT)); err != nil {
			r.t.Fatal(err)
		}
	}
}
