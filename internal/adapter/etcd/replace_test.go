package etcd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fettle/internal/fettle"
)

// replace goes through the runbook's order by hand.
func (r *rig) replace(m *testMember) {
	r.t.Helper()
	in := m.in
	before := r.observe(m, memberProbe, in.member)
	if before.Facts["leader"] == true {
		r.do(m, "etcd.move_leader", in.member, nil)
	}
	snap := r.do(m, "etcd.snapshot", in.cluster.subject, fettle.Facts{"avoid": string(in.member)})
	if _, err := os.Stat(snap.Outputs["path"].(string)); err != nil || snap.Outputs["from"] == string(in.member) {
		r.t.Fatalf("snapshot: %v, %v", snap, err)
	}
	if local := r.observe(m, localProbe, in.member); local.Facts["unit_active"] == true {
		r.do(m, "etcd.stop", in.member, nil)
	}
	r.do(m, "etcd.member_remove", in.member, fettle.Facts{"id": before.Facts["member_id"]})
	if local := r.observe(m, localProbe, in.member); local.Facts["standing"] != "none" || local.Facts["log_lost"] != false {
		r.t.Fatalf("removed: %v", local.Facts)
	}
	if local := r.observe(m, localProbe, in.member); local.Facts["data_present"] == true {
		res := r.do(m, "etcd.set_aside", in.member, nil)
		if len(res.Receipts) != 1 || res.Receipts[0].Back == "" {
			r.t.Fatalf("no receipt: %+v", res)
		}
	}
	added := r.do(m, "etcd.member_add", in.member, nil)
	id := added.Outputs["id"]
	if local := r.observe(m, localProbe, in.member); local.Facts["standing"] != "unstarted" || local.Facts["log_state"] != "missing" || local.Facts["log_lost"] != false {
		r.t.Fatalf("added: %v", local.Facts)
	}
	r.do(m, "etcd.configure", in.member, fettle.Facts{"state": "existing", "id": id})
	r.do(m, "etcd.start", in.member, nil)
	r.until("the learner answers", func() bool {
		o := r.observe(m, memberProbe, in.member)
		return o.Facts["answers"] == true && o.Facts["learner"] == true
	})
	r.do(m, "etcd.promote", in.member, fettle.Facts{"id": id})
	r.do(m, "etcd.configure", in.member, fettle.Facts{"state": "new"})
	local := r.observe(m, localProbe, in.member)
	if local.Facts["standing"] != "voter" || local.Facts["configured_state"] != "new" || local.Facts["log_state"] != "running" {
		r.t.Fatalf("replaced: %v", local.Facts)
	}
	r.until("the hashes agree", func() bool {
		o := r.observe(m, hashProbe, in.member)
		return o.Known() && o.Facts["compared"] == int64(len(r.members)) && o.Facts["same"] == o.Facts["compared"]
	})
}

// TestDataLost: the data of a member is gone. It is refused to be started as it
// is, and replaced it is whole; and so a second time, with the settings that the
// first time left.
func TestDataLost(t *testing.T) {
	r := newRig(t, rigOptions{})
	leads, others := r.leader()
	r.put(leads, "k", 50, 100)
	m := others[0]
	for range 2 {
		if _, err := m.in.Faults()["etcd.wipe"].Inject(r.ctx, m.in.member, nil); err != nil {
			t.Fatal(err)
		}
		// With its first settings etcd refuses to start at once. The second time it
		// starts, as the identity that it had in the beginning, is told that this was
		// removed, and ends; what it wrote by then is another identity's log.
		var lost fettle.Observation
		r.until("its end", func() bool {
			lost = r.observe(m, localProbe, m.in.member)
			return lost.Facts["unit_active"] == false
		})
		if state := lost.Facts["log_state"]; state != "missing" && state != "foreign" || lost.Facts["log_lost"] != true {
			t.Fatalf("wiped: %+v\n%s", lost.Facts, r.log(m))
		}
		if _, err := r.try(m, "etcd.start", m.in.member, nil); fettle.ClassOf(err) != fettle.Refused {
			t.Fatalf("start without data: %v", err)
		}
		if _, err := r.try(m, "etcd.configure", m.in.member, fettle.Facts{"state": "existing", "id": r.observe(m, memberProbe, m.in.member).Facts["member_id"]}); fettle.ClassOf(err) != fettle.Refused {
			t.Fatalf("INITIAL_CLUSTER_STATE=existing for a member that has voted: %v", err)
		}
		if _, err := r.try(m, "etcd.member_add", m.in.member, nil); fettle.ClassOf(err) != fettle.Refused {
			t.Fatalf("add before remove: %v", err)
		}
		r.replace(m)
	}
	settings, err := os.ReadFile(m.env)
	if err != nil || !strings.HasPrefix(string(settings), "# settings of") || !strings.Contains(string(settings), m.name+"="+m.peer) {
		t.Fatalf("settings: %v\n%s", err, settings)
	}
}

// TestDataDamaged: bytes in the middle of the log are changed; the member is told
// from one that is only down, and replaced.
func TestDataDamaged(t *testing.T) {
	r := newRig(t, rigOptions{})
	leads, others := r.leader()
	r.put(leads, "k", 200, 200)
	m := others[1]
	if _, err := m.in.Faults()["etcd.damage_wal"].Inject(r.ctx, m.in.member, nil); err != nil {
		t.Fatal(err)
	}
	seen := r.observe(m, localProbe, m.in.member)
	if seen.Facts["log_state"] != "damaged" || seen.Facts["log_lost"] != true || seen.Facts["damage"] == "" {
		t.Fatalf("damaged: %+v\n%s", seen.Facts, r.log(m))
	}
	t.Log(seen.Facts["damage"])
	if _, err := r.try(m, "etcd.start", m.in.member, nil); fettle.ClassOf(err) != fettle.Refused {
		t.Fatalf("start with damaged data: %v", err)
	}
	r.replace(m)
}

// TestDamageReverted: what a fault did is taken back, and the member is itself
// again.
func TestDamageReverted(t *testing.T) {
	r := newRig(t, rigOptions{})
	leads, others := r.leader()
	r.put(leads, "k", 200, 200)
	for i, fault := range []string{"etcd.damage_wal", "etcd.wipe"} {
		m := others[i]
		injected, err := m.in.Faults()[fault].Inject(r.ctx, m.in.member, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := injected.Revert(r.ctx); err != nil {
				t.Fatalf("revert %s: %v", fault, err)
			}
		}
		if o := r.observe(m, localProbe, m.in.member); o.Facts["log_state"] != "running" || o.Facts["standing"] != "voter" {
			t.Fatalf("%s reverted: %v\n%s", fault, o.Facts, r.log(m))
		}
	}
}

// TestFlip: four bytes in a value are changed in one database. Service, status
// and /health say that all is well; the hashes name the member, also when it
// leads, and replaced it agrees with the others.
func TestFlip(t *testing.T) {
	r := newRig(t, rigOptions{oneHost: true})
	leads, others := r.leader()
	r.put(leads, "k", 100, 64)
	m := others[0]
	if _, err := m.in.Faults()["etcd.flip"].Inject(r.ctx, m.in.member, fettle.Facts{"key": "k7"}); err != nil {
		t.Fatal(err)
	}
	r.until("all serve", func() bool {
		return r.observe(m, clusterProbe, m.in.cluster.subject).Facts["serving"] == int64(3)
	})
	if o := r.observe(m, memberProbe, m.in.member); o.Facts["health"] != true || o.Facts["answers"] != true {
		t.Fatalf("it should call itself healthy: %v", o.Facts)
	}
	odd := r.observe(m, hashProbe, m.in.member)
	if odd.Facts["compared"] != int64(3) || odd.Facts["same"] != int64(1) || odd.Facts["largest"] != int64(2) {
		t.Fatalf("hashes: %+v", odd)
	}
	for _, o := range others[1:] {
		if o := r.observe(m, hashProbe, o.in.member); o.Facts["same"] != int64(2) {
			t.Fatalf("a good one: %v", o.Facts)
		}
	}
	// All three are on one machine, so its one observation knows of all logs.
	q := r.observe(m, clusterProbe, m.in.cluster.subject).Quorum
	for _, member := range q.Members {
		if member.LogLost != fettle.No {
			t.Errorf("on one machine every log is known: %+v", member)
		}
	}
	r.do(leads, "etcd.move_leader", leads.in.member, fettle.Facts{"to": string(m.in.member)})
	r.until("the odd one leads", func() bool { return r.observe(m, memberProbe, m.in.member).Facts["leader"] == true })
	if _, err := r.try(m, "etcd.member_remove", m.in.member, fettle.Facts{"id": r.observe(m, memberProbe, m.in.member).Facts["member_id"]}); fettle.ClassOf(err) != fettle.Refused {
		t.Fatalf("removal of the leader: %v", err)
	}
	r.replace(m)
}

// TestAsideUndone: what was set aside is put back by one rename.
func TestAsideUndone(t *testing.T) {
	r := newRig(t, rigOptions{})
	_, others := r.leader()
	m := others[0]
	id := r.observe(m, memberProbe, m.in.member).Facts["member_id"]
	if _, err := r.try(m, "etcd.set_aside", m.in.member, nil); fettle.ClassOf(err) != fettle.Refused {
		t.Fatalf("set aside under a running server: %v", err)
	}
	r.do(m, "etcd.stop", m.in.member, nil)
	if _, err := r.try(m, "etcd.set_aside", m.in.member, nil); fettle.ClassOf(err) != fettle.Refused {
		t.Fatalf("set aside of a member's own data: %v", err)
	}
	r.do(m, "etcd.member_remove", m.in.member, fettle.Facts{"id": id})
	d := r.dispatch(m, "etcd.set_aside", m.in.member, nil)
	act := m.in.Actions()["etcd.set_aside"]
	if fate, _, err := act.Recover(r.ctx, d); fate != fettle.NeverWillBe || err != nil {
		t.Fatalf("before: %v, %v", fate, err)
	}
	res, err := act.Apply(r.ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	fate, again, err := act.Recover(r.ctx, d)
	if fate != fettle.Done || err != nil || !again.Outputs.Equal(res.Outputs) || len(again.Receipts) != 1 {
		t.Fatalf("after: %v, %+v, %v", fate, again, err)
	}
	d.Undo, d.Outputs = true, res.Outputs
	if _, err := act.Undo(r.ctx, d); err != nil {
		t.Fatal(err)
	}
	if fate, _, err := act.Recover(r.ctx, d); fate != fettle.Done || err != nil {
		t.Fatalf("undone: %v, %v", fate, err)
	}
	if _, err := os.Stat(filepath.Join(m.data, "member", "wal")); err != nil {
		t.Fatal(err)
	}
}
