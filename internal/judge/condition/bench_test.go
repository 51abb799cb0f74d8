package condition_test

import (
	"fmt"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/world"
)

// fleet is a world of n things on n/100 hosts, all judged, and a function that
// observes the first anew and returns how many conditions changed.
func fleet(b *testing.B, n int) (*world.World, func(now time.Time, bad bool) int) {
	b.Helper()
	e := newEvaluator(b, catalogue(
		fettle.ConditionSpec{Code: "t.bad", Raise: "self.bad", Expiry: time.Hour, Delay: time.Second, Title: "{label} is bad"},
		fettle.ConditionSpec{Code: "t.high", Raise: "self.level > 90", Clear: "self.level < 80", Expiry: time.Hour},
		fettle.ConditionSpec{Code: "t.busy", Raise: "self.level > 50 && host.load > 3", Expiry: time.Hour},
	))
	w := world.New()
	var subjects []fettle.Subject
	first := fettle.Observation{}
	for i := range n {
		host := fettle.HostSubject(fmt.Sprintf("h%d", i/100))
		o := fettle.Observation{
			Subject: fettle.NewSubject("thing", "s", fmt.Sprint(i)), Host: host, Probe: "t.thing", Asked: epoch,
			Facts: fettle.Facts{"bad": false, "level": int64(i % 100), "label": "x"},
		}
		o.Edges = []fettle.Edge{{From: o.Subject, Rel: fettle.RunsOn, To: host}}
		if i == 0 {
			first = o
		}
		w.Observe(o)
		subjects = append(subjects, o.Subject)
	}
	e.Touch(w, epoch, subjects...)
	return w, func(now time.Time, bad bool) int {
		o := first
		o.Asked, o.Facts = now, fettle.Facts{"bad": bad, "level": int64(7), "label": "x"}
		w.Observe(o)
		return len(e.Touch(w, now, o.Subject)) + len(e.Tick(w, now))
	}
}

// BenchmarkTouchOneOf10000 is one changed observation among 10,000 subjects with
// three conditions each.
func BenchmarkTouchOneOf10000(b *testing.B) {
	_, look := fleet(b, 10_000)
	now := epoch
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		now = now.Add(time.Millisecond)
		look(now, i%2 == 0)
	}
}

// BenchmarkJudge10000 judges all of them from scratch.
func BenchmarkJudge10000(b *testing.B) {
	for b.Loop() {
		w, _ := fleet(b, 10_000)
		if len(w.Raised()) == 0 {
			b.Fatal("nothing is raised")
		}
	}
}
