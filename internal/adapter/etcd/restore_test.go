package etcd

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"fettle/internal/fettle"
)

// TestMajorityLost: the data of two of three is gone. Nothing that needs a quorum
// is done; the survivor becomes a cluster of one from a snapshot of itself, where
// the tool for that is there, and the others are replaced one by one.
func TestMajorityLost(t *testing.T) {
	r := newRig(t, rigOptions{})
	leads, others := r.leader()
	r.put(leads, "k", 20, 100)
	m := leads
	cluster := m.in.cluster.subject
	survivor := fettle.Facts{"survivor": string(m.in.member)}
	if _, err := r.try(m, "etcd.restore", cluster, survivor); fettle.ClassOf(err) != fettle.Refused {
		t.Fatalf("restore of a healthy cluster: %v", err)
	}
	for _, o := range others {
		if _, err := o.in.Faults()["etcd.wipe"].Inject(r.ctx, o.in.member, nil); err != nil {
			t.Fatal(err)
		}
	}
	r.until("the leader notices", func() bool {
		return r.observe(m, clusterProbe, cluster).Facts["has_leader"] == false
	})
	q := r.observe(m, clusterProbe, cluster).Quorum
	if q.ServingVotes() != 0 || q.Voters() != 3 {
		t.Fatalf("quorum: %+v", q)
	}
	for _, o := range others {
		if local := r.observe(o, localProbe, o.in.member); local.Facts["log_lost"] != true {
			t.Fatalf("%s: %v", o.name, local.Facts)
		}
		id := r.observe(o, memberProbe, o.in.member).Facts["member_id"]
		if _, err := r.try(o, "etcd.member_remove", o.in.member, fettle.Facts{"id": id}); fettle.ClassOf(err) != fettle.Refused {
			t.Fatalf("remove without a quorum: %v", err)
		}
	}
	if !r.toolOfServersVersion() {
		_, err := r.try(m, "etcd.restore", cluster, survivor)
		if !errors.Is(err, fettle.ErrNotSupported) || !strings.Contains(err.Error(), "install the etcdutl") {
			t.Fatalf("without the tool: %v", err)
		}
		return
	}
	res := r.do(m, "etcd.restore", cluster, survivor)
	if len(res.Receipts) != 1 {
		t.Errorf("no receipt: %+v", res)
	}
	r.until("a cluster of one", func() bool {
		f := r.observe(m, clusterProbe, cluster).Facts
		return f["has_leader"] == true && f["voters"] == int64(1)
	})
	for i, o := range others {
		r.until("it sees the new cluster", func() bool {
			f := r.observe(o, clusterProbe, cluster).Facts
			return f["has_leader"] == true && f["voters"] == int64(1+i)
		})
		r.rejoin(o)
	}
}

// rejoin replaces a member that the new cluster does not list.
func (r *rig) rejoin(m *testMember) {
	r.t.Helper()
	in := m.in
	if local := r.observe(m, localProbe, in.member); local.Facts["standing"] != "none" {
		r.t.Fatalf("%s: %v", m.name, local.Facts)
	}
	if local := r.observe(m, localProbe, in.member); local.Facts["data_present"] == true {
		r.do(m, "etcd.set_aside", in.member, nil)
	}
	id := r.do(m, "etcd.member_add", in.member, nil).Outputs["id"]
	r.do(m, "etcd.configure", in.member, fettle.Facts{"state": "existing", "id": id})
	r.do(m, "etcd.start", in.member, nil)
	r.do(m, "etcd.promote", in.member, fettle.Facts{"id": id})
}

// toolOfServersVersion reports whether the machine has the tool that restores
// snapshots of the servers under test.
func (r *rig) toolOfServersVersion() bool {
	version := r.observe(r.members[0], memberProbe, r.members[0].in.member).Facts["version"]
	for _, m := range r.members {
		if v := r.observe(m, memberProbe, m.in.member).Facts["version"]; v != nil {
			version = v
		}
	}
	want, _ := version.(string)
	for _, name := range []string{"etcdutl", "etcdctl"} {
		out, err := exec.Command(name, "version").Output()
		if m := toolVersion.FindSubmatch(out); err == nil && m != nil && strings.HasPrefix(want, string(m[1])+".") {
			return true
		}
	}
	return false
}
