package firewall

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// captured are listings of nft 1.0.6, of the rulesets that their names say.
var captured = []string{"filter", "iptables", "sets"}

func listing(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestParseCaptured(t *testing.T) {
	for _, name := range captured {
		r, err := parse(listing(t, name))
		if err != nil || len(r.tables) == 0 {
			t.Errorf("%s: %d tables, %v", name, len(r.tables), err)
			continue
		}
		if d := compare(r, r); len(d.tables) > 0 {
			t.Errorf("%s differs from itself: %+v", name, d)
		}
		text := ""
		for _, tab := range r.tables {
			text += tab.text
		}
		again, err := parse(text)
		if err != nil || again.hash() != r.hash() {
			t.Errorf("%s: what would be put back is something else (%v)", name, err)
		}
	}
	r, err := parse(listing(t, "sets"))
	if err != nil {
		t.Fatal(err)
	}
	e := r.find("inet filter").effective()
	if got := linesOf(e, "set allow"); len(got) != 2 || strings.Count(got[1], "10.0.0.") < 12 {
		t.Errorf("elements over several lines: %q", got)
	}
	if got := linesOf(e, "set seen"); slices.ContainsFunc(got, func(l string) bool { return strings.HasPrefix(l, "elements") }) {
		t.Errorf("what fills a set while it is used counts: %q", got)
	}
	if foreignRules(listing(t, "filter")) || !foreignRules(listing(t, "iptables")) {
		t.Error("rules of iptables are not told apart")
	}
}

// TestBlocks: what may cut somebody off is told from what only lets more through.
func TestBlocks(t *testing.T) {
	table := func(policy string, rules ...string) ruleset {
		r, err := parse("table inet f {\n\tchain c {\n\t\ttype filter hook input priority filter; policy " + policy + ";\n\t\t" + strings.Join(rules, "\n\t\t") + "\n\t}\n}\n")
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	base := table("drop", "tcp dport 22 accept", "tcp dport 80 accept")
	for _, c := range []struct {
		name   string
		live   ruleset
		blocks bool
	}{
		{"a drop more", table("drop", "tcp dport 22 drop", "tcp dport 22 accept", "tcp dport 80 accept"), true},
		{"an accept less", table("drop", "tcp dport 22 accept"), true},
		{"an accept more", table("drop", "tcp dport 22 accept", "tcp dport 80 accept", "tcp dport 443 accept"), false},
		{"another order", table("drop", "tcp dport 80 accept", "tcp dport 22 accept"), true},
		{"a policy that accepts", table("accept", "tcp dport 22 accept", "tcp dport 80 accept"), false},
	} {
		d := compare(base, c.live)
		if len(d.tables) != 1 || len(d.added)+len(d.missing) == 0 || d.blocks != c.blocks {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
	if d := compare(table("accept", "tcp dport 22 accept"), table("drop", "tcp dport 22 accept")); !d.blocks {
		t.Errorf("a policy that drops: %+v", d)
	}
	for _, same := range [][]string{
		{"tcp dport 22 accept comment \"ssh { drop\"", "tcp dport 80 accept"},
		{"tcp dport 22 accept", "counter log prefix \"drop \"", "tcp dport 80 accept"},
	} {
		if d := compare(base, table("drop", same...)); len(d.tables) > 0 {
			t.Errorf("%q: %+v", same, d)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range captured {
		f.Add(listing(f, name))
	}
	f.Add("table inet f {\n")
	f.Add("table inet f {\n\tchain c {\n\t\tx \"}\n\t}\n}\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parse(text)
		if err != nil {
			return
		}
		if d := compare(r, r); len(d.tables) > 0 {
			t.Errorf("differs from itself: %+v", d)
		}
		_ = r.hash()
	})
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("file: /etc/nftables.conf\nignore: [\"ip docker*\"]\n"))
	f.Add([]byte("file: x"))
	f.Fuzz(func(t *testing.T, src []byte) {
		if c, err := ParseConfig(src); err == nil && (c.File == "" || strings.ContainsAny(c.File, "\"\n")) {
			t.Errorf("%q is %+v", src, c)
		}
	})
}
