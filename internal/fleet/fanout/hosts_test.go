package fanout_test

import (
	"strings"
	"testing"

	"fettle/internal/fleet/fanout"
)

const hostsYAML = `hosts:
  - db1
  - name: web[1-2]
    address: 10.0.0.[11-12]
    user: deploy
    port: 2222
    groups: [web, front]
    labels: {role: front, rack: 7}
`

func TestParseHosts(t *testing.T) {
	inv, err := fanout.ParseHosts("hosts.yaml", []byte(hostsYAML))
	if err != nil {
		t.Fatal(err)
	}
	got, err := fanout.Select("@web,rack=7,!web1", inv)
	if err != nil || len(got) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	if h := got[0]; h.Name != "web2" || h.Address != "10.0.0.12" || h.User != "deploy" || h.Port != 2222 || h.Labels["role"] != "front" {
		t.Errorf("%+v", h)
	}
}

func TestParseHostsErrors(t *testing.T) {
	for src, want := range map[string]string{
		"hosts:\n  - name: web[1-3]\n    address: 10.0.0.[1-2]\n":          "h.yaml:3:14: 3 names and 2 addresses",
		"hosts:\n  - web1\n  - web[1-2]\n":                                 "h.yaml:3:5: host web1 is there twice",
		"hosts:\n  - web[1\n":                                              "h.yaml:2:5: name: \"web[1\" has a [ without a ]",
		"hosts:\n  - name: x\n    prot: 1\n":                               `did you mean "port"?`,
		"hosts:\n  - name: x\n    port: 70000\n":                           "h.yaml:3:11: 70000 is no port",
		"hosts:\n  - name: x\n    groups: [all]\n":                         `h.yaml:3:14: a group cannot be named "all"`,
		"hosts:\n  - name: x\n    labels: {role: 'a b'}\n":                 "h.yaml:3:14: a label cannot be",
		"hosts:\n  - name: x\n    user: '-oProxyCommand=x'\n":              "is no user's name",
		"hosts:\n  - name: x\n    address: '-oProxyCommand=x'\n":           "a host cannot be named",
		"hosts:\n  - '-x'\n":                                               "a host cannot be named",
		"hosts: []\n":                                                      "empty",
		"x: 1\n":                                                           "unknown key",
		"hosts:\n  - w[1-99999]\n  - v[1-99999]\n":                         "more than 100000 hosts",
		"hosts:\n  - name: x\n    user: [a]\n":                             "want text",
		"hosts:\n  - name: &a x\n  - name: *a\n":                           "h.yaml:2",
		"hosts:\n\t- x\n":                                                  "h.yaml:2",
		"hosts:\n  - name: x\n    labels: {role: front}\n    labels: {}\n": "twice",
	} {
		if _, err := fanout.ParseHosts("h.yaml", []byte(src)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", src, err, want)
		}
	}
}

// FuzzParseHosts: what is accepted has names that can be selected again.
func FuzzParseHosts(f *testing.F) {
	f.Add([]byte(hostsYAML))
	f.Add([]byte("hosts:\n  - a[1-3]b[01-02]\n  - {name: x, port: 1}\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		inv, err := fanout.ParseHosts("h.yaml", src)
		if err != nil || len(inv.Hosts) > 100 {
			return
		}
		for _, h := range inv.Hosts {
			if got, err := fanout.Select(h.Name, inv); err != nil || len(got) != 1 || got[0].Name != h.Name {
				t.Errorf("%q selects %v, %v", h.Name, got, err)
			}
		}
	})
}
