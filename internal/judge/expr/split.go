package expr

import (
	"strings"
	"unicode/utf8"
)

// piece is a stretch of a template: text, or the inside of a ${…}.
type piece struct {
	text         string
	expr         bool
	line, column int // of the first character of an expression, from 1
}

// shift moves issues from positions in the expression to positions in the
// template.
func (p piece) shift(issues []Issue) []Issue {
	for n := range issues {
		if issues[n].Line == 1 {
			issues[n].Column += p.column - 1
		}
		issues[n].Line += p.line - 1
	}
	return issues
}

// split takes a template apart. Adjacent text is one piece; an empty template
// has none.
func split(src string) ([]piece, *Issue) {
	var pieces []piece
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			pieces = append(pieces, piece{text: text.String()})
			text.Reset()
		}
	}
	for i := 0; i < len(src); {
		switch {
		case strings.HasPrefix(src[i:], "$${"):
			text.WriteString("${")
			i += 3
		case strings.HasPrefix(src[i:], "${"):
			line, column := position(src, i)
			n := expressionEnd(src[i+2:])
			if n < 0 {
				return nil, &Issue{Line: line, Column: column, Text: "${ without its }", Hint: "write $${ for a literal ${"}
			}
			flush()
			pieces = append(pieces, piece{text: src[i+2 : i+2+n], expr: true, line: line, column: column + 2})
			i += 2 + n + 1
		default:
			text.WriteByte(src[i])
			i++
		}
	}
	flush()
	return pieces, nil
}

// position is the line and column, from 1, of a byte offset.
func position(src string, offset int) (line, column int) {
	before := src[:offset]
	return 1 + strings.Count(before, "\n"), 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
}

// expressionEnd returns the offset of the } that ends the expression at the
// beginning of s, or -1. Braces within braces, in strings and in comments do not
// end it.
func expressionEnd(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '{':
			depth++
		case '}':
			if depth == 0 {
				return i
			}
			depth--
		case '/':
			if strings.HasPrefix(s[i:], "//") {
				end := strings.IndexByte(s[i:], '\n')
				if end < 0 {
					return -1
				}
				i += end
			}
		case '"', '\'':
			n := literalEnd(s[i:], rawBefore(s[:i]))
			if n < 0 {
				return -1
			}
			i += n - 1
		}
	}
	return -1
}

// rawBefore reports whether the quote that follows is prefixed by r (or br, rb):
// a raw string, in which a backslash is only itself.
func rawBefore(s string) bool {
	n := len(s)
	for n > 0 && strings.IndexByte("rRbB", s[n-1]) >= 0 {
		n--
	}
	if n > 0 && (s[n-1] == '_' || s[n-1] >= '0' && s[n-1] <= '9' || s[n-1]|0x20 >= 'a' && s[n-1]|0x20 <= 'z') {
		return false // the end of a name
	}
	return strings.ContainsAny(s[n:], "rR")
}

// literalEnd returns the length of the string literal that s begins with, quotes
// included, or -1 when it does not end.
func literalEnd(s string, raw bool) int {
	quote := s[:1]
	if strings.HasPrefix(s, strings.Repeat(quote, 3)) {
		quote = s[:3]
	}
	for i := len(quote); i < len(s); i++ {
		if s[i] == '\\' && !raw {
			i++
			continue
		}
		if strings.HasPrefix(s[i:], quote) {
			return i + len(quote)
		}
	}
	return -1
}
