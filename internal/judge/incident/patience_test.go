package incident_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"fettle/internal/adapter/etcd"
	"fettle/internal/adapter/filesystem"
	"fettle/internal/adapter/firewall"
	"fettle/internal/adapter/systemd"
	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/incident"
	"fettle/internal/judge/runbook"
	"fettle/runbooks"
)

var start = time.Unix(1_800_000_000, 0)

// lone is a mind, and what it decided.
type lone struct {
	t *testing.T
	*incident.Mind
	calls   []string
	records []incident.Record
	sees    []fettle.Observation // what every look finds
}

func newLone(t *testing.T, level fettle.Level, sees ...fettle.Observation) *lone {
	t.Helper()
	m, err := incident.New(incident.Options{
		Catalogues: []fettle.Catalogue{etcd.Catalogue(), filesystem.Catalogue(), firewall.Catalogue(), systemd.Catalogue()},
		Policy:     fettle.Policy{Rules: []fettle.PolicyRule{{Runbook: "*", Rung: "*", Subject: "*", Level: level}}},
		Books: func(env *expr.Env, cats []fettle.Catalogue) (*runbook.Set, error) {
			return runbook.Load(runbooks.FS(), env, cats)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &lone{t: t, Mind: m, sees: sees}
}

// take feeds an input and carries out what follows: looks find what they find at
// once, and nothing is ever done.
func (l *lone) take(after time.Duration, in incident.Input) {
	l.t.Helper()
	in.At = start.Add(after)
	for _, d := range l.Take(in) {
		switch d.Kind {
		case incident.Call:
			l.calls = append(l.calls, d.Text)
		case incident.Save:
			l.records = []incident.Record{*d.Record}
		case incident.Gather:
			l.take(after, incident.Input{Observations: l.seen(after), Gathered: d.Key})
		case incident.Intend, incident.Recover, incident.Look:
		}
	}
}

func (l *lone) seen(after time.Duration) []fettle.Observation {
	list := slices.Clone(l.sees)
	for i := range list {
		list[i].Asked = start.Add(after)
	}
	return list
}

func (l *lone) only() fettle.Incident {
	l.t.Helper()
	list := l.Incidents()
	if len(list) != 1 {
		l.t.Fatalf("%d incidents, want one: %v", len(list), list)
	}
	return list[0]
}

// failedUnit is a service that failed, on a host where others are well.
func failedUnit() []fettle.Observation {
	var list []fettle.Observation
	for i, name := range []string{"web", "a", "b", "c", "d", "e"} {
		state := "active"
		if i == 0 {
			state = "failed"
		}
		unit := fettle.NewSubject(fettle.KindUnit, "h1", name+".service")
		list = append(list, fettle.Observation{
			Subject: unit, Host: "host:h1", Probe: "systemd.unit", Edges: []fettle.Edge{{From: unit, Rel: fettle.RunsOn, To: "host:h1"}},
			Facts: fettle.Facts{
				"load_state": "loaded", "active_state": state, "sub_state": state, "result": "signal", "invocation_id": "a", "restart": "no",
				"enabled": true, "was_active": true, "stopped_by": "", "starts_10m": int64(1),
			},
		})
	}
	return list
}

// After a restart nothing is known until the agents are back. An incident that
// waits for a person waits on; nobody is called about what a machine will say in
// a moment, and somebody is when it does not.
func TestRestartCallsNobodyAtOnce(t *testing.T) {
	before := newLone(t, fettle.Approve, failedUnit()...)
	before.take(0, incident.Input{Observations: before.seen(0)})
	asked := before.only()
	if asked.State != fettle.Proposed || len(before.calls) != 1 {
		t.Fatalf("before the restart it is %s (%s), calls %q", asked.State, asked.Why, before.calls)
	}

	for _, back := range []bool{true, false} {
		l := newLone(t, fettle.Approve)
		l.Restore(before.records, nil)
		l.take(time.Minute, incident.Input{})
		if in := l.only(); in.State != fettle.Proposed || len(l.calls) != 0 {
			t.Errorf("after the restart it is %s (%s), calls %q", in.State, in.Why, l.calls)
		}
		if back {
			l.sees = failedUnit()
			l.take(time.Minute+10*time.Second, incident.Input{Observations: l.seen(time.Minute + 10*time.Second)})
		}
		for at := time.Minute + 11*time.Second; at < 3*time.Minute; at += time.Second {
			l.take(at, incident.Input{})
		}
		in := l.only()
		switch {
		case back && (in.State != fettle.Proposed || in.Plan.Hash != asked.Plan.Hash || len(l.calls) != 0):
			t.Errorf("the machine came back, and it is %s (%s), plan %.12s, was %.12s, calls %q", in.State, in.Why, in.Plan.Hash, asked.Plan.Hash, l.calls)
		case !back && (in.State != fettle.Escalated || len(l.calls) != 1):
			t.Errorf("the machine never came back, and it is %s (%s), calls %q", in.State, in.Why, l.calls)
		}
	}
}

// Where no rung fits, the story says what was seen of the cause: a person must go
// on from there.
func TestNoRungFitsTellsWhatWasSeen(t *testing.T) {
	const full = fettle.Subject("filesystem:h1/%2Fsrv")
	usage := fettle.Observation{Subject: full, Host: "host:h1", Probe: "filesystem.usage", Facts: fettle.Facts{
		"type": "ext4", "size_bytes": int64(1e9), "avail_bytes": int64(0), "free_bytes": int64(0), "used_permille": int64(1000), "write_error": "",
		"inodes": int64(1000), "inodes_free": int64(900), "inodes_used_permille": int64(100), "read_only": false, "errors_count": int64(0),
	}}
	fill := fettle.Observation{Subject: full, Host: "host:h1", Probe: "filesystem.fill", Facts: fettle.Facts{
		"journal_bytes": int64(0), "journal_limit_bytes": int64(1e8), "package_cache_bytes": int64(0), "rotated_log_bytes": int64(0),
		"deleted_open_bytes": int64(0), "biggest": []string{"900000000 /srv/db/table.dat"},
	}}
	l := newLone(t, fettle.Automatic, usage, fill)
	l.take(0, incident.Input{Observations: l.seen(0)[:1]})
	for at := time.Second; at < 2*time.Minute; at += time.Second {
		l.take(at, incident.Input{})
	}
	in := l.only()
	told := 0
	for _, e := range in.Story {
		if strings.Contains(e.Text, "900000000 /srv/db/table.dat") {
			told++
		}
	}
	if in.State != fettle.Escalated || told != 1 {
		t.Errorf("it is %s (%s) and names the file %d times, want once: %v", in.State, in.Why, told, in.Story)
	}
}

// A trouble that has just begun may be on its way to where a rung fits: a process
// that is still ending cannot be started. Nobody is called for ten seconds, and it
// is looked at again and again, also where nobody tells of a change.
func TestWaitsUntilARungFits(t *testing.T) {
	const full = fettle.Subject("filesystem:h1/%2Fsrv")
	usage := fettle.Observation{Subject: full, Host: "host:h1", Probe: "filesystem.usage", Facts: fettle.Facts{
		"type": "ext4", "size_bytes": int64(1e9), "avail_bytes": int64(0), "free_bytes": int64(0), "used_permille": int64(1000), "write_error": "",
		"inodes": int64(1000), "inodes_free": int64(900), "inodes_used_permille": int64(100), "read_only": false, "errors_count": int64(0),
	}, Edges: []fettle.Edge{{From: full, Rel: fettle.RunsOn, To: "host:h1"}}}
	fill := func(journal int64) fettle.Observation {
		return fettle.Observation{Subject: full, Host: "host:h1", Probe: "filesystem.fill", Facts: fettle.Facts{
			"journal_bytes": journal, "journal_limit_bytes": int64(1e8), "package_cache_bytes": int64(0), "rotated_log_bytes": int64(0),
			"deleted_open_bytes": int64(0), "biggest": []string{},
		}}
	}
	for _, fitsAt := range []time.Duration{5 * time.Second, 20 * time.Second} {
		l := newLone(t, fettle.Suggest, usage, fill(0))
		l.take(0, incident.Input{Observations: l.seen(0)})
		for at := time.Second; at < 9*time.Second; at += time.Second {
			if at == fitsAt {
				l.sees = []fettle.Observation{usage, fill(5e8)}
			}
			l.take(at, incident.Input{})
		}
		in := l.only()
		if len(l.calls) != 0 || in.State != map[bool]fettle.IncidentState{true: fettle.Proposed, false: fettle.Held}[fitsAt < 9*time.Second] {
			t.Errorf("a rung fits at %s: after nine seconds it is %s (%s), calls %q: %v", fitsAt, in.State, in.Why, l.calls, in.Story)
		}
		l.take(11*time.Second, incident.Input{})
		if called := len(l.calls) != 0; called != (fitsAt > 11*time.Second) {
			t.Errorf("a rung fits at %s: after eleven seconds somebody was called: %v", fitsAt, called)
		}
	}
}

// Agents that start, or are back after a restart, tell one thing after another. That
// no rung fits what is known so far calls nobody: what it rests on is told in a
// moment, and the incident goes on. Where it never is, somebody is called.
func TestWaitsForWhatARungRestsOn(t *testing.T) {
	const full = fettle.Subject("filesystem:h1/%2Fsrv")
	usage := fettle.Observation{Subject: full, Host: "host:h1", Probe: "filesystem.usage", Facts: fettle.Facts{
		"type": "ext4", "size_bytes": int64(1e9), "avail_bytes": int64(0), "free_bytes": int64(0), "used_permille": int64(1000), "write_error": "",
		"inodes": int64(1000), "inodes_free": int64(900), "inodes_used_permille": int64(100), "read_only": false, "errors_count": int64(0),
	}, Edges: []fettle.Edge{{From: full, Rel: fettle.RunsOn, To: "host:h1"}}}
	fill := fettle.Observation{Subject: full, Host: "host:h1", Probe: "filesystem.fill", Facts: fettle.Facts{
		"journal_bytes": int64(5e8), "journal_limit_bytes": int64(1e8), "package_cache_bytes": int64(0), "rotated_log_bytes": int64(0),
		"deleted_open_bytes": int64(0), "biggest": []string{},
	}}
	before := newLone(t, fettle.Suggest, usage, fill)
	for at := time.Duration(0); at < time.Minute; at += time.Second {
		before.take(at, incident.Input{Observations: before.seen(at)})
	}
	if in := before.only(); in.State != fettle.Proposed {
		t.Fatalf("before the restart it is %s (%s): %v", in.State, in.Why, in.Story)
	}
	agent := fettle.Observation{Subject: "host:h1", Host: "host:server", Probe: "fleet.agent", Facts: fettle.Facts{"settled": false}}
	all := agent
	all.Facts = fettle.Facts{"settled": true}
	for _, c := range []struct {
		restarted, told bool
	}{{true, true}, {true, false}, {false, true}, {false, false}} {
		l := newLone(t, fettle.Suggest, usage, agent)
		if c.restarted {
			l.sees = l.sees[:1]
			l.Restore(before.records, nil)
		}
		for at := 2 * time.Minute; at < 4*time.Minute; at += time.Second {
			switch {
			case c.told && at == 2*time.Minute+10*time.Second:
				l.sees = []fettle.Observation{usage, fill, all}
			case !c.told && at == 2*time.Minute+30*time.Second: // the server waits no longer
				l.sees = []fettle.Observation{usage, all}
			}
			l.take(at, incident.Input{Observations: l.seen(at)})
		}
		in := l.only()
		called := slices.ContainsFunc(in.Story, func(e fettle.Event) bool { return e.Kind == fettle.EvEscalated })
		if called == c.told || c.told && (in.State != fettle.Proposed || in.Plan.Rung != before.only().Plan.Rung) {
			t.Errorf("%+v: a person was called: %v, and it is %s (%s)", c, called, in.State, in.Why)
		}
	}
}
