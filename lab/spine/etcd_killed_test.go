//go:build lab

package spine_test

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

// moments watches a repair on its host, from below: what the agent has made
// durable, and the data directory. At each moment it kills the agent or freezes
// it, tells when, and goes on to the next.
const moments = `import os, sys, time
unit, how, data, aside = sys.argv[1:]
group = "/sys/fs/cgroup/system.slice/" + unit + "/cgroup."
journal = open(os.path.join("` + spine.StateDir + `", sys.stdin.readline().strip()), "rb", 0)

def intent(action):
    journal.seek(0)
    return b'"' + action + b'"' in journal.read()

def removing():
    return intent(b"etcd.member_remove")

def moved():
    return os.path.isdir(aside) and any(os.path.isdir(os.path.join(aside, d, "member")) for d in os.listdir(aside))

def set_aside():
    if not intent(b"etcd.set_aside"):
        return False
    while not moved(): # at once: it is a millisecond until the outcome is durable
        pass
    return True

def joining():
    return os.path.isdir(os.path.join(data, "member", "wal"))

for name, come in ("remove", removing), ("aside", set_aside), ("promote", joining):
    while not come():
        time.sleep(0.0003)
    with open(group + how, "w") as f:
        f.write("1")
    print(name, time.time_ns(), flush=True)
`

// A member is replaced, and what replaces it is killed on the way: with the intent
// to remove durable in the agent's journal, when the data was set aside and
// nobody was told, and while the new member joins. It is gone on with where it
// was, and nothing is done twice.
func TestLabEtcdKilledInMidRepair(t *testing.T) {
	for _, who := range []string{"agent", "server", "both"} {
		t.Run(who, func(t *testing.T) {
			c := startEtcd(t, etcdOptions{})
			h := c.follower()
			if h == c.Host(1) {
				t.Fatal("the server's own member was chosen") // of two followers the last is taken
			}
			ids := c.identities()
			killed := c.killAtMoments(h, who)
			in := c.WaitIncident("the repair to end", func(in fettle.Incident) bool {
				return in.Cause == key(dataLost, c.member(h)) && in.State.Ended()
			})
			checkResumed(t, in, killed)
			c.checkIdentities(ids, h)
			if n := c.Shell(h, "ls -d /var/lib/etcd/fettle-aside/*/member | wc -l"); n != "1" {
				t.Errorf("data was set aside %s times", n)
			}
			for unit, host := range map[string]*lab.Host{spine.AgentUnit: h, spine.UpUnit: c.Host(1)} {
				want := 1
				if who == "both" || (who == "agent") == (unit == spine.AgentUnit) {
					want += len(killed)
				}
				c.CheckStarts(host, unit, want)
			}
			c.checkWhole()
		})
	}
}

// killAtMoments breaks a member and kills what mends it, again and again, and
// returns when each step was in work then.
func (c *etcdCluster) killAtMoments(h *lab.Host, who string) map[string]time.Time {
	c.t.Helper()
	how := "kill"
	if who == "server" || who == "leader" {
		how = "freeze" // so that its answer cannot come before the server is dead
	}
	c.Write(h, "/srv/moments.py", moments)
	journal := c.Shell(h, "cd "+spine.StateDir+"; find . -type f -name journal")
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		code, err := h.Stream(c.t.Context(), strings.NewReader(journal+"\n"), in, in, "python3", "/srv/moments.py", spine.AgentUnit, how, c.data, "/var/lib/etcd/fettle-aside")
		ended <- in.CloseWithError(fmt.Errorf("the watcher ended with status %d: %w", code, err))
	}()
	// The log is lost and the database still there, so that there is something to
	// set aside.
	c.Shell(h, "mv "+c.data+"/member/wal /srv/lost; systemctl kill -s KILL "+etcdUnit)

	killed := map[string]time.Time{}
	for lines := bufio.NewScanner(out); len(killed) < 3; {
		if !lines.Scan() {
			c.t.Fatalf("after %v: %v", killed, lines.Err())
		}
		step, _, ok := strings.Cut(lines.Text(), " ")
		if !ok || !slices.Contains([]string{"remove", "aside", "promote"}, step) {
			c.t.Fatalf("the watcher: %s", lines.Text())
		}
		switch who {
		case "server", "both":
			c.Shell(c.Host(1), "echo 1 > /sys/fs/cgroup/system.slice/"+spine.UpUnit+"/cgroup.kill")
			killed[step] = time.Now()
			c.restart(c.Host(1), spine.UpUnit)
		case "leader":
			killed[step] = c.killLeader(step, h)
		default:
			killed[step] = time.Now()
		}
		if how == "freeze" {
			c.Shell(h, "echo 0 > /sys/fs/cgroup/system.slice/"+spine.AgentUnit+"/cgroup.freeze")
		} else {
			c.restart(h, spine.AgentUnit)
		}
	}
	<-ended
	spine.Until(c.t, "the server to answer", func() bool {
		r, err := c.Host(1).Exec(c.t.Context(), spine.Program, "incidents", "--all", "-o", "json")
		return err == nil && r.Code <= 1
	})
	return killed
}

// restart starts a unit that was killed as soon as its manager has seen it.
func (c *etcdCluster) restart(h *lab.Host, unit string) {
	c.t.Helper()
	spine.Until(c.t, h.Name()+"'s manager to see "+unit+" dead", func() bool { return c.Property(h, unit, "ActiveState") == "failed" })
	c.Shell(h, "systemctl start "+unit)
}

// checkResumed fails the test unless every kill hit its step between its intent
// and its end, and each step was nevertheless done exactly once, in order.
func checkResumed(t *testing.T, in fettle.Incident, killed map[string]time.Time) {
	t.Helper()
	if in.State != fettle.Resolved {
		t.Errorf("incident %s is %s (%s)", in.ID, in.State, in.Why)
	}
	begun, done, verified := map[string]time.Time{}, map[string]time.Time{}, map[string]time.Time{}
	var order, keys []string
	for _, e := range in.Story {
		switch e.Kind {
		case fettle.EvIntent:
			keys = append(keys, e.Key)
			if _, again := begun[e.Step]; !again {
				begun[e.Step] = e.At
			}
		case fettle.EvDone:
			order = append(order, e.Step)
			done[e.Step] = e.At
		case fettle.EvVerified:
			verified[e.Step] = e.At
		case fettle.EvEscalated, fettle.EvUndone, fettle.EvFailed:
			t.Errorf("%s: %s", e.Kind, e.Text)
		}
	}
	if !slices.Equal(order, replaced) {
		t.Errorf("the steps that were done are %v, want %v", order, replaced)
	}
	slices.Sort(keys)
	if len(slices.Compact(slices.Clone(keys))) != len(keys) {
		t.Errorf("a key was used twice: %v", keys)
	}
	for step, at := range killed {
		first := step
		if step == "promote" {
			first = "start" // the member joins from its start on
		}
		if at.Before(begun[first]) || at.After(verified[step]) {
			t.Errorf("it was killed at %v, and %s was begun at %v and %s verified at %v", at, first, begun[first], step, verified[step])
		}
		t.Logf("%s: killed %v after %s was begun, %v before its answer", step, at.Sub(begun[first]), first, done[step].Sub(at))
	}
}
