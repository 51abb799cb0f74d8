package incident_test

import (
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
)

// An incident whose plan failed, and whose cause is clear nevertheless, says what
// failed: that nothing was done and that something was left half-way are two things.
func TestClearAfterAFailureSaysSo(t *testing.T) {
	before := newLone(t, fettle.Approve, failedUnit()...)
	before.take(0, incident.Input{Observations: before.seen(0)})
	const why = "the learner never caught up"
	for _, c := range []struct {
		name   string
		change func(*incident.Record)
		want   string
	}{
		{"nothing was done", func(*incident.Record) {}, "it cleared by itself"},
		{"what was tried failed", func(r *incident.Record) {
			r.Story = append(r.Story, fettle.Event{Kind: fettle.EvFailed, Text: why})
		}, why},
		{"a forward-only plan stopped half-way", func(r *incident.Record) {
			r.Progress.Done, r.Progress.Step, r.Progress.Mine = []incident.DoneStep{{Step: r.Plan.Steps[0]}}, 1, true
			r.Story = append(r.Story, fettle.Event{Kind: fettle.EvFailed, Text: why})
		}, why},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := before.records[0]
			c.change(&r)
			well := failedUnit()
			well[0].Facts["active_state"], well[0].Facts["sub_state"] = "active", "running"
			l := newLone(t, fettle.Approve, well...)
			l.Restore([]incident.Record{r}, nil)
			for at := time.Minute; at < 3*time.Minute; at += time.Second {
				l.take(at, incident.Input{Observations: l.seen(at)})
			}
			in := l.only()
			last := in.Story[len(in.Story)-1]
			if in.State != fettle.Resolved || !strings.Contains(in.Why, c.want) || last.Kind != fettle.EvResolved || !strings.Contains(last.Text, c.want) {
				t.Errorf("it is %s (%s), and its story ends with %s %q", in.State, in.Why, last.Kind, last.Text)
			}
		})
	}
}
