// Package runbooks holds the runbooks that Fettle is shipped with, a folder an
// adapter, each with its tests beside it (*_test.yaml). They are data: the judge
// checks and compiles them when it starts, and `fettle runbook test` runs their
// tests offline.
package runbooks

import (
	"embed"
	"io/fs"
)

//go:embed */*.yaml
var files embed.FS

// FS returns the runbooks and their tests.
func FS() fs.FS { return files }
