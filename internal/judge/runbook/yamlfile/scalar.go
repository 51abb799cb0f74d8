package yamlfile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

func (d *decoder) wrong(n ast.Node, what, want string) {
	d.report.Add(nodeAt(n), "", "%s: want %s, found %s", what, want, found(n))
}

func found(n ast.Node) string {
	switch n := n.(type) {
	case *ast.NullNode:
		return "nothing"
	case *ast.BoolNode:
		return fmt.Sprintf("the truth value %v", n.Value)
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "the number " + n.GetToken().Value
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	default:
		return "something else"
	}
}

// text reads a text; any also takes numbers and truth values by their spelling.
func (d *decoder) text(n ast.Node, what string, anyScalar bool) (Text, bool) {
	at := nodeAt(n)
	t := Text{At: at, lines: d.report.lines[min(at.Line, len(d.report.lines))-1:]}
	switch s := n.(type) {
	case *ast.StringNode:
		t.Value = s.Value
		if raw := strings.TrimSpace(s.Token.Origin); raw != "" && (raw[0] == '"' || raw[0] == '\'') {
			t.quote = 1
		}
		return t, true
	case *ast.LiteralNode:
		t.Value, t.skip = strings.TrimRight(s.Value.Value, "\n"), 1
		return t, true
	case *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode:
		if anyScalar {
			t.Value = n.GetToken().Value
			return t, true
		}
		d.report.Add(at, "put it into quotes if it is meant as text", "%s: want text, found %s", what, found(n))
		return t, false
	}
	d.wrong(n, what, "text")
	return t, false
}

func (d *decoder) check(t Text, r rule, what string) {
	switch {
	case strings.TrimSpace(t.Value) == "":
		d.report.Add(t.At, "give it a value or leave the key out", "%s is empty", what)
	case len(r.enum) > 0 && !slices.Contains(r.enum, t.Value):
		d.report.Add(t.At, DidYouMean(t.Value, r.enum), "%s cannot be %q", what, t.Value)
	case r.pattern != nil && !r.pattern.MatchString(t.Value):
		d.report.Add(t.At, "it must match "+r.pattern.String(), "%s cannot be %q", what, t.Value)
	}
}

func (d *decoder) duration(t Text, what string) time.Duration {
	got, err := time.ParseDuration(t.Value)
	switch {
	case err != nil:
		d.report.Add(t.At, "a number with a unit, for example 500ms, 10s, 2m or 1h", "%s: %q is not a length of time", what, t.Value)
	case got < 0:
		d.report.Add(t.At, "", "%s: %s is negative", what, t.Value)
	}
	return max(got, 0)
}

func (d *decoder) integer(n ast.Node, r rule, what string) int {
	in, ok := n.(*ast.IntegerNode)
	if !ok {
		d.wrong(n, what, "a whole number")
		return 0
	}
	got, err := strconv.Atoi(strings.ReplaceAll(in.Token.Value, "_", ""))
	if err != nil {
		d.report.Add(nodeAt(n), "write it in decimal digits", "%s: %s is not a whole number that fits", what, in.Token.Value)
		return 0
	}
	if r.minimum != nil && got < *r.minimum {
		d.report.Add(nodeAt(n), "", "%s is %d; it must be at least %d", what, got, *r.minimum)
	}
	return got
}

func (d *decoder) plain(n ast.Node, what string) Value {
	at := nodeAt(n)
	switch s := n.(type) {
	case *ast.BoolNode:
		return Value{Plain: s.Value, At: at}
	case *ast.IntegerNode:
		return Value{Plain: int64(d.integer(n, rule{}, what)), At: at}
	case *ast.StringNode, *ast.LiteralNode:
		t, _ := d.text(n, what, false)
		return Value{Plain: t.Value, Texts: []Text{t}, At: at}
	case *ast.SequenceNode:
		out := Value{Plain: []string{}, At: at}
		list := []string{}
		for i, e := range s.Values {
			t, _ := d.text(e, fmt.Sprintf("%s[%d]", what, i), false)
			list, out.Texts = append(list, t.Value), append(out.Texts, t)
		}
		out.Plain = list
		return out
	}
	d.wrong(n, what, "text, a whole number, true, false or a list of texts")
	return Value{At: at}
}
