// Package packaging is the units under which Fettle runs on a host, and the accounts that
// they need, as data. It installs nothing: `fettle install` does. The units are written
// to be read by administrators; each says why it has what it has.
package packaging

import (
	"embed"
	"io/fs"
)

//go:embed *.service *.conf
var files embed.FS

// FS has the units, NAME.service, and fettle.conf for systemd-sysusers(8). The binary is
// named /usr/bin/fettle in them.
func FS() fs.FS { return files }
