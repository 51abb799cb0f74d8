package runbook

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"fettle/internal/fettle"
)

// word is an identifier in CEL source that is not a field or a function.
type word struct {
	name       string
	begin, end int    // byte offsets
	field      string // of name.field
	fieldEnd   int
}

// words finds the free-standing identifiers of CEL source: not those in strings
// and comments, not fields (after a dot), not functions (before a parenthesis).
// It is exact on whatever compiles; on anything else it just ends.
//
// Lexical grammar: the CEL specification, "Syntax".
func words(src string) []word {
	var list []word
	last := byte(0) // the last character that was no blank
	for i := 0; i < len(src); {
		c := src[i]
		switch {
		case c == '/' && strings.HasPrefix(src[i:], "//"):
			for i < len(src) && src[i] != '\n' {
				i++
			}
			continue
		case c == '"' || c == '\'':
			i = stringEnd(src, i, false)
			last = '"'
			continue
		case isLetter(c):
			begin := i
			for i < len(src) && (isLetter(src[i]) || isDigit(src[i])) {
				i++
			}
			name := src[begin:i]
			if i < len(src) && (src[i] == '"' || src[i] == '\'') && isPrefix(name) {
				i = stringEnd(src, i, strings.ContainsAny(name, "rR"))
				last = '"'
				continue
			}
			next := skipBlank(src, i)
			if last != '.' && (next >= len(src) || src[next] != '(') {
				w := word{name: name, begin: begin, end: i}
				w.field, w.fieldEnd = fieldAt(src, next)
				list = append(list, w)
			}
			last = 'a'
			continue
		case isDigit(c): // a suffix or exponent is no word
			for i < len(src) && (isLetter(src[i]) || isDigit(src[i])) {
				i++
			}
			last = '0'
			continue
		case c != ' ' && c != '\t' && c != '\n' && c != '\r':
			last = c
		}
		i++
	}
	return list
}

// fieldAt reads ".name", where no "(" follows that would make it a method.
func fieldAt(src string, i int) (string, int) {
	if i >= len(src) || src[i] != '.' {
		return "", 0
	}
	begin := skipBlank(src, i+1)
	end := begin
	for end < len(src) && (isLetter(src[end]) || isDigit(src[end])) {
		end++
	}
	if next := skipBlank(src, end); next < len(src) && src[next] == '(' {
		return "", 0
	}
	return src[begin:end], end
}

func skipBlank(src string, i int) int {
	for i < len(src) && (src[i] == ' ' || src[i] == '\t' || src[i] == '\n' || src[i] == '\r') {
		i++
	}
	return i
}

// stringEnd returns the offset after the string that begins with the quote at i.
func stringEnd(src string, i int, raw bool) int {
	quote := src[i : i+1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(src[i:], triple) {
		quote = triple
	}
	for i += len(quote); i < len(src); i++ {
		if strings.HasPrefix(src[i:], quote) {
			return i + len(quote)
		}
		if src[i] == '\\' && !raw {
			i++
		}
	}
	return len(src)
}

func isPrefix(name string) bool {
	switch strings.ToLower(name) {
	case "r", "b", "rb", "br":
		return true
	}
	return false
}

func isLetter(c byte) bool { return c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }

// reserved are words that CEL keeps for itself, so that no name can be one.
func reserved(name string) bool {
	switch name {
	case "as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let",
		"loop", "null", "package", "namespace", "return", "true", "var", "void", "while":
		return true
	}
	return false
}

// Inline replaces vars.NAME in CEL source by the variable's value, so that a
// step of a plan needs nothing but itself and says what it means. missing is
// the first variable that is used and has no value, or "".
func Inline(src string, vars fettle.Facts) (inlined, missing string) {
	var b strings.Builder
	done := 0
	for _, w := range words(src) {
		if w.name != "vars" || w.field == "" {
			continue
		}
		v, ok := vars[w.field]
		if !ok {
			if missing == "" {
				missing = w.field
			}
			continue
		}
		b.WriteString(src[done:w.begin])
		b.WriteString(Literal(v))
		done = w.fieldEnd
	}
	b.WriteString(src[done:])
	return b.String(), missing
}

// Literal writes a value as CEL.
func Literal(v fettle.Value) string {
	switch v := v.(type) {
	case bool:
		return strconv.FormatBool(v)
	case int64:
		if v < 0 {
			return "(" + strconv.FormatInt(v, 10) + ")"
		}
		return strconv.FormatInt(v, 10)
	case string:
		return quote(v)
	case []string:
		parts := make([]string, len(v))
		for i, s := range v {
			parts[i] = quote(s)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return "null"
}

// quote writes a CEL string: only escapes that CEL has. Go's %q has others.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		case c < ' ' || c == 0x7f:
			b.WriteString(`\u00`)
			b.WriteString(strconv.FormatInt(int64(c)>>4, 16))
			b.WriteString(strconv.FormatInt(int64(c)&15, 16))
		case c == utf8.RuneError:
			b.WriteString(`\ufffd`)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
