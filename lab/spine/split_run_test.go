//go:build lab

package spine_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"fettle/internal/fleet/fanout"
	"fettle/lab"
	"fettle/lab/spine"
)

const runFile = "/etc/fettle/run.yaml"

// runLists lets operators run a little as nobody, and the administrator all else as root.
const runLists = `allow:
  - roles: [operator]
    commands: [[id], [sh, -c], [head]]
    as: nobody
  - {roles: [admin], any: true, as: root}
`

// ranOn is what `fettle run` printed.
type ranOn struct {
	code    int
	out     map[string]string // host to what its command wrote
	results map[string]fanout.Result
	stderr  string
}

// runs is `fettle run` on the server's host, and what it printed.
func runs(t *testing.T, h *lab.Host, args ...string) ranOn {
	t.Helper()
	r, err := h.Exec(t.Context(), append([]string{spine.Program, "run", "-o", "json"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	got := ranOn{code: r.Code, out: map[string]string{}, results: map[string]fanout.Result{}, stderr: r.Stderr}
	for line := range strings.Lines(r.Stdout) {
		var e struct {
			Kind, Host, Text string
			Result           *fanout.Result
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		got.out[e.Host] += e.Text
		if e.Result != nil {
			got.results[e.Host] = *e.Result
		}
	}
	return got
}

// ends waits until no process of a host has this among its arguments.
func ends(t *testing.T, f *spine.Fleet, h *lab.Host, argument string) {
	t.Helper()
	spine.Until(t, h.Name()+": what was run to have ended", func() bool { return !f.Try(h, "pgrep -f '[s]leep "+argument+"'") })
}

// forgedRun asks the executor to run something, as nobody but the agent could, and prints
// how it ended.
const forgedRun = `import json, socket, struct, base64
s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
s.connect("/run/fettle/executor.sock")
def call(method, arg=None):
    m = json.dumps({"schema": 1, "id": 1, "method": method, "arg": arg}).encode()
    s.sendall(struct.pack(">I", len(m)) + m)
    n, = struct.unpack(">I", s.recv(4, socket.MSG_WAITALL))
    return json.loads(s.recv(n, socket.MSG_WAITALL))
body = json.dumps({"schema": 1, "argv": ["touch", "/srv/forged"]}).encode()
call("run", {"id": "x", "body": base64.b64encode(body).decode(), "limit": 100})
print(json.dumps(call("fetch", "x")))
`

// What a person runs, on hosts whose agents have no root: the executor runs it, as its
// host's own list says, and no host that does not let it, or is frozen. Whatever ends
// early, nothing of it is left.
func TestLabSplitRun(t *testing.T) {
	f := start(t, 3, spine.Options{Servers: 1, Split: true, Prepare: func(l *lab.Lab) {
		for _, h := range l.Hosts()[:2] {
			if err := h.WriteFile(runFile, []byte(runLists), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}})
	h1, h2 := f.Host(1), f.Host(2)
	checkAccounts(t, f, h2, map[string]string{spine.AgentUnit: "fettle", spine.ExecutorUnit: "root"})

	got := runs(t, h1, "--hosts", "*", "--", "id", "-un")
	if got.code != 1 || got.out["h1"] != "nobody\n" || got.out["h2"] != "nobody\n" {
		t.Errorf("%+v", got)
	}
	if r := got.results["h3"]; r.Outcome != fanout.Refused || !strings.Contains(r.Why, "this host runs no commands of people") {
		t.Errorf("h3 allows nothing: %+v", r)
	}
	got = runs(t, h1, "--hosts", "h2", "--", "sh", "-c", "echo to stderr >&2; kill -TERM $$")
	if r := got.results["h2"]; got.code != 1 || r.Outcome != fanout.Signalled || r.Signal != "TERM" || got.out["h2"] != "to stderr\n" {
		t.Errorf("%+v", got)
	}
	got = runs(t, h1, "--hosts", "h[1-2]", "--batch", "1", "--", "head", "-c", "300000", "/dev/zero")
	if got.code != 0 || len(got.out["h1"]) != 300_000 || len(got.out["h2"]) != 300_000 {
		t.Errorf("exit status %d, %d and %d bytes: %+v", got.code, len(got.out["h1"]), len(got.out["h2"]), got.results)
	}
	got = runs(t, h1, "--hosts", "h2", "--", "systemctl", "restart", "systemd-journald.service")
	if got.code != 0 {
		t.Errorf("as root: %+v", got)
	}
	// The executor's bounds are the command's, and a unit of its own has none of them.
	got = runs(t, h1, "--hosts", "h2", "--", "systemd-run", "--pipe", "--wait", "--collect", "-q", "sh", "-c", "mount -t tmpfs none /mnt && umount /mnt && echo mounted")
	if got.code != 0 || got.out["h2"] != "mounted\n" {
		t.Errorf("in a unit of its own: %+v", got)
	}
	if got = runs(t, h1, "--hosts", "h2", "--", "mount", "-t", "tmpfs", "none", "/mnt"); got.results["h2"].Outcome != fanout.Failed {
		t.Errorf("it mounts: %+v", got)
	}

	f.Write(h2, spine.StateDir+"/executor/freeze", "being looked at\n")
	got = runs(t, h1, "--hosts", "h[1-2]", "--", "id", "-un")
	if r := got.results["h2"]; got.code != 1 || got.out["h1"] != "nobody\n" || r.Outcome != fanout.Refused || !strings.Contains(r.Why, "this host is frozen: being looked at") {
		t.Errorf("%+v", got)
	}
	f.Shell(h2, "rm "+spine.StateDir+"/executor/freeze")

	// Out of time; and the person, the agent, the executor gone while it runs.
	got = runs(t, h1, "--hosts", "h2", "--timeout", "2s", "--", "sh", "-c", "sleep 301 & wait")
	if got.results["h2"].Outcome != fanout.Cut || got.code != 2 {
		t.Errorf("%+v", got)
	}
	ends(t, f, h2, "301")
	for i, kill := range []struct {
		on             *lab.Host
		what, leavesBy string
	}{
		{h1, "pkill -KILL -f '[f]ettle run .*sleep'", ""},
		{h2, "systemctl kill -s KILL --kill-whom=main " + spine.AgentUnit, ""},
		{h2, "systemctl kill -s KILL --kill-whom=main " + spine.ExecutorUnit, "setsid"}, // its unit ends also what left its group
	} {
		argument := fmt.Sprint(302 + i)
		ran := make(chan ranOn, 1)
		go func() {
			ran <- runs(t, h1, "--hosts", "h2", "--", "sh", "-c", "sleep "+argument+" & "+kill.leavesBy+" sleep "+argument+" & wait")
		}()
		spine.Until(t, "the command to run", func() bool { return f.Try(h2, "pgrep -f '[s]leep "+argument+"'") })
		f.Shell(kill.on, kill.what)
		got := <-ran
		if i > 0 && (got.results["h2"].Outcome != fanout.Lost || got.code != 2) {
			t.Errorf("%s: %+v", kill.what, got)
		}
		t.Logf("%s: %s, %s", kill.what, got.results["h2"].Outcome, got.results["h2"].Why)
		spine.Until(t, "the host to run commands again", func() bool {
			return runs(t, h1, "--hosts", "h2", "--", "id", "-un").code == 0
		})
		ends(t, f, h2, argument)
	}

	f.Write(h2, "/srv/forged.py", forgedRun)
	said := f.Shell(h2, "setpriv --reuid fettle --regid fettle --clear-groups python3 /srv/forged.py")
	if !strings.Contains(said, "no person has signed this command") || f.Try(h2, "test -e /srv/forged") {
		t.Errorf("a command that the agent made up: %s", said)
	}
	if !f.Try(h2, "journalctl -b -o cat -u "+spine.ExecutorUnit+" | grep -q \"a person's command begins\"") {
		t.Error("the host's own log does not have who ran what")
	}
}
