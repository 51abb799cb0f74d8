//go:build lab

package spine_test

import (
	"fmt"
	"testing"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

const slowDisk fettle.Code = "etcd.slow_disk"

// The disk under one member becomes slow: forty writes a second. Unit, health
// and the other members show nothing of it; the member's own metrics do. Nothing
// is done about it, and it is over when the disk is fast again.
func TestLabEtcdSlowDisk(t *testing.T) {
	const at = "/var/lib/etcd"
	disks := map[*lab.Host]*lab.Disk{}
	c := startEtcd(t, etcdOptions{prepare: func(l *lab.Lab) {
		for _, h := range l.Hosts() {
			d, err := h.AttachDisk(t.Context(), 512<<20) // two segments of its log take 128 MiB from the start
			if err == nil {
				_, err = h.Shell(t.Context(), fmt.Sprintf("mkfs.ext4 -q %s; mount %[1]s %s; chown etcd: %[2]s", d.Device, at))
			}
			if err != nil {
				t.Fatal(err)
			}
			disks[h] = d
		}
	}})
	h := c.follower()
	found, _ := doctor(t, h)
	if len(found.NotSeen) != 0 {
		t.Errorf("doctor could not see %v", found.NotSeen)
	}
	ids, before := c.identities(), c.Snapshot()
	if err := disks[h].Slow(40); err != nil {
		t.Fatal(err)
	}
	in := c.WaitFor(slowDisk, c.member(h), fettle.Held, fettle.Escalated)
	for _, e := range in.Story {
		if e.Kind == fettle.EvRaised {
			t.Logf("%s", e.Text)
		}
	}
	spine.Until(t, "its own /health to call it well, slow as it is", func() bool { return c.healthy(h) })
	other := goOn(c.Fleet, h, "other.service")
	c.CheckUntouched(c.Incident(in.ID))

	if err := disks[h].Slow(0); err != nil {
		t.Fatal(err)
	}
	c.CheckUntouched(c.WaitFor(slowDisk, c.member(h), fettle.Resolved))
	c.CheckUnchanged(before, h.Name()+" other.service")
	c.CheckOnly(in.Cause, other)
	c.checkIdentities(ids)
	c.checkWhole()
}
