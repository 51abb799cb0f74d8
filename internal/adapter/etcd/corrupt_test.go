package etcd

import (
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// TestCorruptAlarm: an alarm CORRUPT stops the writes and not the members: all of
// them still serve as voters, so that the one that differs can be replaced. 3.4
// raises it without saying whose it is.
func TestCorruptAlarm(t *testing.T) {
	r := newRig(t, rigOptions{})
	lead, others := r.leader()
	c := lead.in.cluster
	_, _, e, err := c.leader(r.ctx)
	if err != nil {
		t.Fatal(err)
	}
	v, _ := c.look(r.ctx).of(others[0].in.member)
	for _, of := range []struct {
		id   uint64
		want string
	}{{0, "CORRUPT"}, {v.id, "CORRUPT " + others[0].name}} {
		turn := func(a pb.AlarmRequest_AlarmAction) {
			t.Helper()
			if _, err := e.maintenance.Alarm(r.ctx, &pb.AlarmRequest{Action: a, MemberID: of.id, Alarm: pb.AlarmType_CORRUPT}); err != nil {
				t.Fatal(err)
			}
		}
		turn(pb.AlarmRequest_ACTIVATE)
		r.until("the alarm is seen, and all serve", func() bool {
			o := r.observe(others[1], clusterProbe, c.subject)
			alarms, _ := o.Facts.List("alarms")
			return o.Facts["corrupt"] == true && o.Facts["nospace"] == false && slices.Equal(alarms, []string{of.want}) &&
				o.Facts["serving"] == int64(3) && o.Quorum.ServingVotes() == 3
		})
		if o := r.observe(lead, hashProbe, lead.in.member); o.Facts["same"] != int64(3) {
			t.Errorf("hashes while the alarm stands: %+v", o)
		}
		turn(pb.AlarmRequest_DEACTIVATE)
		r.until("the alarm is lifted", func() bool { return r.observe(lead, clusterProbe, c.subject).Facts["corrupt"] == false })
	}
}
