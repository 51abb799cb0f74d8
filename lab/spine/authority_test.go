//go:build lab

package spine_test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/lab"
	"fettle/lab/spine"
)

// authorityStatus is what `fettle status` says of a change of the authority.
type authorityStatus struct {
	Believed []string
	Phase    string
	Hold     string
	Waits    []struct{ Host, Server, Label, Why string }
}

func authorityOf(t *testing.T, f *spine.Fleet) authorityStatus {
	t.Helper()
	var s struct{ Authority authorityStatus }
	for _, h := range f.Hosts()[:3] {
		r, err := h.Exec(t.Context(), spine.Program, "status", "-o", "json")
		if err == nil && json.Unmarshal([]byte(r.Stdout), &s) == nil && s.Authority.Believed != nil {
			return s.Authority
		}
	}
	return s.Authority
}

// identityOf reads an identity from a host, as a thief would.
func identityOf(t *testing.T, h *lab.Host, role pki.Role, file string) *pki.Identity {
	t.Helper()
	data, err := h.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, string(role)+".pem"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	id, err := pki.LoadIdentity(dir, role)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// letIn reports why a server does not take a certificate; nil: it does. It asks nothing
// of the server's own.
func letIn(t *testing.T, f *spine.Fleet, id *pki.Identity, address, alpn string) error {
	t.Helper()
	raw, err := f.Dial(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}, ServerName: pki.ServerName,
		GetClientCertificate: pki.ClientTLS(func() *pki.Identity { return id }, time.Now).GetClientCertificate})
	if err := raw.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := c.HandshakeContext(t.Context()); err != nil {
		return err
	}
	// In TLS 1.3 the server's no comes behind the handshake; one that says nothing waits
	// for a request.
	if _, err := c.Read(make([]byte, 1)); err != nil {
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			return nil
		}
		return err
	}
	return nil
}

// split makes a host that has joined one whose agent runs without root, beside an
// executor, under the units that are shipped.
func split(t *testing.T, f *spine.Fleet, h *lab.Host) {
	t.Helper()
	id, _, _ := strings.Cut(strings.TrimPrefix(string(f.Unit(h, "x")), "unit:"), "/")
	f.Shell(h, "systemctl stop "+spine.AgentUnit+" && rm -rf "+spine.StateDir+" /etc/systemd/system/"+spine.AgentUnit)
	f.Shell(f.Host(1), spine.Program+" forget "+id)
	for _, name := range []string{"agent", "executor"} {
		f.Write(h, "/etc/default/fettle-"+name, "ARGS=-v\n")
	}
	f.Shell(h, spine.Program+" install agent && systemd-sysusers && systemctl daemon-reload")
	token := strings.TrimSpace(f.Shell(f.Host(1), spine.Program+" token --address "+f.Host(1).Addr().String()+":7401"))
	f.Shell(h, spine.Program+" join --user fettle "+token+" && systemctl start "+spine.AgentUnit)
	f.WaitReady()
}

// The fleet's authority is changed: three servers, and a host in two processes that is off
// when it begins. What fails is mended at each stage; at the end certificates of the old
// authority are refused by every server and its store, and the log is whole.
func TestLabRotateAuthority(t *testing.T) {
	f := start(t, 4, spine.Options{Servers: 3, Policy: "permit_life: 1m\n"})
	h := f.Host(4)
	split(t, f, h)
	stages := []string{"before", "adding", "issuing", "after"}
	for _, host := range []*lab.Host{f.Host(2), h} {
		for _, s := range stages {
			f.Service(host, s+".service", "ExecStart=/bin/sleep infinity")
		}
	}
	mended := func(stage string, hosts ...*lab.Host) {
		t.Helper()
		for _, host := range hosts {
			f.Shell(host, "systemctl kill -s KILL "+stage+".service")
			in := f.WaitFor(failed, f.Unit(host, stage+".service"), fettle.Resolved)
			f.CheckMended(in, "start", "start")
			t.Logf("%s: %s was mended %s after it was seen", stage, host.Name(), in.Ended.Sub(in.Opened).Round(time.Millisecond))
		}
	}
	mended("before", f.Host(2), h)
	person := identityOf(t, f.Host(1), pki.RoleAdmin, spine.StateDir+"/admin/admin.pem")
	server := identityOf(t, f.Host(2), pki.RoleServer, spine.StateDir+"/server/server.pem")
	old := person.Pin()
	for _, s := range f.Hosts()[:3] {
		if err := letIn(t, f, person, s.Addr().String()+":7401", "h2"); err != nil {
			t.Errorf("%s refuses a certificate that is good: %v", s.Name(), err)
		}
		if err := letIn(t, f, server, s.Addr().String()+":7402", "h2"); err != nil {
			t.Errorf("the store of %s refuses a certificate that is good: %v", s.Name(), err)
		}
	}

	// One is off when it begins.
	if err := h.PowerOff(t.Context()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	t.Log(f.Shell(f.Leader(), spine.Program+" rotate authority --overlap 60s"))
	spine.Until(t, "only the host that is off to be waited for", func() bool {
		s := authorityOf(t, f)
		return strings.HasPrefix(s.Phase, "the new authority is made known") && len(s.Waits) == 1 && s.Waits[0].Label == h.Name()
	})
	t.Logf("all servers and the other hosts believe the new authority after %s", time.Since(began).Round(time.Second))
	mended("adding", f.Host(2))
	f.Shell(f.Host(1), "grep -c BEGIN "+spine.StateDir+"/server/authority.pem | grep -qx 2")

	if err := h.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.WaitRunning(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.Shell(h, "systemctl start "+spine.AgentUnit)
	spine.Until(t, "all to have certificates of the new authority", func() bool {
		s := authorityOf(t, f)
		return strings.HasPrefix(s.Phase, "the new authority issues") && len(s.Waits) == 0
	})
	f.Shell(h, "systemctl start issuing.service after.service")
	t.Logf("all have certificates of the new authority after %s", time.Since(began).Round(time.Second))
	mended("issuing", f.Host(2), h)
	spine.Until(t, "the old authority to be believed no more", func() bool {
		s := authorityOf(t, f)
		return s.Phase == "" && len(s.Believed) == 1 && s.Believed[0] != old
	})
	t.Logf("the old authority is believed no more after %s", time.Since(began).Round(time.Second))
	mended("after", f.Host(2), h)

	for _, s := range f.Hosts()[:3] {
		for what, try := range map[string]func() error{
			"server": func() error { return letIn(t, f, person, s.Addr().String()+":7401", "h2") },
			"store":  func() error { return letIn(t, f, server, s.Addr().String()+":7402", "h2") },
		} {
			err := try()
			if err == nil {
				t.Errorf("%s: the %s takes a certificate of the old authority", s.Name(), what)
				continue
			}
			t.Logf("%s: the %s refuses the old authority's certificate: %v", s.Name(), what, err)
		}
		if f.Try(s, "ls "+spine.StateDir+"/ca | grep "+old[:16]) {
			t.Errorf("%s still has the old key", s.Name())
		}
	}
	var pin struct{ Authorities [][]byte }
	data, err := h.ReadFile(spine.StateDir + "/executor/fleet.json")
	if err == nil {
		err = json.Unmarshal(data, &pin)
	}
	if err != nil || len(pin.Authorities) != 1 || slices.Equal(pin.Authorities[0], person.Authority()) {
		t.Errorf("the executor believes %d authorities: %v", len(pin.Authorities), err)
	}
	t.Log(strings.TrimSpace(f.Shell(f.Leader(), spine.Program+" audit verify")))
	for _, host := range f.Hosts() {
		longest, sessions := longestGap(t, f, host)
		t.Logf("%s: %d sessions, the longest time without one %s", host.Name(), sessions, longest.Round(time.Millisecond))
	}
}

// longestGap is the longest time for which a host's agent had no session in the present
// boot, by its own log, and how many it had. One that has none at the end fails the test.
func longestGap(t *testing.T, f *spine.Fleet, h *lab.Host) (longest time.Duration, sessions int) {
	t.Helper()
	log := f.Shell(h, "journalctl -b -o short-unix --no-pager -u "+spine.AgentUnit)
	var lost time.Time
	for line := range strings.Lines(log) {
		seconds, rest, _ := strings.Cut(line, " ")
		at, err := strconv.ParseFloat(seconds, 64)
		if err != nil {
			continue
		}
		now := time.UnixMicro(int64(at * 1e6))
		switch {
		case strings.Contains(rest, "a session with the server has begun"):
			sessions++
			if !lost.IsZero() {
				longest = max(longest, now.Sub(lost))
			}
			lost = time.Time{}
		case lost.IsZero() && (strings.Contains(rest, "no session with the server") || strings.Contains(rest, "this agent calls anew")):
			lost = now
		}
	}
	if !lost.IsZero() || sessions == 0 {
		t.Errorf("%s has no session at the end", h.Name())
	}
	return longest, sessions
}

// The server that leads is killed at each step of a change: at once when it was asked for,
// while hosts are told, while all get certificates, and while the old authority is
// forgotten. The next leader goes on, the killed one is started again, by Fettle, and
// follows; at the end there is one authority, and one log.
func TestLabRotateAuthorityLeaderKilled(t *testing.T) {
	f := start(t, 3, spine.Options{Servers: 3, Policy: "permit_life: 1m\n"})
	old := identityOf(t, f.Host(1), pki.RoleAdmin, spine.StateDir+"/admin/admin.pem").Pin()
	kill := func(when string) {
		t.Helper()
		var was *lab.Host
		spine.Until(t, "a server to lead", func() bool { was = f.Leader(); return was != nil })
		f.Try(was, "echo 1 > /sys/fs/cgroup/system.slice/"+spine.ServerUnit+"/cgroup.kill")
		t.Logf("%s: %s was killed", when, was.Name())
		spine.Until(t, "another server to lead", func() bool { h := f.Leader(); return h != nil && h != was })
		// Not by Fettle, which may call a person after some of them (S10).
		f.Shell(was, "systemctl reset-failed "+spine.ServerUnit+"; systemctl start "+spine.ServerUnit)
	}
	var leader *lab.Host
	spine.Until(t, "a server to lead", func() bool { leader = f.Leader(); return leader != nil })
	f.Shell(leader, spine.Program+" rotate authority --overlap 60s")
	kill("asked for")
	seen := map[string]bool{}
	for done := false; !done; {
		var at authorityStatus
		spine.Until(t, "the change to go on", func() bool {
			at = authorityOf(t, f)
			done = at.Phase == "" && len(at.Believed) == 1 && at.Believed[0] != old
			return done || at.Phase != "" && !seen[at.Phase]
		})
		if !done {
			seen[at.Phase] = true
			kill(at.Phase)
		}
	}
	if len(seen) < 2 {
		t.Errorf("it was killed in %v only", seen)
	}
	f.WaitReady()
	for _, h := range f.Hosts() {
		spine.Until(t, h.Name()+" to have given the old key up", func() bool { return !f.Try(h, "ls "+spine.StateDir+"/ca | grep "+old[:16]) })
		if id := identityOf(t, h, pki.RoleServer, spine.StateDir+"/server/server.pem"); id.Pin() == old {
			t.Errorf("%s has a certificate of the old authority", h.Name())
		}
	}
	f.Service(f.Host(3), "web.service", "ExecStart=/bin/sleep infinity")
	f.Shell(f.Host(3), "systemctl kill -s KILL web.service")
	f.CheckMended(f.WaitFor(failed, f.Unit(f.Host(3), "web.service"), fettle.Resolved), "start", "start")
	t.Log(strings.TrimSpace(f.Shell(f.Leader(), spine.Program+" audit verify")))
}
