package expr

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
)

// Issue is one mistake in an expression.
type Issue struct {
	Line   int    // from 1
	Column int    // from 1, in characters
	Text   string // what is wrong
	Hint   string // what to do next; may be empty
}

// String returns "line:column: text (hint)".
func (i Issue) String() string {
	s := fmt.Sprintf("%d:%d: %s", i.Line, i.Column, i.Text)
	if i.Hint != "" {
		s += " (" + i.Hint + ")"
	}
	return s
}

// Error says what is wrong with an expression that does not compile.
type Error struct {
	Where  string // "etcd.member_lost: raise"; empty where only the caller knows
	Source string
	Issues []Issue // at least one, by position
}

// Error returns one line for each issue.
func (e *Error) Error() string {
	var b strings.Builder
	for n, i := range e.Issues {
		if n > 0 {
			b.WriteByte('\n')
		}
		if e.Where != "" {
			b.WriteString(e.Where + ": ")
		}
		b.WriteString(i.String())
	}
	return b.String()
}

func sortIssues(list []Issue) {
	slices.SortFunc(list, func(a, b Issue) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), strings.Compare(a.Text, b.Text))
	})
}

var (
	undeclared = regexp.MustCompile(`(?s)^undeclared reference to '([^']*)'`)
	undefined  = regexp.MustCompile(`(?s)^undefined field '([^']*)'`)
	noOverload = regexp.MustCompile(`(?s)^found no matching overload for '([^']*)' applied to '(.*)'$`)
)

// issuesOf puts CEL's messages into our words, with a hint where one is known.
func (c *compiler) issuesOf(found *cel.Issues) []Issue {
	var list []Issue
	for _, err := range found.Errors() {
		i := at(err.Location)
		i.Text, i.Hint, _ = strings.Cut(err.Message, hintMark)
		i.Text = strings.TrimPrefix(i.Text, "Syntax error: ")
		if m := undeclared.FindStringSubmatch(err.Message); m != nil {
			i.Text, i.Hint = c.noSuchName(m[1])
		} else if m := undefined.FindStringSubmatch(err.Message); m != nil {
			i.Text, i.Hint = c.noSuchField(err.ExprID, m[1])
		} else if m := noOverload.FindStringSubmatch(err.Message); m != nil {
			i.Text = fmt.Sprintf("%s does not take %s", spoken(m[1]), m[2])
			i.Hint = "types must fit exactly: no bool, int or text stands for another"
			if strings.Contains(m[2], "double") || strings.Contains(m[2], "uint") {
				i.Hint = "facts are whole numbers; ratios are written in per mille"
			}
			if usage, ok := c.asks[strings.TrimSuffix(spoken(m[1]), "()")]; ok {
				i.Hint = "it is " + usage
			}
		} else if strings.HasPrefix(err.Message, "Syntax error: ") {
			i.Text = "syntax: " + i.Text
		}
		if !slices.Contains(list, i) {
			list = append(list, i)
		}
	}
	if len(list) == 0 { // an error without a place: the text is too long
		list = []Issue{{Line: 1, Column: 1, Text: found.Err().Error()}}
	}
	sortIssues(list)
	return list
}

// at converts CEL's position (line from 1, column from 0) to ours.
func at(loc common.Location) Issue {
	return Issue{Line: max(1, loc.Line()), Column: max(0, loc.Column()) + 1}
}

// spoken is how a person would write the function or operator that CEL names.
func spoken(function string) string {
	if word, _, typed := strings.Cut(function, " as "); typed {
		return word + "()"
	}
	if op := strings.Trim(strings.TrimPrefix(function, "@"), "_?:[]"); op != "" && op != function {
		return op
	}
	switch function {
	case "_?_:_":
		return "?:"
	case "_[_]":
		return "[]"
	}
	return function + "()"
}
