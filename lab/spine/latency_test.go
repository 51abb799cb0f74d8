//go:build lab

package spine_test

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"fettle/internal/act/execute"
	"fettle/internal/act/journal"
	"fettle/internal/fettle"
	"fettle/lab"
	"fettle/lab/spine"
)

//go:embed testdata/kill.py
var killScript []byte

// trials is how many services are killed, one after the other.
const trials = 100

// trial is one of them: what the script saw, in nanoseconds.
type trial struct {
	Unit            string
	Real            int64 // wall clock when it was killed
	Killed, Started int64 // CLOCK_MONOTONIC
	Sync            int64 // of the first line only: what one fdatasync(2) takes
}

// span is the way from a kill to the service running again, cut at what each part
// says of itself: the incident's story, the agent's journal, the service manager.
type span struct {
	noticed, told, decided, synced, issued, begun, running, toIssue, whole time.Duration
}

// issuedAt is in what the agent says of a start: when the manager had accepted the
// job, on the host's wall clock.
var issuedAt = regexp.MustCompile(`^start job issued at (\d\d:\d\d:\d\d\.\d{6}),`)

// How long it takes from SIGKILL of a service without a restart policy of its own
// to the start job, server and agent on one host. It prints, and asserts only that
// every service was started, once.
func TestLabLatency(t *testing.T) {
	f := start(t, 2, spine.Options{Policy: manyPlans})
	idle(t, f)
	latency(t, f)
}

// manyPlans lets one service after the other be mended.
const manyPlans = "rate: {per_subject: 1000, per_fleet: 10000, window: 1h}\n"

// latency kills services of the first host, and prints how long each part took.
func latency(t *testing.T, f *spine.Fleet) {
	t.Helper()
	h := f.Host(1)
	f.UnitFile(h, "web@.service", "[Service]\nExecStart=/bin/sh -c 'echo web@%i.service >/run/started; exec sleep infinity'\n")
	f.Write(h, "/run/kill.py", string(killScript))
	argv := []string{"python3", "/run/kill.py"}
	for i := range trials + 1 { // the first one warms up
		argv = append(argv, fmt.Sprintf("web@%d.service", i))
	}
	out, err := h.Output(t.Context(), argv...)
	if err != nil {
		t.Fatal(err)
	}
	var list []trial
	for line := range strings.Lines(out) {
		var one trial
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		list = append(list, one)
	}
	var all []fettle.Incident
	spine.Until(t, "every service to be mended", func() bool {
		all = f.Incidents()
		return len(all) == trials+1 && !slices.ContainsFunc(all, func(in fettle.Incident) bool { return in.State != fettle.Resolved })
	})
	intents := map[string]time.Time{} // when the agent's journal was given them
	readJournal(t, h, func(r journal.Record) {
		var rec struct{ Dispatch fettle.Dispatch }
		if r.Kind == execute.KindIntent && r.Decode(&rec) == nil {
			intents[rec.Dispatch.Key] = r.At
		}
	})
	var spans []span
	t.Logf("one fdatasync of this disk: %s", micro(time.Duration(list[0].Sync)))
	for _, one := range list[2:] {
		i := slices.IndexFunc(all, spine.About(failed, f.Unit(h, one.Unit)))
		if i < 0 {
			t.Fatalf("there is no incident of %s", one.Unit)
		}
		f.CheckMended(all[i], "start", "start")
		spans = append(spans, measure(t, f, h, one, all[i], intents))
	}
	report(t, spans)
}

// measure cuts one trial into its parts.
func measure(t *testing.T, f *spine.Fleet, h *lab.Host, one trial, in fettle.Incident, intents map[string]time.Time) span {
	t.Helper()
	at := func(kind fettle.EventKind) fettle.Event {
		return in.Story[slices.IndexFunc(in.Story, func(e fettle.Event) bool { return e.Kind == kind })]
	}
	// Since the kill; the lab's hosts and this test have one kernel and its clocks.
	wall := func(at time.Time) time.Duration { return time.Duration(at.UnixNano() - one.Real) }
	systemd := func(property string) time.Duration {
		us, err := strconv.ParseInt(f.Property(h, one.Unit, property), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(us*1000 - one.Killed)
	}
	said := issuedAt.FindStringSubmatch(at(fettle.EvDone).Text)
	if said == nil {
		t.Fatalf("%q does not say when the job was issued", at(fettle.EvDone).Text)
	}
	clock, err := time.Parse("15:04:05.000000", said[1])
	if err != nil {
		t.Fatal(err)
	}
	const day = 24 * time.Hour
	issued := (clock.Sub(clock.Truncate(day)) - time.Duration(one.Real%int64(day)) + day) % day // it may be midnight
	marks := []time.Duration{
		systemd("InactiveEnterTimestampMonotonic"), wall(at(fettle.EvRaised).At), wall(at(fettle.EvIntent).At),
		wall(intents[at(fettle.EvIntent).Key]), issued, systemd("InactiveExitTimestampMonotonic"), time.Duration(one.Started - one.Killed),
	}
	return span{
		noticed: marks[0], told: marks[1] - marks[0], decided: marks[2] - marks[1], synced: marks[3] - marks[2],
		issued: marks[4] - marks[3], begun: marks[5] - marks[4], running: marks[6] - marks[5], toIssue: marks[4], whole: marks[6],
	}
}

func report(t *testing.T, spans []span) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%-44s %10s %10s %10s\n", fmt.Sprintf("from SIGKILL, %d trials", len(spans)), "median", "p95", "most")
	for _, row := range []struct {
		name string
		of   func(span) time.Duration
	}{
		{"noticed: the manager has the unit as failed", func(s span) time.Duration { return s.noticed }},
		{"told: the server knows the condition", func(s span) time.Duration { return s.told }},
		{"decided: looked round, planned, guarded", func(s span) time.Duration { return s.decided }},
		{"synced: intent in the store and at the agent", func(s span) time.Duration { return s.synced }},
		{"issued: the manager accepts the start job", func(s span) time.Duration { return s.issued }},
		{"begun: the manager has forked the process", func(s span) time.Duration { return s.begun }},
		{"running: the service's own first word", func(s span) time.Duration { return s.running }},
		{"SIGKILL to job issued (bar: median 10 ms)", func(s span) time.Duration { return s.toIssue }},
		{"SIGKILL to running", func(s span) time.Duration { return s.whole }},
	} {
		var d []time.Duration
		for _, s := range spans {
			d = append(d, row.of(s))
		}
		slices.Sort(d)
		fmt.Fprintf(&b, "%-44s %10s %10s %10s\n", row.name, micro(d[len(d)/2]), micro(d[len(d)*95/100]), micro(d[len(d)-1]))
	}
	t.Log("\n" + b.String())
}

func micro(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }

// idleFor is how long a fleet with nothing to do is watched.
const idleFor = 30 * time.Second

// idle prints what server and agents use of a machine while nothing happens: the
// bars are half a percent of a core and 30 MiB of anonymous memory for an agent.
func idle(t *testing.T, f *spine.Fleet) {
	t.Helper()
	units := map[*lab.Host]string{f.Host(1): spine.UpUnit, f.Host(2): spine.AgentUnit}
	before := map[*lab.Host]time.Duration{}
	for h, unit := range units {
		before[h] = cpuTime(t, f, h, unit)
	}
	window := time.NewTimer(idleFor)
	defer window.Stop()
	select {
	case <-window.C: // what is measured is the time itself
	case <-t.Context().Done():
	}
	for _, h := range f.Hosts() {
		used := cpuTime(t, f, h, units[h]) - before[h]
		anon := f.Shell(h, fmt.Sprintf("grep RssAnon /proc/%d/status", f.MainPID(h, units[h])))
		t.Logf("%s, idle for %v: %v of a core (%.2f %%), %s", units[h], idleFor, used, 100*used.Seconds()/idleFor.Seconds(), strings.Join(strings.Fields(anon), " "))
	}
}

// cpuTime is what the main process of a unit has used, utime and stime of
// proc_pid_stat(5), in ticks of 10 ms.
func cpuTime(t *testing.T, f *spine.Fleet, h *lab.Host, unit string) time.Duration {
	t.Helper()
	stat := f.Shell(h, fmt.Sprintf("cat /proc/%d/stat", f.MainPID(h, unit)))
	words := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	if len(words) < 13 {
		t.Fatalf("stat of %s is %q", unit, stat)
	}
	user, err1 := strconv.ParseInt(words[11], 10, 64)
	system, err2 := strconv.ParseInt(words[12], 10, 64)
	if err1 != nil || err2 != nil {
		t.Fatalf("stat of %s is %q", unit, stat)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}
