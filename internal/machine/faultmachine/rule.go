package faultmachine

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Rule says which calls go wrong, and how.
type Rule struct {
	Op     string // pattern of Operations
	Target string // pattern; "" matches every target
	Effect Effect
	After  int // calls that match and pass first
	Times  int // how often it fires; 0: always
}

// Effect is what becomes of a call. Exactly one field is set.
type Effect struct {
	Errno       syscall.Errno // it fails and nothing is done
	Unsupported bool          // likewise, with fettle.ErrNotSupported
	Hang        bool          // no answer until the context ends; nothing is done
	Delay       time.Duration // it is done after this
	Lost        bool          // it is done, and the answer is machine.ErrLost
}

// Operations lists what a rule can name. The operations of a watch (services.watch,
// filesystems.watchmounts) count each thing that is told, not the call: an error
// ends the watch there, "lost" drops what would have been told. file.* are the
// calls on an opened file.
func Operations() []string {
	return []string{
		"files.read", "files.stat", "files.readdir", "files.write", "files.rename", "files.mkdir", "files.chown",
		"files.remove", "files.open", "files.create", "file.read", "file.write", "file.sync", "file.close",
		"commands.run",
		"services.units", "services.unit", "services.watch", "services.start", "services.stop", "services.restart",
		"services.reload", "services.resetfailed", "services.kill", "services.daemonreload", "services.log",
		"filesystems.mounts", "filesystems.usage", "filesystems.watchmounts", "filesystems.checkwrite",
		"processes.list", "processes.deletedopen", "processes.signal",
	}
}

// String is the rule's text, which Parse reads.
func (r Rule) String() string {
	s := r.Op
	if r.Target != "" {
		s += " " + quote(r.Target)
	}
	s += ": " + r.Effect.String()
	if r.After > 0 {
		s += " after " + strconv.Itoa(r.After)
	}
	if r.Times > 0 {
		s += " times " + strconv.Itoa(r.Times)
	}
	return s
}

// String is the effect's text.
func (e Effect) String() string {
	switch {
	case e.Unsupported:
		return "unsupported"
	case e.Hang:
		return "hang"
	case e.Lost:
		return "lost"
	case e.Errno != 0:
		return unix.ErrnoName(e.Errno)
	}
	return "delay " + e.Delay.String()
}

// MarshalText writes String.
func (r Rule) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is Parse.
func (r *Rule) UnmarshalText(text []byte) (err error) {
	*r, err = Parse(string(text))
	return err
}

// quote writes a target that would not read back as it is in quotes.
func quote(target string) string {
	if strings.ContainsFunc(target, func(r rune) bool { return r <= ' ' || r == '"' || r == ':' || r == 0x7f }) || !strconv.CanBackquote(target) {
		return strconv.Quote(target)
	}
	return target
}

// Parse reads one rule.
func Parse(text string) (Rule, error) {
	bad := func(format string, args ...any) (Rule, error) {
		return Rule{}, fmt.Errorf("fault rule %q: %s", text, fmt.Sprintf(format, args...))
	}
	var r Rule
	rest := strings.TrimSpace(text)
	end := strings.IndexAny(rest, " \t:")
	if end < 0 {
		return bad(`want an operation, a target and an effect, for example "files.write /etc/x: ENOSPC"`)
	}
	r.Op, rest = rest[:end], strings.TrimLeft(rest[end:], " \t")
	if !slices.ContainsFunc(Operations(), func(op string) bool { ok, err := path.Match(r.Op, op); return ok && err == nil }) {
		return bad("no operation is called %q; there are %s", r.Op, strings.Join(Operations(), ", "))
	}
	if !strings.HasPrefix(rest, ":") {
		var err error
		if r.Target, rest, err = cutTarget(rest); err != nil {
			return bad("%v", err)
		}
	}
	rest, ok := strings.CutPrefix(rest, ":")
	if !ok {
		return bad(`a ":" and an effect must follow the target`)
	}
	words := strings.Fields(rest)
	if len(words) == 0 {
		return bad("no effect; want an errno such as EIO, hang, delay 1s, lost or unsupported")
	}
	var err error
	if r.Effect, words, err = parseEffect(words); err != nil {
		return bad("%v", err)
	}
	for len(words) > 0 {
		if len(words) == 1 {
			return bad(`%q is left over; want "after N" or "times N"`, words[0])
		}
		n, err := strconv.Atoi(words[1])
		if err != nil || n < 1 {
			return bad("%q after %q is no number above 0", words[1], words[0])
		}
		switch {
		case words[0] == "after" && r.After == 0:
			r.After = n
		case words[0] == "times" && r.Times == 0:
			r.Times = n
		default:
			return bad(`%q is left over; want "after N" or "times N", each once`, words[0])
		}
		words = words[2:]
	}
	return r, nil
}

// cutTarget takes the target, quoted or not, off the front.
func cutTarget(s string) (target, rest string, err error) {
	if strings.HasPrefix(s, `"`) {
		quoted, err := strconv.QuotedPrefix(s)
		if err != nil {
			return "", "", fmt.Errorf("the target's quotes are not closed")
		}
		if target, err = strconv.Unquote(quoted); err != nil || target == "" {
			return "", "", fmt.Errorf("bad target %s", quoted)
		}
		rest = s[len(quoted):]
	} else {
		end := strings.IndexAny(s, " \t:")
		if end < 0 {
			end = len(s)
		}
		target, rest = s[:end], s[end:]
	}
	if _, err := path.Match(target, ""); err != nil {
		return "", "", fmt.Errorf("bad pattern %q; use *, ? and [a-z] as in path.Match", target)
	}
	return target, strings.TrimLeft(rest, " \t"), nil
}

func parseEffect(words []string) (Effect, []string, error) {
	switch words[0] {
	case "hang":
		return Effect{Hang: true}, words[1:], nil
	case "lost":
		return Effect{Lost: true}, words[1:], nil
	case "unsupported":
		return Effect{Unsupported: true}, words[1:], nil
	case "delay":
		if len(words) < 2 {
			return Effect{}, nil, fmt.Errorf("how long is the delay? for example delay 50ms")
		}
		d, err := time.ParseDuration(words[1])
		if err != nil || d <= 0 {
			return Effect{}, nil, fmt.Errorf("bad delay %q; for example 50ms", words[1])
		}
		return Effect{Delay: d}, words[2:], nil
	}
	for e := syscall.Errno(1); e <= lastErrno; e++ {
		if unix.ErrnoName(e) == words[0] {
			return Effect{Errno: e}, words[1:], nil
		}
	}
	return Effect{}, nil, fmt.Errorf("no effect is called %q; want an errno such as EIO, hang, delay 1s, lost or unsupported", words[0])
}

// lastErrno is the highest that Linux has, errno(3).
const lastErrno = syscall.Errno(133)

// ParseRules reads one rule a line; empty lines and lines that begin with # are
// passed over.
func ParseRules(text string) ([]Rule, error) {
	var out []Rule
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		r, err := Parse(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		out = append(out, r)
	}
	return out, nil
}
