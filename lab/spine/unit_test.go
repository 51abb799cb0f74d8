//go:build lab

package spine_test

import (
	"testing"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

// A service without a restart policy of its own is killed, on a host with only
// an agent and on the host of the server.
func TestLabUnitFailed(t *testing.T) {
	f := spine.Start(t, 2, spine.Options{Binary: binary})
	var causes []fettle.ConditionKey
	for _, h := range []*lab.Host{f.Host(2), f.Host(1)} {
		f.Service(h, "web.service", "ExecStart=/bin/sleep infinity")
	}
	for _, h := range []*lab.Host{f.Host(2), f.Host(1)} {
		before := f.Snapshot()
		old := f.MainPID(h, "web.service")
		f.Shell(h, "systemctl kill -s KILL web.service")
		in := f.WaitFor("systemd.unit_failed", f.Unit(h, "web.service"), fettle.Resolved)
		f.CheckMended(in, "start", "start")
		if pid := f.MainPID(h, "web.service"); pid == 0 || pid == old {
			t.Errorf("%s: main process %d, was %d", h.Name(), pid, old)
		}
		f.CheckStarts(h, "web.service", 2) // mine and the repair's
		f.CheckUnchanged(before, h.Name()+" web.service")
		causes = append(causes, in.Cause)
	}
	f.CheckOnly(causes...)
}
