//go:build lab && skew

package spine_test

import (
	"os"
	"testing"

	"fettle/internal/fettle"
	"fettle/lab/spine"
)

// A server works with agents of the release before it, and one of the release before
// with agents of this one: a service is started, a plan that a person approves is
// done, and the log is one chain. `make skew-test` builds the older binary.
func TestLabSkew(t *testing.T) {
	older := os.Getenv("FETTLE_OLDER")
	if older == "" {
		t.Fatal("FETTLE_OLDER names no binary of an older version (see `make skew-test`)")
	}
	for name, pair := range map[string][2]string{"older agents": {binary, older}, "older server": {older, binary}} {
		t.Run(name, func(t *testing.T) {
			f := spine.Start(t, 3, spine.Options{Binary: pair[0], Others: pair[1], Policy: `autonomy:
  - {runbook: "*", rung: "*", subject: "unit:*/asks.service", level: approve}
`})
			h := f.Host(2)
			f.Service(h, "asks.service", "ExecStart=/bin/sleep infinity")
			f.Service(h, "web.service", "ExecStart=/bin/sleep infinity")
			f.Shell(h, "systemctl kill -s KILL web.service")
			f.CheckMended(f.WaitFor(failed, f.Unit(h, "web.service"), fettle.Resolved), "start", "start")
			f.Shell(h, "systemctl kill -s KILL asks.service")
			f.Approve(f.WaitFor(failed, f.Unit(h, "asks.service"), fettle.Proposed).ID)
			f.CheckMended(f.WaitFor(failed, f.Unit(h, "asks.service"), fettle.Resolved), "start", "start")
			f.CheckStarts(h, "web.service", 2)
			f.CheckStarts(h, "asks.service", 2)
			f.Shell(f.Host(1), spine.Program+" audit verify")
		})
	}
}
