//go:build lab

package spine_test

import (
	"strings"
	"testing"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

const (
	drifted      fettle.Code = "firewall.drifted"
	kindFirewall fettle.Kind = "firewall"

	persistedRules = "/etc/nftables.conf"
	firewallConfig = "file: " + persistedRules + "\n"
)

// rules are the ruleset of a host, as its own tool prints it.
func rules(f *spine.Fleet, h *lab.Host) string {
	return f.Shell(h, "nft -s list ruleset")
}

// A person drops etcd's peer port by a rule of their own. It is reported, a person is
// asked whatever the policy says, and the persisted ruleset is put in force again and
// confirmed over a new connection: the cluster is well again.
func TestLabArmed(t *testing.T) {
	c := startEtcd(t, etcdOptions{
		files: map[string]map[string]string{"h3": {"firewall.yaml": firewallConfig}},
		prepare: func(l *lab.Lab) {
			h := l.Host(3)
			const text = "flush ruleset\ntable inet filter {\n\tchain input {\n\t\ttype filter hook input priority 0; policy accept;\n\t\tct state established,related accept\n\t\tiif lo accept\n\t\ttcp dport 23 drop\n\t}\n}\n"
			if err := h.WriteFile(persistedRules, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := h.Shell(t.Context(), "nft -f "+persistedRules); err != nil {
				t.Fatal(err)
			}
		},
	})
	h := c.Host(3)
	subject := c.Subject(kindFirewall, h, "nftables")
	before := rules(c.Fleet, h)
	healthy := func() bool {
		return c.Try(h, "ETCDCTL_API=3 timeout 10 etcdctl --command-timeout=2s --endpoints="+clientURL(h)+" endpoint health")
	}
	spine.Until(t, "the member to be well", healthy)

	c.Shell(h, "nft insert rule inet filter input tcp dport 2380 drop; nft insert rule inet filter input tcp sport 2380 drop")
	asked := c.WaitFor(drifted, subject, fettle.Proposed)
	spine.Until(t, "the member to be cut off from the others", func() bool { return !healthy() })
	if text := asked.Story[0].Text; !strings.Contains(text, "tcp dport 2380 drop") || !strings.Contains(text, "by nft (process ") {
		t.Errorf("it does not say what was changed by whom: %s", text)
	}
	if asked.Plan == nil || asked.Plan.Rung != "restore" {
		t.Fatalf("the plan is %+v", asked.Plan)
	}
	c.CheckUntouched(asked)
	c.Approve(asked.ID)
	mended := c.WaitFor(drifted, subject, fettle.Resolved)
	c.CheckMended(mended, "restore", "restore")
	if now := rules(c.Fleet, h); now != before {
		t.Errorf("in force is\n%s\nwant\n%s", now, before)
	}
	spine.Until(t, "the member to be well again", healthy)
	if said := c.Shell(h, spine.Program+" revert"); !strings.Contains(said, "confirmed") || strings.Count(said, "firewall.restore") != 1 {
		t.Errorf("fettle revert says %s", said)
	}
	for h, want := range map[*lab.Host]string{
		c.Host(1): "a change is confirmed over a new connection",
		h:         "a change stands: the server was reached over a new connection",
	} {
		if !c.Try(h, "journalctl -b -o cat --no-pager -u "+spine.UpUnit+" -u "+spine.AgentUnit+" | grep -q '"+want+"'") {
			t.Errorf("%s did not say: %s", h.Name(), want)
		}
	}
	spine.Until(t, "the revert's unit to end", func() bool {
		return c.Shell(h, "systemctl list-units --no-legend --plain --state=active 'fettle-revert@*'") == ""
	})
	if left := c.Shell(h, "find /etc/systemd/system -name 'fettle-revert-*'"); left != "" {
		t.Errorf("a later boot would take it back: %s", left)
	}
	c.load.waitMore(50)
}

// cutOff has a person approve a persisted ruleset that cuts its host off from the
// server, and returns when it is in force.
func cutOff(t *testing.T) (f *spine.Fleet, h *lab.Host, in fettle.Incident) {
	f = start(t, 2, spine.Options{
		Adapters: map[string]map[string]string{"h2": {"firewall.yaml": firewallConfig}},
		Prepare: func(l *lab.Lab) {
			const text = "table inet filter {\n\tchain output {\n\t\ttype filter hook output priority 0; policy accept;\n\t\ttcp dport 7401 drop\n\t}\n}\n"
			if err := l.Host(2).WriteFile(persistedRules, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Host(2).Shell(t.Context(), "systemctl enable nftables.service; nft add table inet other"); err != nil {
				t.Fatal(err)
			}
		},
	})
	h = f.Host(2)
	in = f.WaitFor(drifted, f.Subject(kindFirewall, h, "nftables"), fettle.Proposed)
	f.Approve(in.ID)
	spine.Until(t, "the ruleset that cuts it off to be in force", func() bool { return blocked(f, h) })
	return f, h, in
}

func blocked(f *spine.Fleet, h *lab.Host) bool {
	return strings.Contains(rules(f, h), "dport 7401 drop")
}

// reverted waits until the host is as it was, and fails the test if the change stands.
func reverted(t *testing.T, f *spine.Fleet, h *lab.Host, in fettle.Incident) {
	spine.Until(t, "the ruleset to be taken back", func() bool { return !blocked(f, h) })
	if now := rules(f, h); strings.Contains(now, "table inet filter") {
		t.Errorf("in force is\n%s", now)
	}
	spine.Until(t, "the revert's unit to end", func() bool {
		return f.Shell(h, "systemctl list-units --no-legend --plain --state=active,activating 'fettle-revert@*'") == ""
	})
	if said := f.Shell(h, spine.Program+" revert"); !strings.Contains(said, "taken back") || strings.Contains(said, "confirmed\n") {
		t.Errorf("fettle revert says %s", said)
	}
	if f.Property(h, spine.AgentUnit, "ActiveState") != "active" {
		f.Try(h, "systemctl reset-failed "+spine.AgentUnit) // it need not have failed
		f.Shell(h, "systemctl start "+spine.AgentUnit)
	}
	f.WaitReady()
	after := f.WaitIncident("a person to be told", func(x fettle.Incident) bool { return x.ID == in.ID && x.State == fettle.Escalated })
	t.Logf("%s is %s: %s", after.ID, after.State, after.Why)
}

// A persisted ruleset that cuts the host off from the server: nobody can confirm it,
// and it takes itself back, also while everything is frozen, and though the process
// that takes it back is killed while it waits.
func TestLabArmedCutOff(t *testing.T) {
	f, h, in := cutOff(t)
	f.Shell(h, "systemctl kill -s KILL 'fettle-revert@*'")
	f.Shell(f.Host(1), spine.Program+" freeze --why test")
	reverted(t, f, h, in)
	if now := rules(f, h); !strings.Contains(now, "table inet other") {
		t.Errorf("a table that the file does not speak of is gone:\n%s", now)
	}
}

// The same with the agent killed, and not there while its change is taken back.
func TestLabArmedAgentKilled(t *testing.T) {
	f, h, in := cutOff(t)
	f.Shell(h, "systemctl kill -s KILL "+spine.AgentUnit)
	spine.Until(t, "the ruleset to be taken back without an agent", func() bool { return !blocked(f, h) })
	if state := f.Property(h, spine.AgentUnit, "ActiveState"); state != "failed" {
		t.Errorf("the agent is %s: it was not killed", state)
	}
	reverted(t, f, h, in)
}

// The same with the power switched off: the next boot loads the ruleset that cuts it
// off, and takes it back.
func TestLabArmedReboot(t *testing.T) {
	f, h, in := cutOff(t)
	if err := h.PowerOff(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.WaitRunning(t.Context()); err != nil {
		t.Fatal(err)
	}
	if state := f.Property(h, "nftables.service", "ActiveState"); state != "active" {
		t.Errorf("nftables.service is %s: this boot did not load the ruleset", state)
	}
	reverted(t, f, h, in)
}
