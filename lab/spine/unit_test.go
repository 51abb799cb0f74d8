//go:build lab

package spine_test

import (
	"testing"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

const (
	failed     fettle.Code = "systemd.unit_failed"
	notRunning fettle.Code = "systemd.unit_not_running"
	hung       fettle.Code = "systemd.unit_hung"
	loop       fettle.Code = "systemd.restart_loop"
	stopped    fettle.Code = "systemd.unit_stopped"
	masked     fettle.Code = "systemd.unit_masked"
)

func key(code fettle.Code, s fettle.Subject) fettle.ConditionKey {
	return fettle.ConditionKey{Code: code, Subject: s}
}

// A service without a restart policy of its own is killed, on a host with only
// an agent and on the host of the server.
func TestLabUnitFailed(t *testing.T) {
	f := start(t, 2, spine.Options{})
	var causes []fettle.ConditionKey
	hosts := []*lab.Host{f.Host(2), f.Host(1)}
	for _, h := range hosts {
		f.Service(h, "web.service", "ExecStart=/bin/sleep infinity")
	}
	for _, h := range hosts {
		before, old := f.Snapshot(), f.MainPID(h, "web.service")
		f.Shell(h, "systemctl kill -s KILL web.service")
		in := f.WaitFor(failed, f.Unit(h, "web.service"), fettle.Resolved)
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

// A service that fails at every start has been started often enough by its
// manager: Fettle reports it and starts nothing. Where it was only the start
// limit that was in the way, its count is forgotten and the service started.
func TestLabUnitStartLimit(t *testing.T) {
	f := start(t, 2, spine.Options{})
	h := f.Host(2)
	f.UnitFile(h, "loop.service", `[Unit]
StartLimitIntervalSec=60
StartLimitBurst=5
[Service]
ExecStart=/bin/sh -c 'test -e /srv/ready && exec sleep infinity'
Restart=on-failure
`)
	f.UnitFile(h, "web.service", `[Unit]
StartLimitIntervalSec=3600
StartLimitBurst=1
[Service]
ExecStart=/bin/sleep infinity
`)
	f.Shell(h, "systemctl start web.service loop.service || true")
	in := f.WaitFor(loop, f.Unit(h, "loop.service"), fettle.Escalated)
	spine.Until(t, "the manager to have given it up", func() bool { return f.Property(h, "loop.service", "ActiveState") == "failed" })

	f.Shell(h, "systemctl kill -s KILL web.service")
	mended := f.WaitFor(failed, f.Unit(h, "web.service"), fettle.Resolved)
	f.CheckStory(mended, spine.Story{Rung: "reset-and-start", Begun: []string{"start", "reset", "start"}, Done: []string{"reset", "start"}, Failed: 1})
	f.CheckStarts(h, "web.service", 2)

	// The server has gone on since, so what it was going to do about the loop it
	// would have done.
	f.CheckUntouched(f.Incident(in.ID))
	f.CheckStarts(h, "loop.service", 5)
	f.CheckOnly(in.Cause, mended.Cause)
}

// A service is enabled and was never started.
func TestLabUnitNotRunning(t *testing.T) {
	f := start(t, 2, spine.Options{})
	h := f.Host(2)
	before := f.Snapshot()
	f.UnitFile(h, "web.service", "[Service]\nExecStart=/bin/sleep infinity\nRestart=on-failure\n[Install]\nWantedBy=multi-user.target\n")
	f.Shell(h, "systemctl enable web.service")
	in := f.WaitFor(notRunning, f.Unit(h, "web.service"), fettle.Resolved)
	f.CheckMended(in, "start", "start")
	if f.MainPID(h, "web.service") == 0 {
		t.Error("it does not run")
	}
	f.CheckStarts(h, "web.service", 1)
	f.CheckUnchanged(before, "h2 web.service")
	f.CheckOnly(in.Cause)
}

// A server is stopped by a signal: active, and answering nothing. A restart takes
// what it holds in memory, so a person is asked.
func TestLabUnitHung(t *testing.T) {
	f := start(t, 2, spine.Options{Adapters: map[string]map[string]string{
		"h2": {"systemd.yaml": "health:\n  - {unit: web.service, http: \"http://127.0.0.1:8080/\"}\n"},
	}})
	h := f.Host(2)
	const answers = "curl -sf -m 2 -o /dev/null http://127.0.0.1:8080/"
	f.Service(h, "web.service", "ExecStart=/usr/bin/python3 -m http.server --bind 127.0.0.1 --directory /etc/fettle 8080")
	spine.Until(t, "the server to answer", func() bool { return f.Try(h, answers) })
	before, old := f.Snapshot(), f.MainPID(h, "web.service")

	f.Shell(h, "systemctl kill -s STOP web.service")
	asked := f.WaitFor(hung, f.Unit(h, "web.service"), fettle.Proposed)
	f.CheckUntouched(asked)
	if f.MainPID(h, "web.service") != old {
		t.Error("it was restarted before anybody agreed")
	}
	f.Approve(asked.ID)
	in := f.WaitFor(hung, f.Unit(h, "web.service"), fettle.Resolved)
	f.CheckMended(in, "restart", "restart")
	if !f.Try(h, answers) {
		t.Error("it does not answer")
	}
	f.CheckStarts(h, "web.service", 2)
	f.CheckUnchanged(before, "h2 web.service")
	f.CheckOnly(in.Cause)
}
