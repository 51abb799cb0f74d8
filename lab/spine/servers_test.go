//go:build lab

package spine_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

// A member is replaced by one of three servers, and whichever leads is killed on the
// way: with the intent to remove durable in the agent's journal, when the data was
// set aside and nobody was told, and while the new member joins. Another server takes
// over and goes on where it was; nothing is done twice. That the killed one's service
// has failed is an incident of its own, which the new leader mends.
func TestLabServersLeaderKilled(t *testing.T) {
	c := startEtcd(t, etcdOptions{servers: 3})
	h := c.follower()
	ids := c.identities()
	killed := c.killAtMoments(h, "leader")
	in := c.WaitIncident("the repair to end", func(in fettle.Incident) bool {
		return in.Cause == key(dataLost, c.member(h)) && in.State.Ended()
	})
	checkResumed(t, in, killed)
	c.checkIdentities(ids, h)
	if n := c.Shell(h, "ls -d /var/lib/etcd/fettle-aside/*/member | wc -l"); n != "1" {
		t.Errorf("data was set aside %s times", n)
	}
	for _, h := range c.Hosts() { // each once was the leader, or never
		spine.Until(t, h.Name()+"'s server to run", func() bool { return c.Property(h, spine.ServerUnit, "ActiveState") == "active" })
	}
	// What was seen besides (the member is down, its host hung while its agent is held) is
	// over by itself, or once the repair is, and nothing was done about it.
	spine.Until(t, "nothing to be left to do", func() bool {
		return !slices.ContainsFunc(c.Incidents(), func(in fettle.Incident) bool { return !in.State.Ended() })
	})
	for _, in := range c.Incidents() {
		if in.Cause != key(dataLost, c.member(h)) && in.Cause.Code != failed {
			c.CheckUntouched(in)
		}
	}
	c.checkWhole()
}

// killLeader kills the server that leads while a host's agent is held, and returns when
// it did, once another one leads and the killed one runs again: with two of three dead
// none would. The new leader starts it, as any service that failed; where it is on the
// host whose agent is held, the test does.
func (c *etcdCluster) killLeader(step string, held *lab.Host) time.Time {
	c.t.Helper()
	var was *lab.Host
	spine.Until(c.t, "a server to lead", func() bool { was = c.Leader(); return was != nil })
	ran := c.Property(was, spine.ServerUnit, "InvocationID")
	at := time.Now()
	killService(c.Fleet, was, spine.ServerUnit)
	now, took := awaitLeader(c.t, c.Fleet, was, at)
	c.t.Logf("%s: %s was killed, and %s leads after %v", step, was.Name(), now.Name(), took.Round(time.Millisecond))
	awaitBack(c.t, c.Fleet, was, ran, at.Add(took), was == held)
	return at
}

// The network is cut between the server that leads and all others. It can decide
// nothing any more, and another one leads; what fails on the larger side is mended, what fails on the
// smaller one is left alone, since nobody who may decide hears of it (and it has not
// been cut off for as long as a standing permit wants). When the network
// is back there is one leader and one log, and that is mended too.
func TestLabServersLeaderCutOff(t *testing.T) {
	f := start(t, 3, spine.Options{Servers: 3})
	for _, h := range f.Hosts() {
		f.Service(h, "other.service", "ExecStart=/bin/sleep infinity")
	}
	was := f.Leader()
	var others []*lab.Host
	for _, h := range f.Hosts() {
		if h != was {
			others = append(others, h)
		}
	}
	if err := f.Partition(t.Context(), []*lab.Host{was}, others); err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	spine.Until(t, "another server to lead", func() bool { h := f.Leader(); return h != nil && h != was })
	t.Logf("%s leads %v after %s was cut off", f.Leader().Name(), time.Since(at).Round(10*time.Millisecond), was.Name())
	spine.Until(t, was.Name()+" to know that it leads no more", func() bool {
		return f.Try(was, "journalctl -b -o cat -u "+spine.ServerUnit+" | grep -q 'leads no more'")
	})
	f.Shell(was, "systemctl kill -s KILL other.service")
	f.Shell(others[0], "systemctl kill -s KILL other.service")
	in := f.WaitFor(failed, f.Unit(others[0], "other.service"), fettle.Resolved)
	f.CheckMended(in, "start", "start")
	f.CheckStarts(was, "other.service", 1) // mine
	if err := f.Heal(t.Context()); err != nil {
		t.Fatal(err)
	}
	in = f.WaitFor(failed, f.Unit(was, "other.service"), fettle.Resolved)
	f.CheckMended(in, "start", "start")
	for _, h := range []*lab.Host{was, others[0]} {
		f.CheckStarts(h, "other.service", 2)
	}
	f.CheckStarts(others[1], "other.service", 1)
	leads := 0
	for _, s := range f.Servers() {
		if s.Leader {
			leads++
		}
	}
	if leads != 1 {
		t.Errorf("%d servers lead", leads)
	}
}

// A server is replaced by another, without anybody noticing: the third is removed,
// its certificate is of no use any more, and the fourth takes its place.
func TestLabServersReplaced(t *testing.T) {
	f := start(t, 4, spine.Options{Servers: 3})
	f.Service(f.Host(4), "other.service", "ExecStart=/bin/sleep infinity")
	leader := f.Leader()
	gone := f.Host(3)
	if gone == leader {
		gone = f.Host(2)
	}
	for _, s := range f.Servers() {
		if s.Label == gone.Name() {
			f.Shell(leader, spine.Program+" remove-server "+s.ID)
		}
	}
	if got := len(f.Servers()); got != 2 {
		t.Errorf("%d servers are left, want 2", got)
	}
	f.AddServer(f.Host(4))
	if got := len(f.Servers()); got != 3 {
		t.Errorf("%d servers are there, want 3", got)
	}
	if f.Leader() != leader {
		t.Errorf("%s leads, %s did: nothing of this should have changed that", f.Leader().Name(), leader.Name())
	}
	f.Shell(f.Host(4), "systemctl kill -s KILL other.service")
	in := f.WaitFor(failed, f.Unit(f.Host(4), "other.service"), fettle.Resolved)
	f.CheckMended(in, "start", "start")
	// The one that was removed is heard no more, whatever it says.
	r, err := gone.Exec(t.Context(), "sh", "-c", spine.Program+" servers --server "+gone.Addr().String()+":7401")
	if err != nil {
		t.Fatal(err)
	}
	if r.Code == 0 {
		t.Errorf("the server that was removed still passes calls on: %s", r.Stdout)
	}
}

// Every server's store is lost. The fleet is restored from a backup on the first; the
// agents, which have seen more than the backup has, obey it, since an administrator
// signed its epoch; the others join again.
func TestLabServersRestored(t *testing.T) {
	f := start(t, 3, spine.Options{Servers: 3})
	h := f.Host(3)
	f.Service(h, "other.service", "ExecStart=/bin/sleep infinity")
	f.Shell(f.Host(2), spine.Program+" backup /srv/fleet.tar") // on any server
	f.Shell(h, "systemctl kill -s KILL other.service")
	f.WaitFor(failed, f.Unit(h, "other.service"), fettle.Resolved) // the agent has seen more
	for _, h := range f.Hosts() {
		f.Shell(h, "systemctl stop "+spine.ServerUnit+"; mv "+spine.StateDir+"/store /srv/lost")
	}
	if f.Try(f.Host(1), spine.Program+" server --listen "+f.Host(1).Addr().String()+":7401") {
		t.Error("a server whose store is gone started")
	}
	tar := f.Shell(f.Host(2), "base64 -w0 /srv/fleet.tar")
	f.Write(f.Host(1), "/srv/fleet.b64", tar)
	f.Shell(f.Host(1), "base64 -d /srv/fleet.b64 >/srv/fleet.tar; "+spine.Program+" restore /srv/fleet.tar; systemctl start "+spine.ServerUnit)
	f.WaitServer()
	for _, h := range f.Hosts()[1:] {
		f.Shell(h, "cd "+spine.StateDir+"; mv ca server members.json /srv/lost")
		f.AddServer(h)
	}
	f.WaitReady()
	if got := len(f.Servers()); got != 3 {
		t.Errorf("%d servers are there, want 3", got)
	}
	f.Shell(h, "systemctl kill -s KILL other.service")
	in := f.WaitFor(failed, f.Unit(h, "other.service"), fettle.Resolved)
	f.CheckMended(in, "start", "start")
	f.CheckStarts(h, "other.service", 3) // mine, and the repairs' before and after
	if out := f.Shell(f.Host(2), spine.Program+" audit verify"); !strings.Contains(out, "follows from the one before") {
		t.Errorf("the log: %s", out)
	}
}
