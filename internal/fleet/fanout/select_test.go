package fanout_test

import (
	"strings"
	"testing"

	"fettle/internal/fleet/fanout"
)

func inventory() fanout.Inventory {
	host := func(name, groups, role string) fanout.Host {
		return fanout.Host{Name: name, ID: "host:" + name, Groups: strings.Fields(groups), Labels: map[string]string{"role": role}}
	}
	return fanout.Inventory{What: "the hosts file", Hosts: []fanout.Host{
		host("web1", "web a", "front"), host("web2", "web b", "front"), host("web10", "web a", "front"),
		host("db1", "db a", "database"), host("db2", "db b", "database"),
	}}
}

func names(hosts []fanout.Host) string {
	var out []string
	for _, h := range hosts {
		out = append(out, h.Name)
	}
	return strings.Join(out, " ")
}

func TestSelect(t *testing.T) {
	for selector, want := range map[string]string{
		"web1":              "web1",
		"web[1-2]":          "web1 web2",
		"web*":              "web1 web2 web10",
		"web?":              "web1 web2",
		"*":                 "db1 db2 web1 web2 web10",
		"@all,!@db":         "web1 web2 web10",
		"@web,!web1":        "web2 web10",
		"!web1,@web":        "web2 web10",
		"role=database":     "db1 db2",
		"role!=database":    "web1 web2 web10",
		"@a !role=front":    "db1",
		"@web&role=front":   "web1 web2 web10",
		"@a&@web&web*":      "web1 web10",
		"@web&web1,db1":     "db1 web1",
		"*,!@a&@web":        "db1 db2 web2",
		"host:web1, db1":    "db1 web1",
		"web1,web1,web[1]":  "web1",
		"web1[0],db[1]":     "db1 web10",
		"@db,!web[1-2]":     "db1 db2", // excludes what is there, though not selected
		"w*[0-1],!web[1,2]": "web10",
	} {
		got, err := fanout.Select(selector, inventory())
		if err != nil || names(got) != want {
			t.Errorf("Select(%q) = %s, %v, want %s", selector, names(got), err, want)
		}
	}
}

// TestSelectNothing: an empty selector is an error, and so is every term that
// matches nothing, above all a mistyped exclusion.
func TestSelectNothing(t *testing.T) {
	for selector, want := range map[string]string{
		"":              "the selector is empty; in the hosts file: db[1-2],web[1-2,10]; @a @b @db @web; role=database role=front",
		" , ":           "the selector is empty",
		"web3":          `there is no host "web3"; in the hosts file: db[1-2],web`,
		"web[1-3]":      `there is no host "web3"`,
		"x*":            `"x*" matches no host`,
		"@cache":        `"@cache" matches no host`,
		"role=cache":    `"role=cache" matches no host`,
		"@web,!wbe1":    `there is no host "wbe1"`,
		"@web,!@wbe":    `"!@wbe" matches no host`,
		"!web1":         "write *,!web1",
		"@db,!db*":      "excluded again",
		"web[1":         "without a ]",
		"@web&@db":      `"@web&@db" matches no host`,
		"@web&":         "there is no host",
		"*,!@web&@db":   `"!@web&@db" matches no host`,
		"=db":           "no label",
		"web1,*[,!web2": "[",
	} {
		got, err := fanout.Select(selector, inventory())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Select(%q) = %s, %v, want an error with %q", selector, names(got), err, want)
		}
	}
	if _, err := fanout.Select("*", fanout.Inventory{What: "the fleet"}); err == nil || !strings.Contains(err.Error(), "the fleet has no hosts") {
		t.Errorf("an empty inventory: %v", err)
	}
}

func TestSelectOpen(t *testing.T) {
	got, err := fanout.Select("deploy@new[1-2],web1", fanout.Inventory{Open: true})
	if err != nil || names(got) != "new1 new2 web1" || got[0].User != "deploy" || got[2].User != "" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"-oProxyCommand=x", "a b;c", "@x", "web/1", "@", "!", "$(id)", "x*"} {
		if got, err := fanout.Select(bad, fanout.Inventory{Open: true}); err == nil {
			t.Errorf("Select(%q) = %v", bad, got)
		}
	}
}

// FuzzSelect: no selector panics, selects something it was not given, or selects
// nothing without an error.
func FuzzSelect(f *testing.F) {
	for _, s := range []string{"web[1-2],!web1", "@web !role=front", "*", "a[1-2]*,?[3]", "role!=x", "@web&role=front,!web1&*", "host:db1", "[", "!", "@", "="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, selector string) {
		got, err := fanout.Select(selector, inventory())
		if (err == nil) != (len(got) > 0) {
			t.Fatalf("%v, %v", got, err)
		}
		if open, err := fanout.Select(selector, fanout.Inventory{Open: true}); err == nil {
			for _, h := range open {
				if fanout.CheckName(h.Name) != nil {
					t.Errorf("%q was let through", h.Name)
				}
			}
		}
	})
}

func TestRedact(t *testing.T) {
	for _, c := range []struct{ argv, want []string }{
		{[]string{"mysql", "--password", "hunter2", "-e", "select 1"}, []string{"mysql", "--password", "[redacted]", "-e", "select 1"}},
		{[]string{"mysql", "--password=hunter2"}, []string{"mysql", "--password=[redacted]"}},
		{[]string{"env", "PGPASSWORD=hunter2", "psql"}, []string{"env", "PGPASSWORD=[redacted]", "psql"}},
		{[]string{"sh", "-c", "curl -H 'Authorization: Bearer hunter2' u"}, []string{"sh", "-c", "curl -H 'Authorization: Bearer [redacted]' u"}},
		{[]string{"sh", "-c", "x --token hunter2 --all"}, []string{"sh", "-c", "x --token [redacted] --all"}},
		{[]string{"psql", "postgres://a:hunter2@h/db"}, []string{"psql", "postgres://a:[redacted]@h/db"}},
		{[]string{"echo", "-----BEGIN RSA PRIVATE KEY-----\nhunter2"}, []string{"echo", "[redacted]"}},
		{[]string{"systemctl", "restart", "token-service"}, []string{"systemctl", "restart", "token-service"}},
	} {
		if got := fanout.Redact(c.argv); strings.Join(got, "|") != strings.Join(c.want, "|") {
			t.Errorf("%q → %q, want %q", c.argv, got, c.want)
		}
	}
}
