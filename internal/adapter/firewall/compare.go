package firewall

import (
	"slices"
	"strings"
)

// deciding are the words of statements that decide what becomes of a packet. A rule
// without any of them counts or logs, and nothing that it does is missed.
var deciding = []string{
	"accept", "drop", "reject", "queue", "jump", "goto", "return", "vmap", "snat", "dnat", "masquerade", "redirect", "tproxy",
	"notrack", "synproxy", "fwd", "set", "add", "update", "delete", "limit", "offload",
}

// words are a statement's, quoted text aside.
func words(statement string) []string {
	var bare strings.Builder
	for i, part := range strings.Split(statement, `"`) {
		if i%2 == 0 {
			bare.WriteString(part)
		}
		bare.WriteByte(' ')
	}
	return strings.FieldsFunc(bare.String(), func(r rune) bool { return strings.ContainsRune(" \t\n;,{}:", r) })
}

// uncommented is a statement without its comment, which nft puts last.
func uncommented(statement string) string {
	if i := strings.LastIndex(statement, ` comment "`); i >= 0 && strings.HasSuffix(statement, `"`) && strings.Count(statement[i:], `"`) == 2 {
		return statement[:i]
	}
	return statement
}

// effective is what of a table decides over packets: without comments, rules that
// only count, chains without rules that accept by themselves, and sets that fill
// while they are used. A table without chains has no blocks then.
func (t table) effective() table {
	out := table{name: t.name, flags: slices.DeleteFunc(slices.Clone(t.flags), func(f string) bool { return strings.HasPrefix(f, "comment ") })}
	chains := false
	for _, b := range t.blocks {
		e := block{head: b.head}
		chain := strings.HasPrefix(b.head, "chain ")
		fills := !chain && slices.ContainsFunc(b.lines, func(l string) bool {
			w := words(l)
			return len(w) > 0 && w[0] == "flags" && (slices.Contains(w, "dynamic") || slices.Contains(w, "timeout"))
		})
		rules := 0
		for _, l := range b.lines {
			l = uncommented(l)
			base := chain && strings.HasPrefix(l, "type ")
			w := words(l)
			switch {
			case strings.HasPrefix(l, "comment "):
				continue
			case fills && strings.HasPrefix(l, "elements"):
				continue
			case chain && !base && !slices.ContainsFunc(w, func(x string) bool { return slices.Contains(deciding, x) }):
				continue
			case !base || strings.Contains(l, "policy drop"):
				rules++
			}
			e.lines = append(e.lines, l)
		}
		if chain && rules == 0 {
			continue
		}
		chains = chains || chain
		out.blocks = append(out.blocks, e)
	}
	if !chains {
		out.blocks = nil
	}
	return out
}

// difference is what the ruleset in force and the persisted one do differently.
type difference struct {
	tables  []string // that differ, sorted
	added   []string // in force and not persisted: "inet filter input: tcp dport 2380 drop"
	missing []string // persisted and not in force
	blocks  bool     // something is dropped or rejected, or no longer accepted, for it
}

// compare says what differs between two rulesets.
func compare(persisted, live ruleset) difference {
	var d difference
	names := map[string]bool{}
	for _, t := range slices.Concat(persisted.tables, live.tables) {
		names[t.name] = true
	}
	for name := range names { // any order: what it finds is sorted below
		want, have := effectiveOf(persisted, name), effectiveOf(live, name)
		if want.String() == have.String() {
			continue
		}
		if len(want.blocks)+len(have.blocks) == 0 {
			continue
		}
		d.tables = append(d.tables, name)
		d.table(name, want, have)
	}
	slices.Sort(d.tables)
	slices.Sort(d.added)
	slices.Sort(d.missing)
	return d
}

func effectiveOf(r ruleset, name string) table {
	if t := r.find(name); t != nil {
		return t.effective()
	}
	return table{name: name}
}

// table notes what differs in one table.
func (d *difference) table(name string, want, have table) {
	heads := []string{}
	for _, b := range slices.Concat(want.blocks, have.blocks) {
		if !slices.Contains(heads, b.head) {
			heads = append(heads, b.head)
		}
	}
	for _, head := range heads {
		w, h := linesOf(want, head), linesOf(have, head)
		where := name + " " + strings.TrimPrefix(head, "chain ") + ": "
		missing, added := left(w, h), left(h, w)
		for _, l := range missing {
			d.missing = append(d.missing, where+l)
			d.blocks = d.blocks || hasWord(l, "accept", "return", "jump", "goto", "vmap", "elements")
		}
		for _, l := range added {
			d.added = append(d.added, where+l)
			d.blocks = d.blocks || hasWord(l, "drop", "reject", "queue", "jump", "goto", "vmap", "elements")
		}
		if len(missing)+len(added) == 0 && !slices.Equal(w, h) {
			d.added = append(d.added, where+"the same rules in another order")
			d.blocks = true
		}
	}
	if !slices.Equal(want.flags, have.flags) {
		d.added = append(d.added, name+": "+strings.Join(have.flags, "; "))
		d.missing = append(d.missing, name+": "+strings.Join(want.flags, "; "))
		d.blocks = true
	}
}

func hasWord(statement string, any ...string) bool {
	return slices.ContainsFunc(words(statement), func(w string) bool { return slices.Contains(any, w) })
}

func linesOf(t table, head string) []string {
	for _, b := range t.blocks {
		if b.head == head {
			return b.lines
		}
	}
	return nil
}

// left are the lines of a that b does not have, as often as it does not.
func left(a, b []string) []string {
	have := map[string]int{}
	for _, l := range b {
		have[l]++
	}
	var out []string
	for _, l := range a {
		if have[l] > 0 {
			have[l]--
			continue
		}
		out = append(out, l)
	}
	return out
}
