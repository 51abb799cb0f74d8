package machine

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Assignment is one KEY=VALUE of an environment file, with its place in it:
// from the first byte of the key to the end of the value, line end excluded.
type Assignment struct {
	Key, Value string
	Start, End int
}

// ParseEnvironment reads what systemd reads from EnvironmentFile=: comments with
// # and ;, quotes, escapes and continued lines (systemd.exec(5); the rules are
// those of systemd 254 and later, where a comment is not continued). Lines
// without "=" are left out, as systemd does. A later assignment of a key
// overrides an earlier one; both are returned. Bad keys and text that is not
// UTF-8 are errors with their line.
func ParseEnvironment(data []byte) ([]Assignment, error) {
	p := envParser{data: data}
	if err := p.parse(); err != nil {
		return nil, err
	}
	return p.out, nil
}

// SetEnvironment returns the file with key set to value: the last assignment of
// it is replaced where it stands, or a new line is added at the end. Everything
// else stays as it is.
func SetEnvironment(data []byte, key, value string) ([]byte, error) {
	if !envKey(key) || !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
		return nil, fmt.Errorf("environment file: cannot set %q to %q: want a key of letters, digits and _, and UTF-8 text", key, value)
	}
	all, err := ParseEnvironment(data)
	if err != nil {
		return nil, err
	}
	line := key + "=" + quoteEnvironment(value)
	out := string(data)
	if i := lastOf(all, key); i >= 0 {
		out = out[:all[i].Start] + line + out[all[i].End:]
	} else {
		if out != "" && !strings.HasSuffix(out, "\n") {
			out += "\n"
		}
		out += line + "\n"
	}
	// A file that ends in an open quote or a backslash would swallow the line.
	again, err := ParseEnvironment([]byte(out))
	if i := lastOf(again, key); err != nil || i < 0 || again[i].Value != value {
		return nil, fmt.Errorf("environment file: it ends in an open quote or a backslash, so %s cannot be set (close the quote)", key)
	}
	return []byte(out), nil
}

// lastOf finds the assignment of key that counts, -1 when there is none.
func lastOf(all []Assignment, key string) int {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Key == key {
			return i
		}
	}
	return -1
}

func quoteEnvironment(v string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", `$`, `\$`).Replace(v) + `"`
}

func envKey(k string) bool {
	for i, r := range k {
		if r != '_' && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return k != ""
}

// envParser is systemd's state machine (src/basic/env-file.c), one state a method.
type envParser struct {
	data  []byte
	at    int
	line  int
	start int
	key   []byte
	value []byte
	solid int // length of value without trailing blanks that are not quoted
	out   []Assignment
}

func newline(c byte) bool { return c == '\n' || c == '\r' }
func blank(c byte) bool   { return c == ' ' || c == '\t' || newline(c) }

func (p *envParser) parse() error {
	p.line = 1
	for p.at < len(p.data) {
		switch c := p.data[p.at]; {
		case c == '#' || c == ';':
			p.skipLine()
		case blank(c):
			p.next()
		default:
			if !p.readKey() {
				continue
			}
			line := p.line
			end := p.readValue()
			if err := p.push(line, end); err != nil {
				return err
			}
		}
	}
	return nil
}

// next takes one byte.
func (p *envParser) next() byte {
	c := p.data[p.at]
	p.at++
	if c == '\n' {
		p.line++
	}
	return c
}

func (p *envParser) skipLine() {
	for p.at < len(p.data) && !newline(p.next()) {
	}
}

// readKey takes up to "="; false when the line has none.
func (p *envParser) readKey() bool {
	p.start, p.key = p.at, p.key[:0]
	for p.at < len(p.data) {
		c := p.next()
		if newline(c) {
			return false
		}
		if c == '=' {
			return true
		}
		p.key = append(p.key, c)
	}
	return false
}

// readValue takes the value and its line end, and returns where the value ends.
func (p *envParser) readValue() (end int) {
	p.value, p.solid = p.value[:0], 0
	fresh := true // before the value, or right after a quoted part of it
	for p.at < len(p.data) {
		end = p.at
		c := p.next()
		switch {
		case newline(c):
			return end
		case fresh && c == '\'':
			p.quoted('\'')
		case fresh && c == '"':
			p.quoted('"')
		case c == '\\':
			fresh = false
			if p.at < len(p.data) {
				if c := p.next(); !newline(c) {
					p.value = append(p.value, c)
				}
			}
			p.solid = len(p.value)
		case fresh && blank(c):
		default:
			fresh = false
			p.value = append(p.value, c)
			if !blank(c) {
				p.solid = len(p.value)
			}
		}
	}
	return len(p.data)
}

// quoted takes up to the closing quote, or the end of the file.
func (p *envParser) quoted(quote byte) {
	defer func() { p.solid = len(p.value) }()
	for p.at < len(p.data) {
		c := p.next()
		switch {
		case c == quote:
			return
		case quote == '"' && c == '\\' && p.at < len(p.data):
			switch e := p.next(); {
			case strings.IndexByte("\"\\`$", e) >= 0:
				p.value = append(p.value, e)
			case e != '\n':
				p.value = append(p.value, '\\', e)
			}
		default:
			p.value = append(p.value, c)
		}
	}
}

func (p *envParser) push(line, end int) error {
	key := strings.TrimRight(string(p.key), " \t")
	value := string(p.value[:p.solid])
	if !envKey(key) {
		return fmt.Errorf("environment file, line %d: %q is no name of a variable: want letters, digits and _", line, key)
	}
	if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
		return fmt.Errorf("environment file, line %d: the value of %s is not UTF-8 text", line, key)
	}
	p.out = append(p.out, Assignment{Key: key, Value: value, Start: p.start, End: end})
	return nil
}
