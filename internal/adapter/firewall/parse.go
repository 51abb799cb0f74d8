package firewall

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ruleset is what `nft list ruleset` prints (nft(8)).
type ruleset struct {
	tables []table // in the order in which they are listed
}

// table is one table: its name, "FAMILY NAME", and its text as it was listed, which
// nft takes back.
type table struct {
	name   string
	text   string
	blocks []block
	flags  []string // statements of the table itself
}

// block is a chain, set, map or other object of a table.
type block struct {
	head  string   // "chain input"
	lines []string // statements, each on one line
}

// maxRules bounds what is parsed, in bytes.
const maxRules = 8 << 20

// parse reads the listing of a ruleset.
func parse(text string) (ruleset, error) {
	var r ruleset
	if len(text) > maxRules {
		return r, fmt.Errorf("a ruleset of %d bytes: at most %d are looked at", len(text), maxRules)
	}
	var t *table
	var b *block
	var raw, open strings.Builder // of the table, and of a statement that goes on
	for n, line := range strings.Split(text, "\n") {
		bare := strings.TrimSpace(line)
		if t != nil {
			raw.WriteString(line + "\n")
		}
		if bare == "" || bare[0] == '#' {
			continue
		}
		if open.Len() > 0 {
			bare = open.String() + " " + bare
			open.Reset()
		}
		depth, err := balance(bare)
		bad := func(what string) (ruleset, error) {
			return ruleset{}, fmt.Errorf("line %d of the listing: %s: %.80q", n+1, what, bare)
		}
		switch {
		case err != nil:
			return bad(err.Error())
		case t == nil:
			head, ok := strings.CutSuffix(bare, "{")
			words := strings.Fields(head)
			if !ok || len(words) != 3 || words[0] != "table" {
				return bad("no table")
			}
			t = &table{name: words[1] + " " + words[2]}
			raw.Reset()
			raw.WriteString(line + "\n")
		case bare == "}" && b != nil:
			t.blocks = append(t.blocks, *b)
			b = nil
		case bare == "}":
			t.text = raw.String()
			r.tables = append(r.tables, *t)
			t = nil
		case depth < 0:
			return bad("a bracket too many")
		case b == nil && depth == 1 && strings.HasSuffix(bare, "{"):
			b = &block{head: strings.TrimSpace(strings.TrimSuffix(bare, "{"))}
		case depth > 0:
			open.WriteString(bare)
		case b == nil:
			t.flags = append(t.flags, bare)
		default:
			b.lines = append(b.lines, bare)
		}
	}
	if t != nil {
		return ruleset{}, fmt.Errorf("the listing ends within table %s", t.name)
	}
	return r, nil
}

// balance counts the brackets of a line that it leaves open, quoted text aside.
func balance(line string) (int, error) {
	depth, quoted := 0, false
	for _, c := range line {
		switch {
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{':
			depth++
		case c == '}':
			depth--
		}
	}
	if quoted {
		return 0, errors.New("a quote is not closed")
	}
	return depth, nil
}

// find returns the table of a name, nil when there is none.
func (r ruleset) find(name string) *table {
	for i := range r.tables {
		if r.tables[i].name == name {
			return &r.tables[i]
		}
	}
	return nil
}

// without returns the ruleset without some tables.
func (r ruleset) without(ignored func(string) bool) ruleset {
	return ruleset{slices.DeleteFunc(slices.Clone(r.tables), func(t table) bool { return ignored(t.name) })}
}

// hash identifies what a ruleset does, over its tables sorted by name.
func (r ruleset) hash() string {
	var all []string
	for _, t := range r.tables {
		if e := t.effective(); len(e.blocks) > 0 {
			all = append(all, e.String())
		}
	}
	slices.Sort(all)
	sum := sha256.Sum256([]byte(strings.Join(all, "")))
	return hex.EncodeToString(sum[:8])
}

// String is a table in one form, whatever the form that it was listed in.
func (t table) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "table %s %q\n", t.name, t.flags)
	for _, b := range t.blocks {
		fmt.Fprintf(&s, " %s\n", b.head)
		for _, l := range b.lines {
			fmt.Fprintf(&s, "  %s\n", l)
		}
	}
	return s.String()
}
