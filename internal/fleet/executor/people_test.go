package executor_test

import (
	"strings"
	"testing"

	"fettle/internal/fleet/executor"
	"fettle/internal/fleet/pki"
)

const runYAML = `allow:
  - roles: [operator]
    commands: [[uptime], [systemctl, status], [head, -1]]
    as: nobody
  - {people: [ann], any: true, as: root}
`

func TestRunPolicy(t *testing.T) {
	p, err := executor.ParseRunPolicy("run.yaml", []byte(runYAML))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		person string
		role   pki.Role
		argv   string
		want   string
	}{
		{"bob", pki.RoleOperator, "uptime", "nobody"},
		{"bob", pki.RoleAdmin, "systemctl status x", "nobody"}, // an admin is an operator too
		{"bob", pki.RoleOperator, "head -1 /etc/hosts", "nobody"},
		{"bob", pki.RoleOperator, "systemctl stop x", ""},
		{"bob", pki.RoleOperator, "systemctl", ""},
		{"bob", pki.RoleOperator, "/tmp/uptime", ""},
		{"bob", pki.RoleViewer, "uptime", ""},
		{"bob", pki.RoleAgent, "uptime", ""},
		{"bob", "", "uptime", ""},
		{"ann", pki.RoleOperator, "reboot", "root"},
		{"ann", pki.RoleOperator, "uptime", "nobody"}, // the first that fits
		{"Ann", pki.RoleOperator, "reboot", ""},
		{"", pki.RoleAdmin, "reboot", ""},
	} {
		if got := p.As(c.person, c.role, strings.Fields(c.argv)); got != c.want {
			t.Errorf("%s (%s), %s: as %q, want %q", c.person, c.role, c.argv, got, c.want)
		}
	}
	if as := (executor.RunPolicy{}).As("ann", pki.RoleAdmin, []string{"true"}); as != "" {
		t.Errorf("the zero policy lets somebody run as %q", as)
	}
}

func TestRunPolicyErrors(t *testing.T) {
	for src, want := range map[string]string{
		"allow:\n  - {any: true, as: root}\n":                               "r.yaml:2:5: the rule does not say who",
		"allow:\n  - {people: [a], as: root}\n":                             "r.yaml:2:5: the rule does not say which commands",
		"allow:\n  - {people: [a], any: true, commands: [[x]], as: root}\n": "or says it twice",
		"allow:\n  - {people: [a], any: true}\n":                            "needs as",
		"allow:\n  - {roles: [viewer], any: true, as: root}\n":              `r.yaml:2:14: "viewer" is no role that may`,
		"allow:\n  - {roles: [operater], any: true, as: root}\n":            "is no role",
		"allow:\n  - {people: [a], commands: [[]], as: root}\n":             "a command without a word",
		"allow:\n  - {people: [a], commands: [uptime], as: root}\n":         "want a list",
		"alow: []\n":  `did you mean "allow"`,
		"allow: []\n": "empty",
		"allow:\n  - {people: [a], any: true, as: root, host: x}\n":                 "unknown key",
		"allow:\n  - {people: [a], any: true, as: ''}\n":                            "as is empty",
		"allow:\n  - {people: [a], commands: [['']], as: root}\n":                   "is empty",
		"allow:\n  - {people: [a], any: 'yes', commands: [[x]], as: [root, wheel]}": "want",
	} {
		if _, err := executor.ParseRunPolicy("r.yaml", []byte(src)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", src, err, want)
		}
	}
}

// FuzzRunPolicy: a list with any mistake lets nobody run anything, and no list
// lets somebody without a role and a name.
func FuzzRunPolicy(f *testing.F) {
	f.Add([]byte(runYAML))
	f.Add([]byte("allow:\n  - {roles: [admin], any: true, as: root}\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		p, err := executor.ParseRunPolicy("r.yaml", src)
		if err != nil && p.As("ann", pki.RoleAdmin, []string{"uptime"}) != "" {
			t.Error("a list with mistakes lets somebody")
		}
		if p.As("", "", []string{"uptime"}) != "" {
			t.Error("it lets nobody in particular")
		}
	})
}
