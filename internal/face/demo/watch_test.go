package demo

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"fettle/internal/face/show"
	"fettle/internal/fettle"
	"fettle/internal/judge/incident"
)

func record(id string, opened time.Time, state fettle.IncidentState, code fettle.Code, story ...fettle.Event) incident.Record {
	in := fettle.Incident{ID: id, Opened: opened, State: state, Cause: fettle.ConditionKey{Code: code, Subject: "etcd-member:demo/e1"}, Story: story}
	if state.Ended() {
		in.Ended = opened.Add(3 * time.Second)
	}
	return incident.Record{Incident: in}
}

func TestWatch(t *testing.T) {
	w := newWatch()
	if n, _ := w.take(); len(n) != 0 {
		t.Fatalf("news before anything happened: %v", n)
	}
	_, more := w.take()
	begin := time.Now()
	w.onChange(record("a", begin, fettle.Open, "x.y"), []fettle.Event{{Text: "one"}, {Text: "two"}})
	select {
	case <-more:
	default:
		t.Error("nobody is told of the news")
	}
	w.onChange(record("a", begin, fettle.Resolved, "x.y"), []fettle.Event{{Text: "three"}})
	w.onChange(record("old", begin.Add(-time.Hour), fettle.Open, "x.y"), nil)
	var said []string
	n, _ := w.take()
	for _, x := range n {
		said = append(said, x.event.Text)
	}
	if !slices.Equal(said, []string{"one", "two", "three"}) {
		t.Errorf("told: %v", said)
	}
	if n, _ := w.take(); len(n) != 0 {
		t.Errorf("told twice: %v", n)
	}
	if list := w.since(begin); len(list) != 1 || list[0].ID != "a" || list[0].State != fettle.Resolved {
		t.Errorf("since the beginning: %+v", list)
	}
}

func TestWatchUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch()
		begin := time.Now()
		done := make(chan error, 1)
		go func() {
			done <- w.until(t.Context(), func() bool { return len(w.since(begin)) > 0 })
		}()
		synctest.Wait()
		w.onChange(record("a", begin, fettle.Open, "x.y"), nil)
		if err := <-done; err != nil || time.Since(begin) != 0 {
			t.Errorf("woken %v after the change: %v", time.Since(begin), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := w.until(ctx, func() bool { return false }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("what never comes: %v", err)
		}
	})
}

// TestUntilRefused: asking a person is a refusal; an intent, however late, is
// not; nothing at all is neither.
func TestUntilRefused(t *testing.T) {
	asked := fettle.Event{Kind: fettle.EvAsked, Text: "a person is asked"}
	for _, c := range []struct {
		name   string
		state  fettle.IncidentState
		code   fettle.Code
		acts   time.Duration // an intent after so long; 0: none
		refuse bool
	}{
		{"asked", fettle.Proposed, "etcd.majority_lost", 0, true},
		{"a person was called", fettle.Escalated, "etcd.majority_lost", 0, true},
		{"it acted before", fettle.Proposed, "etcd.majority_lost", time.Nanosecond, false},
		{"it acted afterwards", fettle.Proposed, "etcd.majority_lost", 2 * time.Second, false},
		{"it only looks", fettle.Open, "etcd.majority_lost", 0, false},
		{"asked about something else", fettle.Proposed, "etcd.data_lost", 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &stage{watch: newWatch()}
				begin := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				s.watch.onChange(record("a", begin, c.state, c.code, asked), nil)
				if c.acts > 0 {
					stop := time.AfterFunc(c.acts, func() {
						s.watch.onChange(record("a", begin, c.state, c.code, asked, fettle.Event{Kind: fettle.EvIntent, Text: "etcd.restore"}), nil)
					})
					defer stop.Stop()
				}
				if err := s.untilRefused(ctx, begin); (err == nil) != c.refuse {
					t.Errorf("taken for a refusal: %v (%v)", err == nil, err)
				}
			})
		})
	}
}

func TestMeasure(t *testing.T) {
	begin := time.Now()
	s := &stage{watch: newWatch()}
	s.watch.onChange(record("second", begin.Add(200*time.Millisecond), fettle.Resolved, "etcd.data_lost"), nil)
	s.watch.onChange(record("first", begin.Add(50*time.Millisecond), fettle.Closed, "systemd.unit_failed"), nil)
	s.watch.onChange(record("before", begin.Add(-time.Second), fettle.Resolved, "other.trouble"), nil)
	var r Result
	s.measure(&r, begin, begin.Add(10*time.Millisecond))
	if r.Seen != 40*time.Millisecond || r.Mended != 3190*time.Millisecond || r.Cause != "etcd.data_lost" || !slices.Equal(r.Incidents, []string{"first", "second"}) {
		t.Errorf("measured %+v", r)
	}
	var none Result
	(&stage{watch: newWatch()}).measure(&none, begin, begin)
	if none.Seen != 0 || none.Mended != 0 || none.Cause != "" {
		t.Errorf("nothing happened, and was measured as %+v", none)
	}
}

// TestReportFailed: a scene that failed, lost a write or was not played fails
// the demo.
func TestReportFailed(t *testing.T) {
	var all []Result
	for _, sc := range scenes() {
		r := Result{Fault: sc.name, Outcome: "mended"}
		if sc.refused {
			r.Outcome = "refused"
		}
		all = append(all, r)
	}
	if (Report{Results: all}).Failed() {
		t.Error("what went as it must has failed")
	}
	if !(Report{}).Failed() || !(Report{Results: all[:len(all)-1]}).Failed() {
		t.Error("scenes were not played, and nothing failed")
	}
	for change, f := range map[string]func(*Result){"failed": func(r *Result) { r.Outcome = "failed" }, "lost": func(r *Result) { r.Lost = 1 }} {
		broken := slices.Clone(all)
		f(&broken[1])
		if !(Report{Results: broken}).Failed() {
			t.Errorf("%s, and the demo has not failed", change)
		}
	}
}

// TestTable: one row a scene, in 80 columns, in line with or without colour.
func TestTable(t *testing.T) {
	r := Report{Took: 42 * time.Second, Results: []Result{
		{Fault: "a member killed", Outcome: "mended", Cause: "systemd.unit_failed", Seen: 7200 * time.Microsecond, Mended: 3600 * time.Millisecond, Writes: 1179},
		{Fault: "two of three members lost", Outcome: "refused", Cause: "etcd.majority_lost", Seen: 5 * time.Millisecond},
		{Fault: "a data directory lost", Outcome: "failed", Cause: "etcd.data_lost", Seen: 14 * time.Millisecond, Writes: 5118, Lost: 2, Wrong: "2 acknowledged writes are missing"},
	}}
	want := `
fault                       seen in  cause                 mended   writes lost
a member killed             7.2 ms   systemd.unit_failed   3.6 s    0 of 1179
two of three members lost   5.0 ms   etcd.majority_lost    refused  –
a data directory lost       14 ms    etcd.data_lost        FAILED   2 of 5118
  2 acknowledged writes are missing
took 42.0 s
`
	var plain, coloured bytes.Buffer
	Table(&show.Printer{W: &plain}, r)
	if plain.String() != want {
		t.Errorf("got\n%s\nwant\n%s", plain.String(), want)
	}
	Table(&show.Printer{W: &coloured, Color: true}, r)
	bare := strings.NewReplacer("\x1b[31m", "", "\x1b[1m", "", "\x1b[0m", "").Replace(coloured.String())
	if bare != want {
		t.Errorf("with colour the columns are out of line:\n%s", bare)
	}
	for line := range strings.Lines(want) {
		if utf8.RuneCountInString(line) > 81 {
			t.Errorf("too long: %s", line)
		}
	}
}

// TestNarration: what a viewer is told of a refusal has its arithmetic.
func TestNarration(t *testing.T) {
	var b bytes.Buffer
	d := &player{o: Options{Printer: &show.Printer{W: &b}}, watch: newWatch()}
	begin := time.Now()
	plan := &fettle.Plan{Runbook: "etcd.majority_lost", Rung: "restore", Steps: []fettle.Step{{ID: "restore", Action: "etcd.restore", Target: "etcd-member:demo/e1"}}}
	no := fettle.Verdict{Guard: "quorum", Invariant: "S2", Why: "no majority is left", Arithmetic: "serving 1 < majority 2"}
	yes := fettle.Verdict{Guard: "fresh", Invariant: "S1", Allow: true, Why: "all is fresh"}
	in := fettle.Incident{ID: "a", Opened: begin, Plan: plan}
	d.tell(news{in, fettle.Event{At: begin, Kind: fettle.EvPlanned, Text: "a plan"}})
	d.tell(news{in, fettle.Event{At: begin, Kind: fettle.EvRefused, Text: "refused", Verdicts: []fettle.Verdict{yes, no}}})
	d.tell(news{in, fettle.Event{At: begin, Kind: fettle.EvIntent, Text: "intent", Verdicts: []fettle.Verdict{{Invariant: "S2", Allow: true, Arithmetic: "serving 3 → 2"}}}})
	for _, want := range []string{"etcd.restore on etcd-member:demo/e1", "serving 1 < majority 2", "no majority is left", "S2: serving 3 → 2"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the viewer is not told %q:\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "all is fresh") {
		t.Errorf("the viewer is told what allowed it, and what refused it is lost among it:\n%s", b.String())
	}
	quiet := &player{watch: newWatch()}
	quiet.tell(news{in, fettle.Event{}}) // nobody looks: nothing is written, and nothing breaks
	quiet.intro(fettle.Policy{})
	quiet.curtain(scene{})
	quiet.say("x")
}
