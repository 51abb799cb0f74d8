//go:build lab

package spine_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

// The filesystem under a member is filled: by the journal, which is past its
// limit; by a file that was deleted and is held open; by a file that nobody
// knows. Each time it is the filesystem that is ill, and the member and its
// service are symptoms: what is done is done to the filesystem, and etcd is
// started once it has room, and not before.
func TestLabEtcdFilesystemFull(t *testing.T) {
	const at = "/var/log"
	var h *lab.Host
	c := startEtcd(t, etcdOptions{data: at + "/etcd/default", prepare: func(l *lab.Lab) {
		h = l.Host(3)
		fullVolume(t, h, at)
		for _, each := range l.Hosts() {
			script := "mkdir -p " + at + "/etcd; chown etcd: " + at + `/etcd
mkdir -p /etc/systemd/system/etcd.service.d
printf '[Service]\nExecStartPre=+/bin/sh -c "echo >>/srv/starts"\n' >/etc/systemd/system/etcd.service.d/count.conf`
			if _, err := each.Shell(t.Context(), script); err != nil {
				t.Fatal(err)
			}
		}
	}})
	ids, s := c.identities(), c.Subject(fettle.KindFilesystem, h, at)
	starts, seen := 1, map[string]bool{}
	// next is the incident of this filling, in one of these states; it must have
	// etcd for a symptom.
	next := func(states ...fettle.IncidentState) fettle.Incident {
		in := c.WaitIncident(fmt.Sprintf("a new incident of the filesystem to be %v", states), func(in fettle.Incident) bool {
			return !seen[in.ID] && spine.About(full, s, states...)(in)
		})
		seen[in.ID] = true
		return in
	}
	again := func(how string) {
		t.Helper()
		c.waitHealthy()
		c.load.waitMore(20)
		// What the next filling brings about does not begin while the last one is mended.
		spine.Until(t, "what is under way to end", func() bool {
			return !slices.ContainsFunc(c.Incidents(), func(in fettle.Incident) bool { return !in.State.Ended() })
		})
		starts++
		if n := c.Shell(h, "wc -l </srv/starts"); n != fmt.Sprint(starts) {
			t.Errorf("filled by %s: etcd was started %s times until then, want %d", how, n, starts)
		}
		for _, in := range c.Incidents() {
			if in.Cause.Subject != s && in.Cause.Code != failed {
				c.CheckUntouched(in) // for a moment a symptom can be seen longer than its cause
			}
		}
	}

	c.Shell(h, "base64 -w 3000 /dev/urandom | head -c 96M | systemd-cat -t flood; journalctl --sync; sed -i s/SystemMaxUse=1G/SystemMaxUse=16M/ /etc/systemd/journald.conf.d/50-lab.conf")
	c.suffer(h, func() { fill(c.Fleet, h, at+"/app.data", 0) })
	c.checkThawed(next(fettle.Resolved), "journal", "vacuum")
	again("the journal")

	c.Write(h, "/usr/local/bin/holder", `#!/bin/sh
exec 3>>/var/log/app.log
trap 'exec 3>&-; exec 3>>/var/log/app.log' HUP
cat /dev/zero >&3 2>/dev/null
rm /var/log/app.log
while :; do sleep 3600 3>&- & wait; done
`)
	c.Shell(h, "chmod 755 /usr/local/bin/holder")
	c.suffer(h, func() {
		c.Service(h, "holder.service", "ExecStart=/usr/local/bin/holder", "ExecReload=/bin/kill -HUP $MAINPID")
	})
	in := next(fettle.Resolved)
	c.checkThawed(in, "ask-holder", "ask")
	if step := in.Plan.Steps[0]; step.Params["unit"] != "holder.service" {
		t.Errorf("asked was %v", step.Params)
	}
	again("a deleted file")

	c.suffer(h, func() { fill(c.Fleet, h, at+"/unknown.data", 0) })
	in = next(fettle.Escalated)
	sum := c.Shell(h, "stat -c %s "+at+"/unknown.data "+at+"/app.data")
	goOn(c.Fleet, c.Host(1), "other.service")
	c.CheckUntouched(c.Incident(in.ID))
	if now := c.Shell(h, "stat -c %s "+at+"/unknown.data "+at+"/app.data"); now != sum {
		t.Errorf("the files had %s bytes and have %s", sum, now)
	}
	if n := c.Shell(h, "wc -l </srv/starts"); n != fmt.Sprint(starts) {
		t.Errorf("etcd was started %s times, want %d: it can only fail again", n, starts)
	}
	c.Shell(h, "rm "+at+"/unknown.data") // a person, who knows it
	again("an unknown file")
	c.checkIdentities(ids)
	c.checkWhole()
}

// fullVolume gives a host a filesystem that has room for etcd's preallocated log
// segments, with the system journal on it.
func fullVolume(t *testing.T, h *lab.Host, at string) {
	t.Helper()
	d, err := h.AttachDisk(t.Context(), 320<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Shell(t.Context(), fmt.Sprintf(`mkfs.ext4 -q -m 0 %s; mount %[1]s %s; mkdir %[2]s/journal
printf '[Mount]\nWhat=%[1]s\nWhere=%[2]s\nType=ext4\n' >/usr/lib/systemd/system/var-log.mount
mkdir -p /etc/systemd/journald.conf.d
printf '[Journal]\nSystemMaxUse=1G\nSystemKeepFree=1\nSystemMaxFileSize=4M\nRateLimitBurst=0\nCompress=no\n' >/etc/systemd/journald.conf.d/50-lab.conf
systemctl restart systemd-journald
journalctl --flush`, d.Device, at)); err != nil {
		t.Fatal(err)
	}
}

// checkThawed fails the test unless the incident was mended by exactly this step.
// That it was refused while all was frozen is right.
func (c *etcdCluster) checkThawed(in fettle.Incident, rung, step string) {
	c.t.Helper()
	in.Story = slices.DeleteFunc(slices.Clone(in.Story), func(e fettle.Event) bool {
		return e.Kind == fettle.EvRefused && strings.Contains(e.Text, "refused by freeze")
	})
	c.CheckMended(in, rung, step)
}

// suffer has Fettle look on while a filesystem is filled, until the member has
// died of it: mending the filesystem takes less time than dying.
func (c *etcdCluster) suffer(h *lab.Host, fill func()) {
	c.t.Helper()
	c.fettle("freeze", "--why", "the disk is filled")
	fill()
	cl := c.client(c.Hosts()...)
	defer cl.Close()
	value := strings.Repeat("0123456789abcdef", 32<<10)
	spine.Until(c.t, h.Name()+"'s member to die", func() bool {
		ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
		defer cancel()
		cl.Put(ctx, "fill", value) // what it answers is not asked: it makes the database grow
		return c.Property(h, etcdUnit, "ActiveState") == "failed"
	})
	c.WaitIncident("the filesystem to be seen", func(in fettle.Incident) bool {
		return in.Cause.Code == full && !in.State.Ended() && slices.ContainsFunc(in.Conditions, func(k fettle.ConditionKey) bool { return k == key(failed, c.Unit(h, etcdUnit)) })
	})
	c.fettle("thaw")
}
