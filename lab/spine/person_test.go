//go:build lab

package spine_test

import (
	"testing"

	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

// goOn has something else mended on a host: whatever Fettle was going to do
// about what happened there before, it has done by then.
func goOn(f *spine.Fleet, h *lab.Host, name string) fettle.ConditionKey {
	f.Service(h, name, "ExecStart=/bin/sleep infinity")
	f.Shell(h, "systemctl kill -s KILL "+name)
	return f.WaitFor(failed, f.Unit(h, name), fettle.Resolved).Cause
}

// What a person stops or masks stays as it is (S11).
func TestLabUnitStoppedByPerson(t *testing.T) {
	f := start(t, 2, spine.Options{})
	h := f.Host(2)
	f.Service(h, "web.service", "ExecStart=/bin/sleep infinity", "Restart=always")
	f.Service(h, "mail.service", "ExecStart=/bin/sleep infinity", "Restart=always")
	f.Shell(h, "systemctl enable web.service mail.service")
	before := f.Snapshot()

	f.Shell(h, "systemctl stop web.service; systemctl mask --now mail.service")
	web := f.WaitFor(stopped, f.Unit(h, "web.service"), fettle.Held)
	mail := f.WaitFor(masked, f.Unit(h, "mail.service"), fettle.Held)
	other := goOn(f, h, "other.service")
	for unit, id := range map[string]string{"web.service": web.ID, "mail.service": mail.ID} {
		f.CheckUntouched(f.Incident(id))
		f.CheckStarts(h, unit, 1)
		if state := f.Property(h, unit, "ActiveState"); state != "inactive" {
			t.Errorf("%s is %s", unit, state)
		}
	}
	f.CheckUnchanged(before, "h2 web.service", "h2 mail.service", "h2 other.service")

	// They are looked after again when their owner wants them to run.
	f.Shell(h, "systemctl unmask mail.service")
	f.WaitFor(masked, f.Unit(h, "mail.service"), fettle.Resolved)
	idle := f.WaitFor(stopped, f.Unit(h, "mail.service"), fettle.Held) // no longer masked, and not yet meant to run
	f.Shell(h, "systemctl start web.service mail.service")
	f.WaitFor(stopped, f.Unit(h, "web.service"), fettle.Resolved)
	f.CheckUntouched(f.WaitFor(stopped, f.Unit(h, "mail.service"), fettle.Resolved))
	f.CheckOnly(web.Cause, mail.Cause, idle.Cause, other)
}

// A person takes a hand while an incident is under way: by masking the unit
// before an approval, by starting it before Fettle does, and by stopping it after
// Fettle started it.
func TestLabUnitOfAPersonDuringIncident(t *testing.T) {
	f := start(t, 1, spine.Options{Policy: `autonomy:
  - {runbook: "*", rung: "*", subject: "unit:*/asks.service", level: approve}
`})
	h := f.Host(1)
	asks, stops := f.Unit(h, "asks.service"), f.Unit(h, "stops.service")
	f.Service(h, "asks.service", "ExecStart=/bin/sleep infinity")
	f.Service(h, "stops.service", "ExecStart=/bin/sleep infinity")

	f.Shell(h, "systemctl kill -s KILL asks.service")
	in := f.WaitFor(failed, asks, fettle.Proposed)
	f.Shell(h, "systemctl mask asks.service")
	hold := f.WaitFor(masked, asks, fettle.Held)
	f.TryApprove(in.ID)
	other := goOn(f, h, "other.service")
	f.CheckUntouched(f.Incident(in.ID))
	if state := f.Property(h, "asks.service", "ActiveState"); state != "failed" {
		t.Errorf("masked, and %s", state)
	}
	f.Shell(h, "systemctl unmask asks.service; systemctl start asks.service")
	f.WaitFor(masked, asks, fettle.Resolved)
	in = f.WaitIncident("the incident to end", func(x fettle.Incident) bool { return x.ID == in.ID && x.State.Ended() })
	f.CheckUntouched(in)
	f.CheckStarts(h, "asks.service", 2) // both mine

	f.Shell(h, "systemctl kill -s KILL stops.service")
	spine.Until(t, "Fettle to start it", func() bool { return f.Property(h, "stops.service", "ActiveState") == "active" })
	f.Shell(h, "systemctl stop stops.service")
	mine := f.WaitFor(stopped, stops, fettle.Held)
	last := goOn(f, h, "last.service")
	broken := f.WaitIncident("the repair to end", func(x fettle.Incident) bool { return x.Cause == key(failed, stops) && x.State.Ended() })
	f.CheckUntouched(f.Incident(mine.ID))
	f.CheckStarts(h, "stops.service", 2) // mine and the repair's: not started again
	if state := f.Property(h, "stops.service", "ActiveState"); state != "inactive" {
		t.Errorf("a person stopped it, and it is %s", state)
	}
	f.CheckOnly(in.Cause, hold.Cause, other, broken.Cause, mine.Cause, last)
}
