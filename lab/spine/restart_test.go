//go:build lab

package spine_test

import (
	"testing"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

// kill ends the server and its agent with SIGKILL, as a crash does, and starts
// them again.
func kill(f *spine.Fleet, h *lab.Host) {
	f.Shell(h, `systemctl kill -s KILL `+spine.UpUnit+`
		while systemctl is-active -q `+spine.UpUnit+`; do :; done
		systemctl start `+spine.UpUnit)
	f.WaitReady()
}

// A crash in the middle of an incident: what waits for a person waits on, under
// the same name and with the same plan; what was begun is ended, and not begun
// again.
func TestLabRestart(t *testing.T) {
	f := start(t, 2, spine.Options{Policy: `autonomy:
  - {runbook: "*", rung: "*", subject: "unit:*/asks.service", level: approve}
`})
	server, h := f.Host(1), f.Host(2)
	f.Service(h, "asks.service", "ExecStart=/bin/sleep infinity")
	f.Service(h, "web.service", "ExecStart=/bin/sleep infinity")

	f.Shell(h, "systemctl kill -s KILL asks.service")
	asked := f.WaitFor(failed, f.Unit(h, "asks.service"), fettle.Proposed)
	f.Shell(h, "systemctl kill -s KILL web.service")
	spine.Until(t, "Fettle to start it", func() bool { return f.Property(h, "web.service", "ActiveState") == "active" })
	begun := f.WaitIncident("the incident of web.service", spine.About(failed, f.Unit(h, "web.service")))
	kill(f, server)

	again := f.WaitIncident("the incident to wait for a person again", func(in fettle.Incident) bool { return in.ID == asked.ID && in.State == fettle.Proposed })
	if again.Plan == nil || again.Plan.Hash != asked.Plan.Hash || !again.Opened.Equal(asked.Opened) {
		t.Errorf("after the crash it is %+v, was %+v", again, asked)
	}
	f.Approve(asked.ID)
	f.CheckMended(f.WaitFor(failed, f.Unit(h, "asks.service"), fettle.Resolved), "start", "start")
	f.CheckStarts(h, "asks.service", 2)

	ended := f.WaitFor(failed, f.Unit(h, "web.service"), fettle.Resolved)
	f.CheckMended(ended, "start", "start")
	if ended.ID != begun.ID {
		t.Errorf("the crash made a new incident %s of %s", ended.ID, begun.ID)
	}
	f.CheckStarts(h, "web.service", 2)
	f.CheckOnly(asked.Cause, begun.Cause)
}
