package sshrun

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxInclude is how deep files may include others, as in ssh.
const maxInclude = 16

// maxConfigBytes bounds one configuration file.
const maxConfigBytes = 1 << 20

// Config is what ssh_config files say, in the order in which ssh reads them: the
// first value that applies to a host is its value.
type Config struct {
	lines []configLine
}

// configLine is one setting, with the conditions under which it applies.
type configLine struct {
	file string
	no   int
	key  string // lower case
	args []string
	when []condition // all must hold
}

func (l configLine) at() string { return fmt.Sprintf("%s:%d", l.file, l.no) }

// condition is one Host or Match line.
type condition struct {
	line  configLine
	match bool // Match, else Host
}

// ReadConfig reads ssh's configuration as ssh does: the user's file, then the
// system's. A file that is not there says nothing. With an own file, that is the
// only one (ssh -F).
func ReadConfig(home, own string) (*Config, error) {
	c := &Config{}
	read := func(file, dir string, must bool) error {
		err := c.readFile(file, dir, home, nil, 0)
		if errors.Is(err, fs.ErrNotExist) && !must {
			return nil
		}
		return err
	}
	if own != "" {
		return c, read(own, filepath.Join(home, ".ssh"), true)
	}
	if err := read(filepath.Join(home, ".ssh", "config"), filepath.Join(home, ".ssh"), false); err != nil {
		return nil, err
	}
	return c, read("/etc/ssh/ssh_config", "/etc/ssh", false)
}

// readFile reads one file; what it includes by a relative name is in dir.
func (c *Config) readFile(file, dir, home string, when []condition, depth int) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the ssh configuration: %w", err)
	}
	return c.parse(file, data, when, func(l configLine) error {
		if depth >= maxInclude {
			return fmt.Errorf("%s: files include one another more than %d deep", l.at(), maxInclude)
		}
		for _, pattern := range l.args {
			if after, ok := strings.CutPrefix(pattern, "~/"); ok {
				pattern = filepath.Join(home, after)
			} else if !filepath.IsAbs(pattern) {
				pattern = filepath.Join(dir, pattern)
			}
			files, err := filepath.Glob(pattern)
			if err != nil {
				return fmt.Errorf("%s: %q is no pattern: %w", l.at(), pattern, err)
			}
			for _, f := range files {
				if err := c.readFile(f, dir, home, l.when, depth+1); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// ParseConfig reads the text of one file that includes no other.
func ParseConfig(file string, data []byte) (*Config, error) {
	c := &Config{}
	return c, c.parse(file, data, nil, func(l configLine) error {
		return fmt.Errorf("%s: a file is needed to include others", l.at())
	})
}

func (c *Config) parse(file string, data []byte, outer []condition, include func(configLine) error) error {
	if len(data) > maxConfigBytes {
		return fmt.Errorf("%s has more than %d bytes", file, maxConfigBytes)
	}
	when := outer
	no := 0
	for text := range strings.Lines(string(data)) {
		no++
		l := configLine{file: file, no: no, when: when}
		var err error
		if l.key, l.args, err = splitLine(text); err != nil {
			return fmt.Errorf("%s: %w", l.at(), err)
		}
		if l.key == "" {
			continue
		}
		if len(l.args) == 0 {
			return fmt.Errorf("%s: %s has no value", l.at(), l.key)
		}
		switch l.key {
		case "host", "match":
			when = append(slices.Clip(outer), condition{line: l, match: l.key == "match"})
		case "include":
			if err := include(l); err != nil {
				return err
			}
		default:
			c.lines = append(c.lines, l)
		}
	}
	return nil
}

// splitLine splits a line into its keyword, in lower case, and its arguments:
// "Key value", "Key=value", quotes around what has blanks (ssh_config(5)). An
// empty line or a comment has no keyword.
func splitLine(text string) (key string, args []string, err error) {
	text = strings.Trim(text, " \t\r\n\f")
	if text == "" || text[0] == '#' {
		return "", nil, nil
	}
	end := strings.IndexAny(text, " \t=")
	if end < 0 {
		return strings.ToLower(strings.Trim(text, `"`)), nil, nil
	}
	key = strings.ToLower(strings.Trim(text[:end], `"`))
	rest := strings.TrimLeft(text[end:], " \t")
	rest = strings.TrimLeft(strings.TrimPrefix(rest, "="), " \t")
	var word strings.Builder
	in, quote := false, byte(0)
	for i := 0; i < len(rest); i++ {
		b := rest[i]
		switch {
		case quote == 0 && (b == ' ' || b == '\t'):
			if in {
				args = append(args, word.String())
				word.Reset()
				in = false
			}
			continue
		case quote == 0 && !in && b == '#': // what follows is a comment
			return key, args, nil
		case quote == 0 && (b == '"' || b == '\''):
			quote, in = b, true
			continue
		case b == quote:
			quote = 0
			continue
		case b == '\\' && i+1 < len(rest) && (rest[i+1] == '"' || rest[i+1] == '\'' || rest[i+1] == '\\' || quote == 0 && rest[i+1] == ' '):
			i++
			b = rest[i]
		}
		in = true
		word.WriteByte(b)
	}
	if quote != 0 {
		return "", nil, fmt.Errorf("a quote is not closed")
	}
	if in {
		args = append(args, word.String())
	}
	return key, args, nil
}

// matchList is ssh's list of patterns: one must match, and none with "!" before
// it (ssh_config(5), PATTERNS).
func matchList(patterns []string, name string) bool {
	found := false
	for _, p := range patterns {
		p, not := strings.CutPrefix(p, "!")
		if !wildcard(p, name) {
			continue
		}
		if not {
			return false
		}
		found = true
	}
	return found
}

// wildcard matches * and ? and nothing else, in time that grows with the product
// of the lengths.
func wildcard(pattern, name string) bool {
	star, mark := -1, 0
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p, n = p+1, n+1
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
