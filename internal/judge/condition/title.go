package condition

import (
	"fmt"
	"slices"
	"strings"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
)

// title is a line with {fact} placeholders, taken apart: texts and facts in
// turn, beginning and ending with a text.
type title struct {
	texts []string
	facts []string
}

// parseTitle checks that every placeholder is a fact of the condition's probe.
func parseTitle(src string, facts []fettle.FactSpec) (title, error) {
	var t title
	rest := src
	for {
		text, after, found := strings.Cut(rest, "{")
		t.texts = append(t.texts, text)
		if !found {
			return t, nil
		}
		name, after, found := strings.Cut(after, "}")
		if !found {
			return title{}, fmt.Errorf("%q: { without its }", src)
		}
		if !slices.ContainsFunc(facts, func(f fettle.FactSpec) bool { return f.Name == name }) {
			return title{}, fmt.Errorf("%q: {%s} is no fact of the condition's probe", src, name)
		}
		t.facts = append(t.facts, name)
		rest = after
	}
}

// fill puts the facts in; "?" stands for one that is not known.
func (t title) fill(facts fettle.Facts) string {
	if len(t.facts) == 0 {
		return t.texts[0]
	}
	var b strings.Builder
	for i, name := range t.facts {
		b.WriteString(t.texts[i])
		if v, ok := facts[name]; ok {
			b.WriteString(expr.Text(v))
		} else {
			b.WriteByte('?')
		}
	}
	b.WriteString(t.texts[len(t.facts)])
	return b.String()
}
