package diagnose

import (
	"fmt"
	"sort"
	"testing"
	"time"
)

func TestZZ(t *testing.T) {
	f := newFleet(1)
	d := mustNew(t, f.catalogue)
	t0 := time.Now()
	d.Load(f.w, epoch)
	t.Log(time.Since(t0))
	gs := d.Groups()
	sort.Slice(gs, func(i, j int) bool { return len(gs[i].Members) > len(gs[j].Members) })
	for i, g := range gs {
		if i < 12 {
			fmt.Println(g.Key, len(g.Members), len(g.Diagnosis.Causes), len(g.Diagnosis.Unsettled), len(g.Diagnosis.Look), g.Diagnosis.Stopped)
		}
	}
	for i := range d.groups {
		for _, k := range d.groups[i].knots {
			if len(k.sets) > 4 {
				fmt.Println("knot sets", len(k.sets), "things", len(k.problem.own), "choices", len(k.answer.choices), k.answer.stopped)
			}
		}
	}
	fmt.Println(len(gs), len(f.raised))
	fmt.Println(f.score(gs))
	causes := map[string]bool{}
	for _, g := range gs {
		for _, c := range g.Diagnosis.Causes {
			if !c.Observed {
				fmt.Println("supposed", c.ConditionKey, len(c.Explains), c.Cost)
			}
			causes[c.ConditionKey.String()] = true
		}
	}
	for _, k := range f.shared {
		fmt.Println(k, causes[k.String()])
	}
	// slow flips
	n := 0
	type sl struct {
		d time.Duration
		k string
		n int
	}
	var all []sl
	for i, s := range f.subjects {
		cs := f.w.ConditionsOf(s)
		if i%17 != 0 || len(cs) == 0 {
			continue
		}
		k := cs[i%len(cs)].ConditionKey
		to, fro := flip(f.w, k)
		best := time.Hour
		m := 0
		for range 5 {
			f.w.SetCondition(to)
			t0 := time.Now()
			out := d.Update(f.w, epoch, s)
			dt := time.Since(t0)
			m = 0
			for _, g := range out {
				m += len(g.Members)
			}
			best = min(best, dt)
			f.w.SetCondition(fro)
			t0 = time.Now()
			d.Update(f.w, epoch, s)
			best = max(best, 0)
		}
		all = append(all, sl{best, k.String(), m})
		n++
	}
	sort.Slice(all, func(i, j int) bool { return all[i].d > all[j].d })
	for i := 0; i < 20; i++ {
		fmt.Println(all[i])
	}
	fmt.Println(n, all[n/2], all[n/10])
}
