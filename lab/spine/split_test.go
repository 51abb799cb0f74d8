//go:build lab

package spine_test

import (
	"fmt"
	"strings"
	"testing"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

// checkAccounts fails the test unless the units run as whom they should, and prints what
// systemd says of their exposure.
func checkAccounts(t *testing.T, f *spine.Fleet, h *lab.Host, units map[string]string) {
	t.Helper()
	for unit, account := range units {
		pid := f.MainPID(h, unit)
		who := strings.TrimSpace(f.Shell(h, fmt.Sprintf("ps -o user:20= -p %d", pid)))
		caps := f.Shell(h, fmt.Sprintf("grep CapEff /proc/%d/status", pid))
		if who != account {
			t.Errorf("%s: %s runs as %q, want %q", h.Name(), unit, who, account)
		}
		score := f.Shell(h, "systemd-analyze security --no-pager "+unit+" | tail -1")
		t.Logf("%s: %s runs as %s, %s; %s", h.Name(), unit, who, strings.Join(strings.Fields(caps), " "), strings.TrimSpace(score))
	}
}

// forged asks the executor to start a unit, as nobody but the agent could, and prints
// the answer.
const forged = `import json, socket, struct, sys, base64
host = sys.argv[1]
s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
s.connect("/run/fettle/executor.sock")
def call(method, arg=None):
    m = json.dumps({"schema": 1, "id": 1, "method": method, "arg": arg}).encode()
    s.sendall(struct.pack(">I", len(m)) + m)
    n, = struct.unpack(">I", s.recv(4, socket.MSG_WAITALL))
    return json.loads(s.recv(n, socket.MSG_WAITALL))
incarnation = call("greet")["result"]["incarnation"]
step = {"id": "s", "action": "systemd.start", "version": 1, "target": "unit:" + host + "/quiet.service", "host": "host:" + host}
d = {"schema": 1, "key": "forged.1.s", "incarnation": incarnation, "token": {"fleet": "f", "epoch": 1, "revision": 1 << 60}, "incident": "forged", "plan": "", "step": step, "deadline": "2100-01-01T00:00:00Z"}
if len(sys.argv) > 2:
    d["permit"] = sys.argv[2]
print(json.dumps(call("do", {"body": base64.b64encode(json.dumps(d).encode()).decode()})))
`

// The agent is two processes under the units that are shipped: one without root, that
// speaks to the network, and the executor. What needs no person is mended; what takes
// votes and data away is, with a person's signed approval; and who is the agent gets
// nothing done by itself.
func TestLabSplitEtcd(t *testing.T) {
	c := startEtcd(t, etcdOptions{servers: 1, split: true})
	for i, h := range c.Hosts() {
		units := map[string]string{spine.AgentUnit: "fettle", spine.ExecutorUnit: "root"}
		if i == 0 {
			units[spine.ServerUnit] = "fettle-server"
		}
		checkAccounts(t, c.Fleet, h, units)
	}
	ids := c.identities()
	h := c.follower()
	c.Shell(h, "systemctl kill -s KILL "+etcdUnit)
	started := c.WaitFor(failed, c.Unit(h, etcdUnit), fettle.Resolved)
	c.CheckMended(started, "start", "start")

	c.wipe(h)
	asked := c.WaitFor(dataLost, c.member(h), fettle.Proposed)
	c.CheckUntouched(asked)
	c.Approve(asked.ID)
	in := c.WaitFor(dataLost, c.member(h), fettle.Resolved)
	c.CheckMended(in, "replace", "snapshot", "remove", "add", "configure", "start", "promote", "settle")
	c.checkIdentities(ids, h)
	c.checkWhole()
	if !c.Try(h, "journalctl -b -o cat -u "+spine.ExecutorUnit+" | grep -q 'a person approved it'") {
		t.Error("no step of the approved plan was one that needs a person")
	}

	c.Service(h, "quiet.service", "Type=oneshot", "ExecStart=/bin/true", "RemainAfterExit=yes")
	c.Shell(h, "systemctl stop quiet.service")
	c.Write(h, "/srv/forged.py", forged)
	id := strings.TrimPrefix(string(c.Unit(h, "x")), "unit:")
	id, _, _ = strings.Cut(id, "/")
	said := c.Shell(h, "setpriv --reuid fettle --regid fettle --clear-groups python3 /srv/forged.py "+id)
	if !strings.Contains(said, "no server of the fleet has signed") || c.Property(h, "quiet.service", "ActiveState") == "active" {
		t.Errorf("an order that the agent made up: %s", said)
	}
	if c.Try(h, "setpriv --reuid nobody --regid nogroup --clear-groups python3 /srv/forged.py "+id+" 2>/srv/said") {
		t.Error("nobody was heard")
	}
	t.Logf("who is the agent: %s", strings.TrimSpace(said))
}

// Units under the two processes: one that failed is started, one that a person stopped
// is left alone, and the executor's own death is got over.
func TestLabSplitUnits(t *testing.T) {
	f := start(t, 2, spine.Options{Servers: 1, Split: true})
	h := f.Host(2)
	f.Service(h, "web.service", "ExecStart=/bin/sleep infinity")
	f.Service(h, "mail.service", "ExecStart=/bin/sleep infinity", "Restart=always")
	f.Shell(h, "systemctl kill -s KILL web.service")
	in := f.WaitFor(failed, f.Unit(h, "web.service"), fettle.Resolved)
	f.CheckMended(in, "start", "start")
	f.Shell(h, "systemctl stop mail.service")
	f.CheckUntouched(f.WaitFor(stopped, f.Unit(h, "mail.service"), fettle.Held))
	// The executor is killed, and at once what it would have to mend: it is mended when
	// the executor is back.
	f.Shell(h, "systemctl kill -s KILL "+spine.ExecutorUnit+" web.service")
	again := f.WaitIncident("it to be mended again", func(x fettle.Incident) bool {
		return x.ID != in.ID && x.Cause == in.Cause && x.State == fettle.Resolved
	})
	f.CheckStarts(h, "web.service", 3) // mine and the two repairs'
	t.Logf("mended %s after it was seen, over the executor's death", again.Ended.Sub(again.Opened))
}

// The only server is stopped: the executor lets its host do what its own permit grants,
// also after a restart without any server, and nothing beyond it for who is the agent.
func TestLabSplitAlone(t *testing.T) {
	f := start(t, 2, spine.Options{Servers: 1, Split: true})
	first, h := f.Host(1), f.Host(2)
	f.Service(h, "web.service", "ExecStart=/bin/sleep infinity")
	f.Service(h, "mail.service", "ExecStart=/bin/sleep infinity")
	f.Service(h, "quiet.service", "Type=oneshot", "ExecStart=/bin/true", "RemainAfterExit=yes")
	f.Shell(h, "systemctl stop quiet.service")
	spine.Until(t, "the executor to keep a permit", func() bool { return f.Try(h, "test -s "+spine.StateDir+"/executor/permit") })
	if f.Try(h, "test -e "+spine.StateDir+"/agent/permit") {
		t.Error("the agent keeps one of its own")
	}
	if said := f.Shell(h, spine.Program+" permits"); !strings.Contains(said, "may do alone, until") {
		t.Errorf("fettle permits says %s", said)
	}
	killedAndBack := func(unit string) {
		was := f.Property(h, unit, "MainPID")
		killService(f, h, unit)
		spine.Until(t, unit+" to be started", func() bool {
			now := f.Property(h, unit, "MainPID")
			return now != was && now != "0"
		})
	}
	f.Shell(first, "systemctl stop "+spine.ServerUnit)
	killedAndBack("web.service")
	f.Shell(h, "systemctl restart "+spine.ExecutorUnit)
	killedAndBack("mail.service")

	f.Write(h, "/srv/forged.py", forged)
	id := strings.TrimPrefix(string(f.Unit(h, "x")), "unit:")
	id, _, _ = strings.Cut(id, "/")
	attack := "setpriv --reuid fettle --regid fettle --clear-groups python3 /srv/forged.py " + id
	if said := f.Shell(h, attack+" made-up"); !strings.Contains(said, "it names permit") || f.Property(h, "quiet.service", "ActiveState") == "active" {
		t.Errorf("a permit that the agent made up: %s", said)
	}
	f.Shell(first, "systemctl start "+spine.ServerUnit)
	f.WaitServer()
	checkAlone(t, f, h, "web.service")
	// The first try may have been for the executor as it was before its restart.
	mail := f.WaitIncident("the story of mail.service", func(in fettle.Incident) bool {
		return in.Alone != nil && in.Cause.Subject == f.Unit(h, "mail.service")
	})
	if mail.State != fettle.Resolved {
		t.Errorf("mail.service: %s (%s)", mail.State, mail.Why)
	}
	f.CheckStarts(h, "web.service", 2)
	f.CheckStarts(h, "mail.service", 2)
}

// A change that can cut the host off, seen and mended by the executor: only root sees the
// rules, its unit arms the revert, and the agent calls anew and confirms.
func TestLabSplitArmed(t *testing.T) {
	const text = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority 0; policy accept;\n\t\ttcp dport 23 drop\n\t}\n}\n"
	f := start(t, 2, spine.Options{
		Servers: 1, Split: true,
		Adapters: map[string]map[string]string{"h2": {"firewall.yaml": firewallConfig}},
		Prepare: func(l *lab.Lab) {
			h := l.Host(2)
			if err := h.WriteFile(persistedRules, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := h.Shell(t.Context(), "nft -f "+persistedRules); err != nil {
				t.Fatal(err)
			}
		},
	})
	h := f.Host(2)
	subject := f.Subject(kindFirewall, h, "nftables")
	f.Shell(h, "nft flush chain inet filter input")
	asked := f.WaitFor(drifted, subject, fettle.Proposed)
	if text := asked.Story[0].Text; !strings.Contains(text, "tcp dport 23 drop") || !strings.Contains(text, "by nft (process ") {
		t.Errorf("it does not say what was changed by whom, as who is told at once does: %s", text)
	}
	f.Approve(asked.ID)
	f.CheckMended(f.WaitFor(drifted, subject, fettle.Resolved), "restore", "restore")
	if now := rules(f, h); !strings.Contains(now, "dport 23 drop") {
		t.Errorf("in force is\n%s", now)
	}
	if said := f.Shell(h, spine.Program+" revert"); !strings.Contains(said, "confirmed") || strings.Count(said, "firewall.restore") != 1 {
		t.Errorf("fettle revert says %s", said)
	}
	checkAccounts(t, f, h, map[string]string{spine.AgentUnit: "fettle", spine.ExecutorUnit: "root"})
}

// One more socket, two signatures: how long it takes from SIGKILL to the start job.
func TestLabSplitLatency(t *testing.T) {
	latency(t, start(t, 2, spine.Options{Policy: manyPlans, Servers: 1, Split: true}))
}

// What sees filesystems without root, and what mends them: a file that was deleted and
// is held open by another account's process, and downloaded packages, which go with a
// person's approval.
func TestLabSplitFilesystem(t *testing.T) {
	const data, packages = "/srv/data", "/var/cache/apt/archives"
	f := start(t, 1, spine.Options{Servers: 1, Split: true, Prepare: func(l *lab.Lab) {
		volume(t, l.Host(1), data)
		volume(t, l.Host(1), packages)
	}})
	h := f.Host(1)
	f.Write(h, "/usr/local/bin/holder", `#!/bin/sh
exec 3>>/srv/data/app.log
trap 'exec 3>&-; exec 3>>/srv/data/app.log' HUP
cat /dev/zero >&3 2>/dev/null
rm /srv/data/app.log
while :; do sleep 3600 3>&- & wait; done
`)
	f.Shell(h, "chmod 755 /usr/local/bin/holder")
	f.Service(h, "holder.service", "ExecStart=/usr/local/bin/holder", "ExecReload=/bin/kill -HUP $MAINPID")
	held := f.WaitFor(full, f.Subject(fettle.KindFilesystem, h, data), fettle.Resolved)
	f.CheckMended(held, "ask-holder", "ask")
	checkRoom(t, f, h, data)

	f.Shell(h, "cd "+packages+"; for i in 1 2 3 4; do head -c 15M /dev/urandom >p${i}_1_all.deb; done")
	fill(f, h, packages+"/p5_1_all.deb", 0)
	asked := f.WaitFor(full, f.Subject(fettle.KindFilesystem, h, packages), fettle.Proposed)
	f.Approve(asked.ID)
	mended := f.WaitFor(full, f.Subject(fettle.KindFilesystem, h, packages), fettle.Resolved)
	f.CheckMended(mended, "package-cache", "clean")
	checkRoom(t, f, h, packages)
	f.CheckOnly(held.Cause, mended.Cause)
}
