//go:build lab

package spine_test

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

// killService ends a service with SIGKILL, as a whole, and returns when the service
// manager has noticed, which on a busy machine is not at once.
func killService(f *spine.Fleet, h *lab.Host, unit string) {
	f.Shell(h, `show() { systemctl show -P "$1" `+unit+`; }
was=$(show InvocationID)
echo 1 >/sys/fs/cgroup/system.slice/`+unit+`/cgroup.kill
for _ in $(seq 500); do
  [ "$(show InvocationID) $(show ActiveState)" = "$was active" ] || exit 0
  sleep 0.01
done
echo "`+unit+` was killed and is active still" >&2
exit 1`)
}

// waitUnit waits until a unit is in this state.
func waitUnit(t *testing.T, f *spine.Fleet, h *lab.Host, unit, state string) {
	t.Helper()
	spine.Until(t, h.Name()+"'s "+unit+" to be "+state, func() bool { return f.Property(h, unit, "ActiveState") == state })
}

// checkAlone waits for the incident that a host went through alone, and checks that
// it was mended by one start.
func checkAlone(t *testing.T, f *spine.Fleet, h *lab.Host, unit string) fettle.Incident {
	t.Helper()
	in := f.WaitIncident("the story of "+unit+" on "+h.Name(), func(in fettle.Incident) bool {
		return in.Alone != nil && in.Cause.Code == failed && in.Cause.Subject == f.Unit(h, unit)
	})
	f.CheckMended(in, "start", "start")
	if in.Alone.Permit == "" || in.Alone.Host != fettle.HostSubject(f.Unit(h, unit).Root()) {
		t.Errorf("incident %s: %+v", in.ID, in.Alone)
	}
	return in
}

// checkOneLog fails the test unless the fleet's log verifies and tells every key once.
func checkOneLog(t *testing.T, f *spine.Fleet) {
	t.Helper()
	h := f.Leader()
	if h == nil {
		t.Fatal("no server leads")
	}
	if out := f.Shell(h, spine.Program+" audit verify"); !strings.Contains(out, "follows from the one before") {
		t.Errorf("the log: %s", out)
	} else {
		t.Log(strings.TrimSpace(out))
	}
}

// The majority of Fettle's own servers is killed, and their units stay failed: nobody
// leads, so nobody may order anything. The agents on their hosts start them under
// their standing permits; then there is a leader again, and it has the story.
func TestLabServersMajority(t *testing.T) {
	f := start(t, 3, spine.Options{Servers: 3})
	waitPermits(t, f)
	lost := []*lab.Host{f.Leader()}
	for _, h := range f.Hosts() {
		if h != lost[0] && len(lost) < 2 {
			lost = append(lost, h)
		}
	}
	at := time.Now()
	for _, h := range lost {
		killService(f, h, spine.ServerUnit)
	}
	for _, h := range lost {
		waitUnit(t, f, h, spine.ServerUnit, "active")
		t.Logf("%s's server runs again %v after the majority was killed", h.Name(), time.Since(at).Round(10*time.Millisecond))
	}
	f.WaitServer()
	spine.Until(t, "a server to lead", func() bool { return f.Leader() != nil })
	t.Logf("%s leads after %v", f.Leader().Name(), time.Since(at).Round(10*time.Millisecond))
	for _, h := range lost {
		checkAlone(t, f, h, spine.ServerUnit)
		f.CheckStarts(h, spine.ServerUnit, 2) // when the fleet was made, and now
	}
	checkOneLog(t, f)
}

// All servers hang: their kernels still answer, and they do not. The agents notice from
// the silence, and mend what fails; when the servers go on, the one that led finds that
// it does not any more, and whichever leads has the story.
func TestLabServersHung(t *testing.T) {
	f := start(t, 3, spine.Options{Servers: 3})
	for _, h := range f.Hosts() {
		f.Service(h, "web.service", "ExecStart=/bin/sleep infinity")
	}
	waitPermits(t, f)
	anon(t, f, "before")
	at := time.Now()
	for _, h := range f.Hosts() {
		f.Shell(h, "systemctl kill -s STOP "+spine.ServerUnit)
	}
	for _, h := range f.Hosts() {
		killService(f, h, "web.service")
	}
	for _, h := range f.Hosts() {
		waitUnit(t, f, h, "web.service", "active")
		t.Logf("%s's web.service runs again %v after the servers were stopped", h.Name(), time.Since(at).Round(10*time.Millisecond))
	}
	anon(t, f, "while it decides alone")
	for _, h := range f.Hosts() {
		f.Shell(h, "systemctl kill -s CONT "+spine.ServerUnit)
	}
	f.WaitServer()
	for _, h := range f.Hosts() {
		checkAlone(t, f, h, "web.service")
		f.CheckStarts(h, "web.service", 2)
		f.CheckStarts(h, spine.ServerUnit, 1)
	}
	anon(t, f, "afterwards")
	spine.Until(t, "a server to lead", func() bool { return f.Leader() != nil })
	checkOneLog(t, f)
}

// anon prints how much anonymous memory each agent has.
func anon(t *testing.T, f *spine.Fleet, when string) {
	t.Helper()
	for _, h := range f.Hosts() {
		t.Logf("%s's agent %s: %s", h.Name(), when, strings.Join(strings.Fields(f.Shell(h, "grep RssAnon /proc/"+strconv.Itoa(f.MainPID(h, spine.AgentUnit))+"/status")), " "))
	}
}

// waitPermits waits until every host keeps a permit.
func waitPermits(t *testing.T, f *spine.Fleet) {
	t.Helper()
	for _, h := range f.Hosts() {
		spine.Until(t, h.Name()+" to keep a permit", func() bool { return f.Try(h, "test -s "+spine.StateDir+"/agent/permit") })
	}
	t.Log(f.Shell(f.Host(1), spine.Program+" permits"))
}

// aloneFor is for how long the servers are away at least.
func aloneFor(t *testing.T) time.Duration {
	t.Helper()
	minutes, err := strconv.Atoi(os.Getenv("FETTLE_LAB_MINUTES"))
	if err != nil {
		return 0 // as long as it takes to see what is to be seen
	}
	return time.Duration(minutes) * time.Minute
}

// All servers are stopped by a person. Meanwhile services fail, and are started again
// by their own agents; a member of a cluster, too, since it has its own data. A member
// that lost its data is left alone: what it needs takes votes. What a person stopped
// stays stopped, Fettle's servers among it. Afterwards there is one log with all of it.
func TestLabAlone(t *testing.T) {
	c := startEtcd(t, etcdOptions{servers: 3})
	f := c.Fleet
	for _, h := range f.Hosts() {
		f.Service(h, "web.service", "ExecStart=/bin/sleep infinity")
		f.Service(h, "mine.service", "ExecStart=/bin/sleep infinity")
		f.Service(h, "late.service", "ExecStart=/bin/sleep infinity")
	}
	spine.Until(t, "the services to be seen", func() bool { return len(f.Incidents()) == 0 })
	waitPermits(t, f)
	ids := c.identities()
	killed, wiped := c.follower(), c.leader()
	if killed == wiped {
		t.Fatal("a follower leads")
	}
	at := time.Now()
	for _, h := range f.Hosts() {
		f.Shell(h, "systemctl stop "+spine.ServerUnit)
	}
	f.Shell(killed, "systemctl stop mine.service")
	for _, h := range f.Hosts() {
		killService(f, h, "web.service")
	}
	killService(f, killed, etcdUnit)
	for _, h := range f.Hosts() {
		waitUnit(t, f, h, "web.service", "active")
		t.Logf("%s's web.service runs again %v after the servers were stopped", h.Name(), time.Since(at).Round(10*time.Millisecond))
	}
	waitUnit(t, f, killed, etcdUnit, "active")
	c.waitHealthy()
	t.Logf("the cluster is whole %v after the servers were stopped", time.Since(at).Round(10*time.Millisecond))

	c.wipe(wiped)
	// Whatever would have been done about that by itself has been done when something
	// that came after it was.
	killService(f, wiped, "late.service")
	waitUnit(t, f, wiped, "late.service", "active")
	if d := time.Until(at.Add(aloneFor(t))); d > 0 {
		away := time.NewTimer(d)
		defer away.Stop()
		select {
		case <-away.C: // what is waited for is the time itself
		case <-t.Context().Done():
		}
	}
	if state := f.Property(wiped, etcdUnit, "ActiveState"); state == "active" {
		t.Error("a member that lost its data was started")
	}
	c.checkIdentities(ids) // nobody may change them alone
	for h, unit := range map[*lab.Host]string{killed: "mine.service", f.Host(1): spine.ServerUnit, f.Host(2): spine.ServerUnit, f.Host(3): spine.ServerUnit} {
		if state := f.Property(h, unit, "ActiveState"); state != "inactive" {
			t.Errorf("%s's %s, which a person stopped, is %s", h.Name(), unit, state)
		}
	}
	for _, h := range f.Hosts() {
		f.Shell(h, "systemctl start "+spine.ServerUnit)
	}
	f.WaitServer()
	for _, h := range f.Hosts() {
		checkAlone(t, f, h, "web.service")
		f.CheckStarts(h, "web.service", 2)
	}
	checkAlone(t, f, wiped, "late.service")
	checkAlone(t, f, killed, etcdUnit)
	f.CheckStarts(killed, etcdUnit, 2)
	checkOneLog(t, f)
	t.Logf("all is told %v after the servers were stopped", time.Since(at).Round(10*time.Millisecond))
}
