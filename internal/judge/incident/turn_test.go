package incident_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"fettle/internal/adapter/systemd"
	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
)

// doing is a lone mind whose intents are kept, for a test that plays the agents.
type doing struct {
	*lone
	intents []incident.Decision
	blind   bool // who is asked to look sees nothing
}

func (d *doing) take(after time.Duration, in incident.Input) {
	d.t.Helper()
	in.At = start.Add(after)
	for _, dec := range d.Take(in) {
		switch dec.Kind {
		case incident.Save:
			d.keep(*dec.Record)
		case incident.Gather:
			if d.blind {
				d.take(after, incident.Input{Gathered: dec.Key})
				continue
			}
			d.take(after, incident.Input{Observations: d.seen(after), Gathered: dec.Key})
		case incident.Intend:
			d.intents = append(d.intents, dec)
		case incident.Call, incident.Recover, incident.Look:
		}
	}
}

func (d *doing) keep(r incident.Record) {
	d.records = slices.DeleteFunc(d.records, func(o incident.Record) bool { return o.ID == r.ID })
	d.records = append(d.records, r)
}

// answer says what became of the last intent.
func (d *doing) answer(after time.Duration, fate fettle.Fate) {
	d.t.Helper()
	if len(d.intents) == 0 {
		d.t.Fatal("nothing was intended")
	}
	key := d.intents[len(d.intents)-1].Key
	d.take(after, incident.Input{Outcome: &fettle.Outcome{Schema: 1, Key: key, Fate: fate}})
}

func newDoing(t *testing.T, sees ...fettle.Observation) *doing {
	t.Helper()
	return &doing{lone: newLone(t, fettle.Automatic, sees...)}
}

func (d *doing) story(in fettle.Incident) string {
	var b strings.Builder
	for _, e := range in.Story {
		b.WriteString("\n" + string(e.Kind) + " " + e.Text)
	}
	return b.String()
}

// becomes gives all observations of a unit another state.
func becomes(sees []fettle.Observation, state string) {
	sees[0].Facts = sees[0].Facts.Clone()
	sees[0].Facts["active_state"], sees[0].Facts["sub_state"] = state, state
}

// A plan whose first step clears its cause goes on to its end, also when server
// and agent are started again before the second was done: what was stopped or
// taken out half-way, nobody else would put back.
func TestPlanGoesOnPastItsClearCause(t *testing.T) {
	before := newDoing(t, failedUnit()...)
	before.take(0, incident.Input{Observations: before.seen(0)})
	r := before.records[0]
	r.Progress = incident.Progress{Phase: incident.PhaseIdle, Rung: 1} // reset-and-start
	r.Plan, r.State = nil, fettle.Open

	d := newDoing(t, failedUnit()...)
	d.Restore([]incident.Record{r}, nil)
	d.take(time.Minute, incident.Input{Observations: d.seen(time.Minute)})
	if len(d.intents) != 1 || d.intents[0].Step.ID != "reset" {
		t.Fatalf("intended: %+v", d.intents)
	}
	becomes(d.sees, "inactive") // which ends the condition
	d.answer(time.Minute+time.Second, fettle.Done)

	again := newDoing(t, d.sees...)
	again.Restore(d.records, nil)
	again.take(2*time.Minute, incident.Input{Observations: again.seen(2 * time.Minute)})
	again.take(2*time.Minute+time.Second, incident.Input{Outcome: &fettle.Outcome{Schema: 1, Key: d.intents[1].Key, Fate: fettle.NeverWillBe}})
	for at := 2*time.Minute + 2*time.Second; at < 4*time.Minute && len(again.intents) == 0; at += time.Second {
		again.take(at, incident.Input{Observations: again.seen(at)})
	}
	if len(again.intents) != 1 || again.intents[0].Step.ID != "start" {
		t.Fatalf("after the restart intended: %+v; %s", again.intents, again.story(again.only()))
	}
}

// What an agent never did is no attempt: the plan stays the one that a person may
// have approved, and the ladder does not run out.
func TestNeverDoneIsNoAttempt(t *testing.T) {
	d := newDoing(t, failedUnit()...)
	d.take(0, incident.Input{Observations: d.seen(0)})
	for n := range 4 {
		if len(d.intents) != n+1 || d.intents[n].Plan != d.intents[0].Plan {
			t.Fatalf("try %d: intended %+v; %s", n+1, d.intents, d.story(d.only()))
		}
		at := time.Duration(n) * 10 * time.Minute
		d.answer(at+time.Second, fettle.NeverWillBe)
		for s := 2 * time.Second; s < time.Minute && len(d.intents) == n+1; s += time.Second {
			d.take(at+s, incident.Input{Observations: d.seen(at + s)})
		}
	}
}

// While a plan is at work on a service, none begins on what runs as that service.
func TestOnePlanAtATime(t *testing.T) {
	d := newDoing(t, failedUnit()...)
	d.take(0, incident.Input{Observations: d.seen(0)})
	if len(d.intents) != 1 {
		t.Fatalf("intended: %+v", d.intents)
	}
	const member = fettle.Subject("etcd-member:sys/a")
	lost := fettle.Observation{
		Subject: member, Host: "host:h1", Probe: "etcd.local",
		Facts: fettle.Facts{"unit_active": false, "unit_state": "failed", "log_state": "missing", "log_lost": true, "damage": "", "standing": "voter", "data_present": false},
		Edges: []fettle.Edge{{From: member, Rel: fettle.PartOf, To: "etcd:sys"}, {From: member, Rel: fettle.RunsOn, To: "host:h1"}, {From: member, Rel: fettle.Uses, To: d.sees[0].Subject}},
	}
	d.sees = append(d.sees, lost)
	d.take(time.Second, incident.Input{Observations: d.seen(time.Second)})
	i := slices.IndexFunc(d.Incidents(), func(in fettle.Incident) bool { return in.Cause.Subject == member })
	if i < 0 {
		t.Fatalf("no incident for the member: %+v", d.Incidents())
	}
	if in := d.Incidents()[i]; in.State != fettle.Held || !strings.Contains(in.Why, "is at work on") || len(d.intents) != 1 {
		t.Errorf("it is %s (%s), intended: %+v", in.State, in.Why, d.intents)
	}
}

// What was ill before a step is not the step's harm, although it is told only
// now, by a machine that was away, or after a restart of everything, when only an
// incident remembers it; what is seen first after it, is.
func TestOnlyWhatIsNewIsHarm(t *testing.T) {
	for _, c := range []struct {
		name       string
		first      time.Duration
		remembered bool
		harm       bool
	}{{"ill before", -time.Minute, false, false}, {"ill since", 2 * time.Second, false, true}, {"ill before a restart", 2 * time.Second, true, false}} {
		t.Run(c.name, func(t *testing.T) {
			d := newDoing(t, failedUnit()...)
			if c.remembered {
				app := fettle.ConditionKey{Code: systemd.UnitFailed, Subject: "unit:h2/app.service"}
				d.Restore([]incident.Record{{Incident: fettle.Incident{Schema: 1, ID: "earlier", State: fettle.Open, Cause: app, Conditions: []fettle.ConditionKey{app}}}}, nil)
			}
			d.take(0, incident.Input{Observations: d.seen(0)})
			db := d.sees[0].Subject
			becomes(d.sees, "active")
			d.answer(time.Second, fettle.Done)
			user := failedUnit()[0] // of another host; it uses what was started
			user.Subject, user.Host = "unit:h2/app.service", "host:h2"
			user.Edges = []fettle.Edge{{From: user.Subject, Rel: fettle.RunsOn, To: "host:h2"}, {From: user.Subject, Rel: fettle.Uses, To: db}}
			user.Asked = start.Add(c.first)
			d.take(2*time.Second, incident.Input{Observations: []fettle.Observation{user}})
			in, _ := d.Incident(d.intents[0].Incident)
			if got := strings.Contains(d.story(in), "new harm"); got != c.harm {
				t.Errorf("harm: %v, want %v:%s", got, c.harm, d.story(in))
			}
		})
	}
}
