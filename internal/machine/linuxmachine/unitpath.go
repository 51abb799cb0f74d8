package linuxmachine

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"
)

// unitPath is the object of a unit: its name with every byte but letters and
// digits, and a digit in front, as _xx (sd_bus_path_encode(3)).
func unitPath(name string) dbus.ObjectPath {
	var b strings.Builder
	b.WriteString(unitPrefix)
	for i := range len(name) {
		c := name[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 0 && c >= '0' && c <= '9' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	if name == "" {
		b.WriteByte('_')
	}
	return dbus.ObjectPath(b.String())
}

// unitName is the reverse of unitPath, "" for what is no unit's object.
func unitName(path dbus.ObjectPath) string {
	label, ok := strings.CutPrefix(string(path), unitPrefix)
	if !ok || label == "_" {
		return ""
	}
	var b strings.Builder
	for i := 0; i < len(label); i++ {
		if label[i] == '_' && i+2 < len(label) {
			if n, err := strconv.ParseUint(label[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 2
				continue
			}
		}
		b.WriteByte(label[i])
	}
	return b.String()
}
