package etcd

import (
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"fettle/internal/fettle"
)

// TestNoSpace: the quota is used up; writes are refused until the space is freed
// in the right order and the alarm lifted.
func TestNoSpace(t *testing.T) {
	r := newRig(t, rigOptions{extra: map[string]string{"QUOTA_BACKEND_BYTES": "8388608"}})
	leads, others := r.leader()
	m := others[0]
	cluster := m.in.cluster.subject
	if _, err := m.in.Faults()["etcd.fill_quota"].Inject(r.ctx, cluster, nil); err != nil {
		t.Fatal(err)
	}
	var full fettle.Observation
	r.until("the alarm is seen", func() bool {
		full = r.observe(m, clusterProbe, cluster)
		return full.Facts["nospace"] == true
	})
	if full.Facts["has_leader"] != true || full.Quorum.ServingVotes() != 3 {
		t.Fatalf("an alarm takes no vote: %v %+v", full.Facts, full.Quorum)
	}
	r.until("its own metrics are read", func() bool {
		r.observe(m, memberProbe, m.in.member)
		return r.observe(m, clusterProbe, cluster).Facts["quota_bytes"] == int64(8388608)
	})
	if _, err := r.try(m, "etcd.disarm", cluster, nil); fettle.ClassOf(err) != fettle.Refused {
		t.Fatalf("disarm without space: %v", err)
	}
	snap := r.do(m, "etcd.snapshot", cluster, nil)
	r.do(m, "etcd.compact", cluster, fettle.Facts{"revision": snap.Outputs["revision"]})
	r.do(m, "etcd.compact", cluster, fettle.Facts{"revision": snap.Outputs["revision"]}) // twice does no harm
	for _, o := range append(others, leads) {
		res := r.do(m, "etcd.defrag", o.in.member, nil)
		if before, after := res.Outputs["before_bytes"].(int64), res.Outputs["after_bytes"].(int64); after >= before/2 {
			t.Errorf("%s: %d bytes before, %d after", o.name, before, after)
		}
	}
	r.do(m, "etcd.disarm", cluster, nil)
	r.do(m, "etcd.disarm", cluster, nil)
	if o := r.observe(m, clusterProbe, cluster); o.Facts["nospace"] != false {
		t.Fatalf("disarmed: %v", o.Facts)
	}
	e, err := m.in.cluster.dial.to(m.client)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.kv.Put(r.ctx, &pb.PutRequest{Key: []byte("again"), Value: []byte("written")}); err != nil {
		t.Fatalf("put: %v", err)
	}
	for name, params := range map[string]fettle.Facts{"etcd.compact": {"revision": snap.Outputs["revision"]}, "etcd.disarm": nil} {
		d := r.dispatch(m, name, cluster, params)
		if fate, _, err := m.in.Actions()[name].Recover(r.ctx, d); fate != fettle.Done || err != nil {
			t.Errorf("recover %s: %v, %v", name, fate, err)
		}
	}
	d := r.dispatch(m, "etcd.defrag", others[1].in.member, nil)
	if fate, _, err := m.in.Actions()["etcd.defrag"].Recover(r.ctx, d); fate != fettle.Done || err != nil {
		t.Errorf("recover etcd.defrag: %v, %v", fate, err)
	}
}

// TestDefragKeepsMajority: with one member down no other is put to sleep.
func TestDefragKeepsMajority(t *testing.T) {
	r := newRig(t, rigOptions{})
	_, others := r.leader()
	r.do(others[0], "etcd.stop", others[0].in.member, nil)
	if _, err := r.try(others[1], "etcd.defrag", others[1].in.member, nil); fettle.ClassOf(err) != fettle.Refused {
		t.Fatalf("defragment with one of three down: %v", err)
	}
	if _, err := r.try(others[1], "etcd.member_remove", others[1].in.member, fettle.Facts{"id": r.observe(others[1], memberProbe, others[1].in.member).Facts["member_id"]}); fettle.ClassOf(err) != fettle.Refused {
		t.Fatalf("remove a live one with one of three down: %v", err)
	}
}

// TestSlowLook: a member that is frozen is seen as not answering, in time, and
// takes no other with it.
func TestSlowLook(t *testing.T) {
	r := newRig(t, rigOptions{})
	_, others := r.leader()
	m, frozen := others[0], others[1]
	r.freeze(frozen)
	started := time.Now()
	o := r.observe(m, memberProbe, frozen.in.member)
	if !o.Known() || o.Facts["answers"] != false {
		t.Fatalf("frozen: %+v", o)
	}
	if took := time.Since(started); took > specOf(memberProbe).Timeout {
		t.Errorf("it took %v, more than the probe's own timeout", took)
	}
	// The server itself may still take it for alive, and would let a second one go.
	if _, err := r.try(m, "etcd.member_remove", m.in.member, fettle.Facts{"id": r.observe(m, memberProbe, m.in.member).Facts["member_id"]}); fettle.ClassOf(err) != fettle.Refused {
		t.Fatalf("remove a live one while another is frozen: %v", err)
	}
	q := r.observe(m, clusterProbe, m.in.cluster.subject).Quorum
	if q.ServingVotes() != 2 {
		t.Fatalf("quorum: %+v", q)
	}
}
