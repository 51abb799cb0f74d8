package sshrun_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"fettle/internal/fleet/fanout"
	"fettle/internal/fleet/fanout/sshrun"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patient is for a machine that has much else to do: what a test is not about
// takes as long as it takes.
var patient = fanout.Options{Connect: time.Minute, Notice: time.Minute, Silence: time.Minute}

// TestCommands: streams, exit statuses, signals and arguments arrive as they are.
func TestCommands(t *testing.T) {
	d := startSSHD(t, "")
	r := &sshrun.Runner{Config: d.config(t, here), Person: d.person}
	defer r.Close()
	got := runOn(t, r, patient, named("a", "b"), "sh", "-c", "echo out; echo err >&2; exit 3")
	for _, h := range []string{"a", "b"} {
		if res := got.results[h]; res.Outcome != fanout.Failed || res.Exit != 3 || got.out[h+" stdout"] != "out\n" || got.out[h+" stderr"] != "err\n" {
			t.Errorf("%+v %q", res, got.out)
		}
	}
	if got = runOn(t, r, patient, named("a"), "sh", "-c", "kill -9 $$"); got.results["a"].Outcome != fanout.Signalled || got.results["a"].Signal != "KILL" {
		t.Errorf("%+v", got.results)
	}
	odd := []string{"printf", "<%s>", "a b", "", "it's", "$HOME", "*", `back\slash`, "new\nline", "`id`", "ünï", "-n", "~", "!x", ";", "a=b"}
	got = runOn(t, r, patient, named("a"), odd...)
	if want := "<" + strings.Join(odd[2:], "><") + ">"; got.out["a stdout"] != want {
		t.Errorf("arguments arrive as %q, want %q", got.out["a stdout"], want)
	}
	if got = runOn(t, r, patient, named("a"), "no-such-program-x"); got.results["a"].Exit != 127 || got.sum.Exit() != 1 {
		t.Errorf("%+v", got.results)
	}
	big := fanout.Options{Connect: time.Minute, Notice: time.Minute, Silence: time.Minute, Limit: 1000}
	got = runOn(t, r, big, named("a"), "sh", "-c", "yes | head -c 5000000")
	if res := got.results["a"]; res.Outcome != fanout.Succeeded || !res.Clipped || res.Bytes != 5_000_000 || len(got.out["a stdout"]) != 1000 {
		t.Errorf("%+v, %d bytes passed on", res, len(got.out["a stdout"]))
	}
}

// TestHostKeys: a key that is not known, or is another one, is refused before
// anything is sent, whatever the configuration wishes, and no list changes.
func TestHostKeys(t *testing.T) {
	d := startSSHD(t, "")
	known := filepath.Join(d.home, ".ssh", "known_hosts")
	other := newKey(t, filepath.Join(d.home, "other"), "")
	address := fmt.Sprintf("[127.0.0.1]:%d ", d.port)
	for name, c := range map[string]struct{ list, why, hint string }{
		"unknown":   {"", "is not known (", "connect once with `ssh a`"},
		"changed":   {address + string(ssh.MarshalAuthorizedKey(other)), "which is not the one of " + known + ":1", "somebody may stand between"},
		"revoked":   {"@revoked " + address + string(ssh.MarshalAuthorizedKey(d.hostKey)), "was revoked in", "ask"},
		"malformed": {"a b\n", "read the known hosts", "correct the line"},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, known, c.list)
			r := &sshrun.Runner{Config: d.config(t, here+" StrictHostKeyChecking no\n"), Person: d.person}
			defer r.Close()
			got := runOn(t, r, patient, named("a"), "touch", filepath.Join(d.home, "touched"))
			res := got.results["a"]
			if res.Outcome != fanout.Refused || res.Began || !strings.Contains(res.Why, c.why) || !strings.Contains(res.Hint, c.hint) {
				t.Errorf("%+v", res)
			}
			if after, err := os.ReadFile(known); err != nil || string(after) != c.list {
				t.Errorf("the list is now %q, %v", after, err)
			}
			if _, err := os.Stat(filepath.Join(d.home, "touched")); err == nil {
				t.Error("the command ran")
			}
		})
	}
}

// TestKeys: no key that fits is a refusal that says what is missing; the ssh
// agent's keys are used, alone where a file is locked.
func TestKeys(t *testing.T) {
	d := startSSHD(t, "")
	id := filepath.Join(d.home, ".ssh", "id_ed25519")
	private, err := os.ReadFile(id)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := ssh.ParseRawPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	try := func(config string, socket string) fanout.Result {
		t.Helper()
		p := d.person
		p.Agent = socket
		r := &sshrun.Runner{Config: d.config(t, here+config), Person: p}
		defer r.Close()
		return runOn(t, r, patient, named("a"), "true").results["a"]
	}
	newKey(t, id, "") // another key: the host does not know it
	if res := try("", ""); res.Outcome != fanout.Refused || !strings.Contains(res.Why, "with any key") {
		t.Errorf("%+v", res)
	}
	locked := filepath.Join(d.home, "locked")
	newKey(t, locked, "hunter2")
	if res := try(" IdentityFile "+locked+"\n", ""); res.Outcome != fanout.Refused || !strings.Contains(res.Hint, "ssh-add it") || !strings.Contains(res.Hint, locked) {
		t.Errorf("%+v", res)
	}

	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: raw}); err != nil {
		t.Fatal(err)
	}
	socket := serveAgent(t, ring)
	if res := try("", socket); res.Outcome != fanout.Succeeded {
		t.Errorf("with the agent: %+v", res)
	}
	if res := try(" IdentityAgent "+socket+"\n", ""); res.Outcome != fanout.Succeeded {
		t.Errorf("with IdentityAgent: %+v", res)
	}
	if res := try(" IdentityAgent none\n", socket); res.Outcome != fanout.Refused {
		t.Errorf("with IdentityAgent none: %+v", res)
	}
	if res := try(" IdentitiesOnly yes\n", socket); res.Outcome != fanout.Refused {
		t.Errorf("with IdentitiesOnly: %+v", res)
	}
	if res := try("", filepath.Join(d.home, "no-such-socket")); res.Outcome != fanout.Refused || !strings.Contains(res.Hint, "agent does not answer") {
		t.Errorf("with an agent that is not there: %+v", res)
	}
}

func serveAgent(t *testing.T, ring agent.Agent) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { _ = agent.ServeAgent(ring, c); c.Close() })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return socket
}

// TestProxyJump: through one and through two hosts; the jump host is connected to
// once for many hosts behind it.
func TestProxyJump(t *testing.T) {
	d := startSSHD(t, "")
	r := &sshrun.Runner{Person: d.person, Config: d.config(t, "Host far*\n ProxyJump jump\nHost farther\n HostKeyAlias known\nHost jump\n HostKeyAlias known\n"+here)}
	defer r.Close()
	d.know(t, "known")
	got := runOn(t, r, patient, named("far1", "far2", "farther"), "echo", "hello")
	for h, res := range got.results {
		if res.Outcome != fanout.Succeeded || got.out[h+" stdout"] != "hello\n" {
			t.Errorf("%+v", res)
		}
	}
	two := &sshrun.Runner{Person: d.person, Config: d.config(t, "Host far\n ProxyJump one,two:%PORT\n"+here)}
	defer two.Close()
	if got := runOn(t, two, patient, named("far"), "true"); got.sum.Exit() != 0 {
		t.Errorf("%+v", got.results)
	}
	// Behind a jump host that cannot be reached nothing is reachable, and it says so.
	off := &sshrun.Runner{Person: d.person, Config: d.config(t, fmt.Sprintf("Host far*\n ProxyJump jump\nHost jump\n HostName 127.0.0.1\n Port %d\n", freePort(t))+here)}
	defer off.Close()
	for h, res := range runOn(t, off, patient, named("far1", "far2"), "true").results {
		if res.Outcome != fanout.Unreachable || !strings.Contains(res.Why, "through jump") {
			t.Errorf("%s: %+v", h, res)
		}
	}
}

// TestNotReached: nobody listens; a name that is none.
func TestNotReached(t *testing.T) {
	d := startSSHD(t, "")
	r := &sshrun.Runner{Person: d.person, Config: d.config(t, "")}
	defer r.Close()
	hosts := []fanout.Host{{Name: "off", Address: "127.0.0.1", Port: freePort(t)}, {Name: "nameless.invalid"}}
	for h, res := range runOn(t, r, patient, hosts, "true").results {
		if res.Outcome != fanout.Unreachable || res.Began || res.Why == "" || res.Hint == "" {
			t.Errorf("%s: %+v", h, res)
		}
	}
}

// freezer passes on what a real sshd says, up to some bytes, and then nothing, with
// the connection open: a host that hangs there.
type freezer struct {
	net.Listener
	to    string
	after int64 // bytes from the sshd; < 0: until told
	stop  chan struct{}
	all   sync.WaitGroup
}

func newFreezer(t *testing.T, port int, after int64) *freezer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &freezer{Listener: l, to: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), after: after, stop: make(chan struct{})}
	f.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.all.Go(func() { f.serve(c) })
		}
	})
	t.Cleanup(func() { l.Close(); close(f.stop); f.all.Wait() })
	return f
}

func (f *freezer) serve(c net.Conn) {
	defer c.Close()
	back, err := net.Dial("tcp", f.to)
	if err != nil {
		return
	}
	defer back.Close()
	f.all.Go(func() { io.Copy(back, c) })
	io.CopyN(c, back, f.after)
	<-f.stop
}

func (f *freezer) port() int { return f.Addr().(*net.TCPAddr).Port }

// TestHangsAnywhere: a host that stops to answer at any byte of the handshake is
// named within a second and given up in time; the healthy host beside it is not
// held up.
func TestHangsAnywhere(t *testing.T) {
	d := startSSHD(t, "MaxStartups 100\n")
	var hosts []fanout.Host
	var addresses []string
	for _, after := range []int64{0, 1, 20, 41, 60, 500, 1100, 1400, 1700, 1900} {
		f := newFreezer(t, d.port, after)
		hosts = append(hosts, fanout.Host{Name: fmt.Sprintf("frozen%d", after), Address: "127.0.0.1", Port: f.port()})
		addresses = append(addresses, net.JoinHostPort("127.0.0.1", strconv.Itoa(f.port())))
	}
	d.know(t, addresses...)
	hosts = append(hosts, fanout.Host{Name: "well", Address: "127.0.0.1", Port: d.port})
	r := &sshrun.Runner{Person: d.person, Config: d.config(t, "")}
	defer r.Close()
	got := runOn(t, r, fanout.Options{Silence: 2 * time.Second}, hosts, "true")
	if got.results["well"].Outcome != fanout.Succeeded {
		t.Errorf("%+v", got.results["well"])
	}
	for h, res := range got.results {
		if h == "well" {
			continue
		}
		if res.Outcome != fanout.Hung || res.Why == "" || res.Took < time.Second {
			t.Errorf("%+v", res)
		}
		if !got.quiet[h] && res.Took > 2*time.Second {
			t.Errorf("%s was not named before it was given up: %+v", h, res)
		}
	}
}

// TestFrozenInMidCommand: a host whose sshd is stopped while a command runs is
// named, and given up as hung with the word that the command may have run.
func TestFrozenInMidCommand(t *testing.T) {
	d := startSSHD(t, "")
	r := &sshrun.Runner{Person: d.person, Config: d.config(t, here)}
	defer r.Close()
	var shells []int
	t.Cleanup(func() {
		for _, pid := range shells {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	var result fanout.Result
	named := false
	argv := []string{"sh", "-c", "echo $$ $PPID; exec sleep 300"}
	fanout.Run(t.Context(), named1("a"), fanout.Command{Argv: argv}, fanout.Options{Connect: time.Minute, Silence: 2 * time.Second}, r, func(e fanout.Event) {
		switch e.Kind {
		case fanout.Output:
			var shell, server int
			if _, err := fmt.Sscan(string(e.Data), &shell, &server); err != nil {
				t.Errorf("%q: %v", e.Data, err)
				return
			}
			shells = append(shells, shell, server)
			if err := syscall.Kill(server, syscall.SIGSTOP); err != nil { // the sshd of this session
				t.Error(err)
			}
		case fanout.Quiet:
			named = true
		case fanout.Ended:
			result = e.Result
		case fanout.Answers, fanout.Clipped:
		}
	})
	if !named || result.Outcome != fanout.Hung || !result.Began || !strings.Contains(result.Hint, "may have run") {
		t.Errorf("named %v, %+v", named, result)
	}
}

func named1(name string) []fanout.Host { return []fanout.Host{{Name: name}} }

// TestConnectionLost: the sshd of a session dies in mid-command: lost, not failed.
func TestConnectionLost(t *testing.T) {
	d := startSSHD(t, "")
	r := &sshrun.Runner{Person: d.person, Config: d.config(t, here)}
	defer r.Close()
	got := runOn(t, r, patient, named("a"), "sh", "-c", "kill -9 $PPID")
	if res := got.results["a"]; res.Outcome != fanout.Lost || !res.Began || got.sum.Exit() != 2 {
		t.Errorf("%+v", res)
	}
}

// TestInterrupted: a run that is broken off returns at once and says that the
// command may go on.
func TestInterrupted(t *testing.T) {
	d := startSSHD(t, "")
	r := &sshrun.Runner{Person: d.person, Config: d.config(t, here)}
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var result fanout.Result
	sum := fanout.Run(ctx, named("a"), fanout.Command{Argv: []string{"sh", "-c", "echo begun; exec sleep 5"}}, patient, r, func(e fanout.Event) {
		if e.Kind == fanout.Output {
			cancel()
		}
		if e.Kind == fanout.Ended {
			result = e.Result
		}
	})
	if result.Outcome != fanout.Cut || !result.Began || sum.Exit() != 2 {
		t.Errorf("%+v", result)
	}
}

func TestQuote(t *testing.T) {
	for _, c := range []struct {
		argv []string
		want string
	}{
		{[]string{"uptime"}, "uptime"}, {[]string{"a b", "c"}, "'a b' c"}, {[]string{"it's", ""}, `'it'\''s' ''`}, {[]string{"A=1", "x"}, "'A=1' x"},
	} {
		if got := sshrun.Quote(c.argv); got != c.want {
			t.Errorf("Quote(%q) = %s, want %s", c.argv, got, c.want)
		}
	}
}
