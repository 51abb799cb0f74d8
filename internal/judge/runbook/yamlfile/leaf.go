package yamlfile

import (
	"strings"
	"time"
	"unicode/utf8"
)

// At is a place in a file; the zero At is no place. Lines and columns count
// from one, columns in characters.
type At struct {
	Line, Column int
}

// Text is a scalar that is text.
type Text struct {
	Value string
	At    At
	lines []string // of the file from the token's line on, to find places inside Value
	skip  int      // lines until the content begins: 1 for | and >
	quote int      // characters before the content: 1 for a quoted scalar
}

// Set reports whether the key was there.
func (t Text) Set() bool { return t.At.Line > 0 }

// Sub returns a part of t as a Text of its own, from byte offset begin to end.
func (t Text) Sub(begin, end int) Text {
	return Text{Value: t.Value[begin:end], At: t.Place(begin)}
}

// Place returns where the character at a byte offset of Value stands in the
// file. Where escapes make that impossible to tell it is where t begins.
func (t Text) Place(offset int) At {
	if len(t.lines) == 0 {
		return At{t.At.Line, t.At.Column + utf8.RuneCountInString(t.Value[:min(offset, len(t.Value))])}
	}
	pos := 0
	for i := t.skip; i < len(t.lines) && pos <= len(t.Value); i++ {
		line, before := t.lines[i], 0
		if i == 0 {
			before = t.At.Column - 1 + t.quote
			line = dropRunes(line, before)
		} else {
			before = utf8.RuneCountInString(line) - utf8.RuneCountInString(strings.TrimLeft(line, " "))
			line = strings.TrimLeft(line, " ")
			lead := len(t.Value[pos:]) - len(strings.TrimLeft(t.Value[pos:], " \n"))
			if offset < pos+lead {
				break // between two lines
			}
			pos += lead
		}
		n := common(t.Value[pos:], line)
		if offset < pos+n || (offset == pos+n && offset == len(t.Value)) {
			return At{t.At.Line + i, 1 + before + utf8.RuneCountInString(t.Value[pos:offset])}
		}
		if n == 0 && strings.TrimSpace(line) != "" {
			break // an escape: the file's text and the value differ
		}
		pos += n
	}
	return t.At
}

func dropRunes(s string, n int) string {
	for ; n > 0 && s != ""; n-- {
		_, size := utf8.DecodeRuneInString(s)
		s = s[size:]
	}
	return s
}

func common(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// Expr is a scalar that is source text, of CEL for example: true and 3 need no
// quotes.
type Expr struct{ Text }

// Duration is a length of time as time.ParseDuration reads it, never negative.
type Duration struct {
	Value time.Duration
	At    At
}

// Set reports whether the key was there.
func (d Duration) Set() bool { return d.At.Line > 0 }

// Int is a whole number.
type Int struct {
	Value int
	At    At
}

// Set reports whether the key was there.
func (n Int) Set() bool { return n.At.Line > 0 }

// Bool is true or false.
type Bool struct {
	Value bool
	At    At
}

// Set reports whether the key was there.
func (b Bool) Set() bool { return b.At.Line > 0 }

// Value is a fact's value: true or false, a whole number, text, or a list of
// texts. Plain is bool, int64, string or []string; Texts has the place of the
// text, or of each text of the list.
type Value struct {
	Plain any
	Texts []Text
	At    At
}

// Map is a mapping whose keys are free, in the order of the file.
type Map[T any] []Entry[T]

// Entry is one key of a Map.
type Entry[T any] struct {
	Key   Text
	Value T
}

// isMap marks Map for the decoder, since a generic type cannot be compared.
func (Map[T]) isMap() {}

// Placed is embedded by structs that want to know where their mapping begins.
type Placed struct {
	At At `yaml:"-"`
}

func (p *Placed) place(at At) { p.At = at }

// FromText is implemented by structs that can also be written as a single text.
type FromText interface {
	FromText(Text)
}

// Noun is implemented by structs that say in messages what they are: "a step".
type Noun interface {
	Noun() string
}
