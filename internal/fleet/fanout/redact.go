package fanout

import (
	"regexp"
	"strings"
)

const hidden = "[redacted]"

var (
	// words are names after which a secret stands.
	words = `(?:password|passwd|passphrase|pwd|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|credentials?|authorization)`
	// assigned: PGPASSWORD=x, --password=x, "token": "x", Authorization: Bearer x.
	assigned = regexp.MustCompile(`(?i)([\w.-]*` + words + `["']?\s*[=:]\s*["']?(?:bearer\s+|basic\s+)?)[^\s"'&;|]+`)
	// flagged: --password x inside of one argument, as in sh -c.
	flagged = regexp.MustCompile(`(?i)(--?[\w-]*` + words + `\s+)[^\s"'&;|-][^\s"'&;|]*`)
	// userinfo: postgres://user:x@host.
	userinfo = regexp.MustCompile(`([a-zA-Z][\w+.-]*://[^\s:/@]*:)[^\s/@]+@`)
	keyBlock = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)`)
	// flag is an argument whose next is a secret.
	flag = regexp.MustCompile(`(?i)^--?[\w-]*` + words + `$`)
)

// Redact takes what looks like a secret out of a command before it is written
// down (S14): values of password, token and the like, passwords in addresses,
// private keys. It knows common forms, not all: a secret does not belong on a
// command line.
func Redact(argv []string) []string {
	out := make([]string, len(argv))
	for i, arg := range argv {
		if i > 0 && flag.MatchString(argv[i-1]) && !strings.HasPrefix(arg, "-") {
			out[i] = hidden
			continue
		}
		arg = keyBlock.ReplaceAllString(arg, hidden)
		arg = userinfo.ReplaceAllString(arg, "${1}"+hidden+"@")
		arg = assigned.ReplaceAllString(arg, "${1}"+hidden)
		out[i] = flagged.ReplaceAllString(arg, "${1}"+hidden)
	}
	return out
}
