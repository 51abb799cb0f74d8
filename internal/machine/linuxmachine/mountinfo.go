package linuxmachine

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fettle/internal/machine"
)

// parseMountinfo reads proc_pid_mountinfo(5):
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//
// Space, tab, newline and backslash stand as octal escapes. Errors of a mount is
// -1: the file does not say.
func parseMountinfo(data []byte) ([]machine.Mount, error) {
	var out []machine.Mount
	number := 0
	for line := range bytes.Lines(data) {
		number++
		text := strings.TrimSuffix(string(line), "\n")
		if text == "" {
			continue
		}
		m, err := parseMount(text)
		if err != nil {
			return nil, fmt.Errorf("mountinfo, line %d: %w in %q", number, err, text)
		}
		out = append(out, m)
	}
	return out, nil
}

func parseMount(line string) (machine.Mount, error) {
	first, second, ok := strings.Cut(line, " - ")
	if !ok {
		return machine.Mount{}, fmt.Errorf("no separator")
	}
	a, b := strings.Split(first, " "), strings.Split(second, " ")
	if len(a) < 6 || len(b) < 2 {
		return machine.Mount{}, fmt.Errorf("too few fields")
	}
	id, err := strconv.Atoi(a[0])
	if err != nil || id < 0 {
		return machine.Mount{}, fmt.Errorf("bad mount ID %q", a[0])
	}
	major, minor, ok := strings.Cut(a[2], ":")
	ma, err1 := strconv.ParseUint(major, 10, 32)
	mi, err2 := strconv.ParseUint(minor, 10, 32)
	if !ok || err1 != nil || err2 != nil {
		return machine.Mount{}, fmt.Errorf("bad device %q", a[2])
	}
	m := machine.Mount{
		ID: id, Root: unescape(a[3]), Point: unescape(a[4]), Options: options(a[5]),
		Type: unescape(b[0]), Source: unescape(b[1]),
		Device: unix.Mkdev(uint32(ma), uint32(mi)), Errors: -1,
	}
	if len(b) > 2 { // an empty source makes two spaces: the options are the last field
		m.SuperOptions = options(b[len(b)-1])
	}
	if !strings.HasPrefix(m.Point, "/") {
		return machine.Mount{}, fmt.Errorf("bad mount point %q", m.Point)
	}
	return m, nil
}

func options(field string) []string {
	if field == "" {
		return nil
	}
	list := strings.Split(field, ",")
	for i, o := range list {
		list[i] = unescape(o)
	}
	return list
}

// unescape replaces \ooo by the byte it stands for. Anything else stays.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
