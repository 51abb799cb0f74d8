package etcd

import (
	"context"
	"testing"

	"fettle/internal/fettle"
)

// TestKilled: a member that is killed is seen at once from its own machine, and
// by all others as not answering; started again it serves.
func TestKilled(t *testing.T) {
	r := newRig(t, rigOptions{})
	_, others := r.leader()
	m, o := others[0], others[1]
	before := r.observe(m, localProbe, m.in.member)
	if before.Facts["log_state"] != "running" || before.Facts["log_lost"] != false || before.Facts["standing"] != "voter" {
		t.Fatalf("healthy: %+v", before)
	}
	t.Logf("local %v edges %v", before.Facts, before.Edges)
	healthy := r.observe(m, memberProbe, o.in.member)
	t.Logf("member %v", healthy.Facts)
	cluster := r.observe(m, clusterProbe, m.in.cluster.subject)
	t.Logf("cluster %v quorum %+v", cluster.Facts, cluster.Quorum)
	if id, _ := cluster.Facts.Str("cluster_id"); id == "" || cluster.Quorum.ID != id {
		t.Errorf("the group calls itself %q, and its cluster is %q", cluster.Quorum.ID, id)
	}
	if _, err := m.in.Faults()["etcd.kill"].Inject(r.ctx, m.in.member, nil); err != nil {
		t.Fatal(err)
	}
	var seen fettle.Observation
	r.until("the end of its process", func() bool {
		seen = r.observe(m, localProbe, m.in.member)
		return seen.Facts["unit_active"] == false
	})
	if seen.Facts["log_state"] != "whole" || seen.Facts["log_lost"] != false {
		t.Fatalf("killed: %+v", seen)
	}
	t.Logf("local %v", seen.Facts)
	if got := r.observe(o, memberProbe, m.in.member); got.Facts["answers"] != false || !got.Known() {
		t.Fatalf("seen by another: %+v", got)
	}
	cluster = r.observe(m, clusterProbe, m.in.cluster.subject)
	q, _ := cluster.Quorum.Member(m.in.member)
	if q.Serving != fettle.No || q.LogLost != fettle.No || !q.Voter || cluster.Quorum.ServingVotes() != 2 {
		t.Fatalf("quorum: %+v", cluster.Quorum)
	}
	// When nobody answers any more, and who looks has never seen them answer, the log of
	// the member that is here tells which cluster it was.
	m.in.cluster.mu.Lock()
	m.in.cluster.known = nil
	m.in.cluster.mu.Unlock()
	silent := func(context.Context) *round { return &round{views: []view{{name: m.name, subject: m.in.member}}} }
	if dead := m.in.cluster.observeCluster(r.ctx, silent); dead.Quorum == nil || dead.Quorum.ID != cluster.Quorum.ID {
		t.Errorf("with nobody to ask the group is %+v, want it to be %s", dead.Quorum, cluster.Quorum.ID)
	}
	r.do(m, "etcd.start", m.in.member, nil)
	if got := r.observe(o, memberProbe, m.in.member); got.Facts["answers"] != true {
		t.Fatalf("started: %+v", got)
	}
	r.until("it serves", func() bool {
		q, _ := r.observe(o, clusterProbe, m.in.cluster.subject).Quorum.Member(m.in.member)
		return q.Serving == fettle.Yes
	})
}
