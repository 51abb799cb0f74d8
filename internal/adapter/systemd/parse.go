package systemd

import (
	"path"
	"strconv"
	"strings"
)

// mountPoint returns where a mount unit mounts: its name is the path, with '/' as
// '-' and what else must be escaped as \xNN (systemd.unit(5), "String Escaping
// for Inclusion in Unit Names"). It returns false for units of other types and
// for names that are no path.
func mountPoint(unit string) (string, bool) {
	name, ok := strings.CutSuffix(unit, ".mount")
	switch {
	case !ok || name == "":
		return "", false
	case name == "-":
		return "/", true
	}
	var b strings.Builder
	b.WriteByte('/')
	for len(name) > 0 {
		c, n := name[0], 1
		switch {
		case c == '-':
			c = '/'
		case c == '\\':
			if len(name) < 4 || name[1] != 'x' {
				return "", false
			}
			v, err := strconv.ParseUint(name[2:4], 16, 8)
			if err != nil || v == 0 {
				return "", false
			}
			c, n = byte(v), 4
		}
		b.WriteByte(c)
		name = name[n:]
	}
	p := b.String()
	return p, path.Clean(p) == p
}
