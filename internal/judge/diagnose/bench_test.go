package diagnose

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/world"
)

func mustNew(tb testing.TB, c fettle.Catalogue) *Diagnoser {
	tb.Helper()
	d, err := New([]fettle.Catalogue{c}, DefaultWeights())
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// cpu runs a benchmark and reports the time that this process had a processor,
// besides the time on the clock: on a busy machine the two differ by far.
func cpu(b *testing.B, loop func()) {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	b.ReportAllocs()
	before := used()
	loop()
	b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op")
}

// BenchmarkScratch diagnoses the whole fleet with a new diagnoser. The bar is 50
// ms.
func BenchmarkScratch(b *testing.B) {
	f := newFleet(1)
	cpu(b, func() {
		for b.Loop() {
			mustNew(b, f.catalogue).Load(f.w, epoch)
		}
	})
}

// flip changes a condition to and fro: raised, then clear.
func flip(w *world.World, k fettle.ConditionKey) (to, fro fettle.Condition) {
	was, _ := w.Condition(k)
	other := was
	if was.Raised() {
		other.State, other.LastClear = fettle.No, at(3000)
	} else {
		other.State, other.FirstSeen = fettle.Yes, at(3000)
	}
	other.Evidence = []fettle.Evidence{{Observer: was.Evidence[0].Observer, Asked: at(3000), Says: other.State}}
	return other, was
}

// benchFlips updates an up-to-date diagnosis with one changed condition after
// the other.
func benchFlips(b *testing.B, f *fleet, keys []fettle.ConditionKey) {
	d := mustNew(b, f.catalogue)
	d.Load(f.w, epoch)
	var turns []fettle.Condition
	for _, k := range keys {
		to, fro := flip(f.w, k)
		turns = append(turns, to, fro)
	}
	i := 0
	cpu(b, func() {
		for b.Loop() {
			c := turns[i%len(turns)]
			i++
			f.w.SetCondition(c)
			d.Update(f.w, epoch, c.Subject)
		}
	})
	for ; i%len(turns) != 0; i++ {
		f.w.SetCondition(turns[i%len(turns)])
	}
}

// BenchmarkUpdateAny changes conditions all over the fleet. The bar is 1 ms.
func BenchmarkUpdateAny(b *testing.B) {
	f := newFleet(1)
	var keys []fettle.ConditionKey
	for i, s := range f.subjects {
		if cs := f.w.ConditionsOf(s); i%17 == 0 && len(cs) > 0 {
			keys = append(keys, cs[i%len(cs)].ConditionKey)
		}
	}
	for i, k := range f.raised {
		if i%5 == 0 {
			keys = append(keys, k)
		}
	}
	benchFlips(b, f, keys)
}

// BenchmarkUpdateBigSwitch changes one host's condition after the other in a
// group of a thousand hosts that one switch took away; seen, and supposed. The
// bar is 1 ms.
func BenchmarkUpdateBigSwitch(b *testing.B) {
	for _, seen := range []bool{true, false} {
		name := "supposed"
		if seen {
			name = "seen"
		}
		b.Run(name, func(b *testing.B) {
			f := bigSwitchFleet(seen)
			benchFlips(b, f, f.raised[1:])
		})
	}
}

// BenchmarkUpdateSwitchItself changes the shared cause of a thousand conditions:
// everything in the group is explained anew.
func BenchmarkUpdateSwitchItself(b *testing.B) {
	f := bigSwitchFleet(true)
	benchFlips(b, f, f.raised[:1])
}

// BenchmarkUpdateEdges lets a unit come and go on a host of the big switch.
func BenchmarkUpdateEdges(b *testing.B) {
	f := bigSwitchFleet(true)
	d := mustNew(b, f.catalogue)
	d.Load(f.w, epoch)
	s := fettle.NewSubject(fettle.KindUnit, "h0001", "new.scope")
	o := fettle.Observation{
		Subject: s, Host: "host:h0001", Probe: "f.unit", Asked: epoch,
		Edges: []fettle.Edge{{From: s, Rel: fettle.RunsOn, To: "host:h0001"}, {From: s, Rel: fettle.PartOf, To: "service:service1"}},
	}
	cpu(b, func() {
		for b.Loop() {
			o.Gone = false
			f.w.Observe(o)
			d.Update(f.w, epoch, s)
			o.Gone = true
			f.w.Observe(o)
			d.Update(f.w, epoch, s)
		}
	})
}

// BenchmarkKnot searches among eighty shared causes that overlap at random, as
// far as the default weights let it.
func BenchmarkKnot(b *testing.B) {
	rng := rand.New(rand.NewPCG(7, 7))
	p := &problem{own: make([]int32, 300)}
	for i := range p.own {
		p.own[i] = int32(i)
		p.cost, p.count, p.covers = append(p.cost, 10+rng.IntN(7)), append(p.count, 1), append(p.covers, []int32{int32(i)})
	}
	for range 80 {
		var covers []int32
		for i := range p.own {
			if rng.IntN(30) == 0 {
				covers = append(covers, int32(i))
			}
		}
		p.cost, p.count, p.covers = append(p.cost, 25+rng.IntN(20)), append(p.count, 1), append(p.covers, covers)
	}
	w := DefaultWeights()
	var a answer
	cpu(b, func() {
		for b.Loop() {
			a = solve(p, w.Margin, w.Alternatives+1, w.Work)
		}
	})
	b.ReportMetric(float64(a.choices[0].cost-a.least), "gap")
}

// bigSwitchFleet is the fleet with nothing wrong but its biggest switch.
func bigSwitchFleet(seen bool) *fleet {
	f := newFleet(1)
	for _, s := range f.subjects {
		for _, c := range f.w.ConditionsOf(s) {
			f.judge(c.ConditionKey, fettle.No, 90, 0)
		}
	}
	f.raised = nil
	sw := fettle.ConditionKey{Code: "f.switch_down", Subject: "switch:switch0"}
	f.judge(sw, fettle.Yes, 95, 100)
	f.raised = append(f.raised, sw)
	if !seen {
		f.judge(sw, fettle.Unknown, 95, 0)
	}
	for _, h := range f.w.Related(sw.Subject, "<uses") {
		k := fettle.ConditionKey{Code: "f.host_unreachable", Subject: h}
		f.judge(k, fettle.Yes, 99, 104)
		f.raised = append(f.raised, k)
	}
	return f
}
