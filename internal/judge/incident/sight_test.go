package incident_test

import (
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
)

// A server that has just taken over is told of a failed service before it is told of
// the full disk under it, which an incident of before is about. That the disk is not
// known yet is not that it has room: it is waited for, half a minute at most.
func TestUnknownAfterARestartIsNotAbsent(t *testing.T) {
	const full = fettle.Subject("filesystem:h1/%2Fsrv")
	usage := fettle.Observation{Subject: full, Host: "host:h1", Probe: "filesystem.usage", Facts: fettle.Facts{
		"type": "ext4", "size_bytes": int64(1e9), "avail_bytes": int64(0), "free_bytes": int64(0), "used_permille": int64(1000), "write_error": "",
		"inodes": int64(1000), "inodes_free": int64(900), "inodes_used_permille": int64(100), "read_only": false, "errors_count": int64(0),
	}, Edges: []fettle.Edge{{From: full, Rel: fettle.RunsOn, To: "host:h1"}}}
	failed := failedUnit()[0]
	failed.Edges = append(failed.Edges, fettle.Edge{From: failed.Subject, Rel: fettle.Uses, To: full})

	before := newDoing(t, usage, failed)
	before.take(0, incident.Input{Observations: before.seen(0)[:1]})
	before.take(time.Second, incident.Input{Observations: before.seen(time.Second)})
	if len(before.intents) != 0 {
		t.Fatalf("on a full disk it was started: %+v", before.intents)
	}

	for _, told := range []bool{true, false} {
		d := newDoing(t, failed)
		d.Restore(before.records, nil)
		for at := time.Minute; at < 3*time.Minute; at += time.Second {
			switch {
			case told && at == time.Minute+20*time.Second:
				d.sees = []fettle.Observation{failed, usage}
			case at < time.Minute+30*time.Second && len(d.intents) > 0:
				t.Fatalf("after %v, with the disk not known, it was started: %+v", at-time.Minute, d.intents)
			}
			d.take(at, incident.Input{Observations: d.seen(at)})
		}
		if started := len(d.intents) > 0; started == told {
			t.Errorf("the disk was told of: %v; it was started: %v", told, started)
			for _, in := range d.Incidents() {
				t.Log(in.Cause, in.State, in.Why, d.story(in))
			}
		}
		if told {
			continue
		}
		if in, _ := d.Incident(d.intents[0].Incident); !strings.Contains(d.story(in), "is not to be absent") {
			t.Errorf("why it waited is not said:%s", d.story(in))
		}
	}
}
