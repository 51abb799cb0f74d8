package crash

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// atOnce is how many runs go on at the same time: they mostly wait.
const atOnce = 6

// calm runs a scenario with nobody dying, and returns how it ended and at which
// moments somebody could have died.
func (s *scenario) calm(ctx context.Context, dir string) (outcome, []moment, error) {
	o, err := s.once(ctx, dir, death{})
	if err != nil {
		return o, nil, err
	}
	moments, err := met(dir)
	return o, moments, err
}

// once makes a run and inspects what it left.
func (s *scenario) once(ctx context.Context, dir string, d death) (outcome, error) {
	st, err := s.play(ctx, dir, d)
	o, ierr := s.inspect(ctx, dir, st)
	switch {
	case err != nil:
		return o, fmt.Errorf("%w\n%s\n%s", err, o, logs(dir))
	case ierr != nil:
		return o, fmt.Errorf("%w\n%s", ierr, logs(dir))
	}
	return o, nil
}

// deaths are all that a scenario can be disturbed with: at every moment that was
// met, the one whose moment it is dies alone, or everybody does, or everybody else.
func deaths(moments []moment) []death {
	var list []death
	for _, m := range moments {
		if m.who == "witness" {
			continue // what only watches keeps nothing
		}
		// By its meaning where it has one: the number may differ from run to run.
		at := m.names[len(m.names)-1]
		for _, whom := range []whom{itself, everybody, onlyOthers} {
			if d := (death{Who: m.who, At: at, Whom: whom}); !slices.Contains(list, d) {
				list = append(list, d)
			}
		}
	}
	return list
}

// result is how often a scenario was run.
type result struct {
	name         string
	moments      int
	runs, missed int
	calls        map[string]int // what for a person was called who would not have been in peace: in how many runs
	took         time.Duration
}

// killed disturbs each of the scenarios, all together as many runs at once as go
// well, and prints how often what was run. pick leaves some of the deaths of the
// scenario of a number.
func killed(t *testing.T, list []*scenario, pick func(int, []death) []death) {
	t.Helper()
	results := make([]result, len(list))
	slots := make(chan struct{}, atOnce)
	var group sync.WaitGroup
	for i, s := range list {
		group.Go(func() {
			t.Run(s.name, func(t *testing.T) {
				results[i] = disturb(t, s, slots, func(all []death) []death { return pick(i, all) })
			})
		})
	}
	group.Wait()
	table(t, slices.DeleteFunc(results, func(r result) bool { return r.runs == 0 }))
}

// disturb runs a scenario once in peace and then with each of the deaths that pick
// leaves, and holds them against each other. Each run takes a slot.
func disturb(t *testing.T, s *scenario, slots chan struct{}, pick func([]death) []death) result {
	t.Helper()
	slots <- struct{}{}
	start := time.Now()
	calm, moments, err := s.calm(t.Context(), filepath.Join(t.TempDir(), "calm"))
	<-slots
	if err != nil {
		t.Fatal(err)
	}
	all := deaths(moments)
	r := result{name: s.name, moments: len(all) / 3, calls: map[string]int{}}
	var mu sync.Mutex
	var group sync.WaitGroup
	for i, d := range pick(all) {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			dir := filepath.Join(t.TempDir(), fmt.Sprint(i))
			o, at, err := s.survive(t.Context(), dir, d, calm)
			mu.Lock()
			defer mu.Unlock()
			r.runs++
			switch {
			case err != nil:
				t.Errorf("%s: %v", d, err)
			case at == "" && !optional(d):
				t.Errorf("%s: the moment never came", d)
			case at == "":
				r.missed++
			}
			for _, call := range o.callsBesides(calm) {
				r.calls[call]++
			}
		})
	}
	group.Wait()
	r.took = time.Since(start)
	return r
}

// optional reports whether a moment may not come: a commit that nothing rests on
// may be made together with another.
func optional(d death) bool { return d.Who == serverName && strings.Contains(d.At, " commit ") }

// survive makes a run with a death and compares its end with the calm one's. It
// returns the moment of the death too, "" when it did not come.
func (s *scenario) survive(ctx context.Context, dir string, d death, calm outcome) (outcome, string, error) {
	o, err := s.once(ctx, dir, d)
	if err != nil {
		return o, "", err
	}
	if err := o.differences(calm); err != nil {
		return o, "", err
	}
	at, err := died(dir)
	return o, at, err
}

// table prints how often what was run.
func table(t *testing.T, list []result) {
	t.Helper()
	var b strings.Builder
	runs := 0
	fmt.Fprintf(&b, "%-90s %8s %6s %7s %8s\n", "runbook/rung", "moments", "runs", "missed", "seconds")
	for _, r := range list {
		fmt.Fprintf(&b, "%-90s %8d %6d %7d %8.1f\n", r.name, r.moments, r.runs, r.missed, r.took.Seconds())
		for _, call := range slices.Sorted(maps.Keys(r.calls)) {
			fmt.Fprintf(&b, "    %d times a person was called: %s\n", r.calls[call], call)
		}
		runs += r.runs
	}
	t.Logf("%d runs in which somebody was killed\n%s", runs, b.String())
}

// TestKilledOnce kills once in every runbook, each time somebody else and at
// another moment; TestKilled (build tag crash) does so at every moment of every
// case.
func TestKilledOnce(t *testing.T) {
	var list []*scenario
	for _, s := range scenarios(t) {
		if !slices.ContainsFunc(list, func(o *scenario) bool { return o.runbook == s.runbook }) {
			list = append(list, s)
		}
	}
	killed(t, list, func(n int, all []death) []death {
		k := (n*7 + 3) % len(all)
		return all[k : k+1]
	})
}

// TestCalm: nobody dies.
func TestCalm(t *testing.T) {
	for i, s := range scenarios(t) {
		if testing.Short() && i%4 != 0 {
			continue // TestKilledOnce runs the first of each runbook in peace too
		}
		t.Run(s.name, func(t *testing.T) {
			o, _, err := s.calm(t.Context(), filepath.Join(t.TempDir(), "run"))
			if err != nil {
				t.Fatal(err)
			}
			t.Log("\n" + o.String())
		})
	}
}
