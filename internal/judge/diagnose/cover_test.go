package diagnose

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawProblem draws sets and prices. The own sets and the others are mixed, as
// they are in a group.
func drawProblem(t *rapid.T, sets, things int) *problem {
	p := &problem{own: make([]int32, things)}
	var all [][]int32
	for i := range things {
		all = append(all, []int32{int32(i)})
	}
	for range sets {
		var covers []int32
		for i := range things {
			if rapid.Bool().Draw(t, "covers") && rapid.Bool().Draw(t, "covers") {
				covers = append(covers, int32(i))
			}
		}
		if len(covers) > 0 {
			all = append(all, covers)
		}
	}
	order := rapid.Permutation(all).Draw(t, "order")
	seen := make([]bool, things)
	for i, covers := range order {
		own := len(covers) == 1 && !seen[covers[0]]
		count := 1
		if own {
			seen[covers[0]] = true
			p.own[covers[0]] = int32(i)
			count = number(t, 1, 3, "count")
		}
		p.cost = append(p.cost, 10*count+number(t, 0, 20, "cost"))
		p.count = append(p.count, count)
		p.covers = append(p.covers, covers)
	}
	return p
}

// tryAll returns all choices within the margin of the best, in order.
func tryAll(p *problem, margin int) []choice {
	var all []choice
	for set := range 1 << len(p.cost) {
		c := choice{}
		covered := make([]bool, len(p.own))
		for i := range p.cost {
			if set&(1<<i) != 0 {
				c.cost, c.count, c.sets = c.cost+p.cost[i], c.count+p.count[i], append(c.sets, int32(i))
				for _, t := range p.covers[i] {
					covered[t] = true
				}
			}
		}
		if !slices.Contains(covered, false) {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, compareChoices)
	for i := range all {
		if all[i].cost > all[0].cost+margin {
			return all[:i]
		}
	}
	return all
}

// TestSolve compares the search with trying everything.
func TestSolve(t *testing.T) {
	deep := 0
	check(t, func(t *rapid.T) {
		p := drawProblem(t, number(t, 1, 6, "sets"), number(t, 1, 6, "things"))
		margin := number(t, 0, 9, "margin")
		want := tryAll(p, margin)
		got := solve(p, margin, 1000, 1_000_000)
		if got.stopped || !slices.EqualFunc(got.choices, want, func(a, b choice) bool { return compareChoices(a, b) == 0 }) {
			t.Fatalf("got %+v\nwant %+v\nof %+v", got, want, p)
		}
		if len(want) > 1 {
			deep++
		}
		for keep := range min(4, len(want)) {
			few := solve(p, margin, keep+1, 1_000_000)
			if !slices.EqualFunc(few.choices, want[:min(keep+1, len(want))], func(a, b choice) bool { return compareChoices(a, b) == 0 }) {
				t.Fatalf("keeping %d: got %+v\nwant %+v", keep+1, few.choices, want)
			}
		}
	})
	if deep < 10 {
		t.Errorf("only %d problems had more than one choice within the margin", deep)
	}
}

// TestSolveStopped: with too little work allowed the search says so, what it
// found covers everything, and the bound that it states is one.
func TestSolveStopped(t *testing.T) {
	stopped := 0
	check(t, func(t *rapid.T) {
		p := drawProblem(t, number(t, 3, 7, "sets"), number(t, 3, 6, "things"))
		got := solve(p, 3, 9, number(t, 1, 200, "work"))
		best := tryAll(p, 0)[0].cost
		if got.stopped {
			stopped++
		} else if got.choices[0].cost != best {
			t.Fatalf("found %d and did not say that it stopped; the best costs %d", got.choices[0].cost, best)
		}
		if got.least > best {
			t.Fatalf("says that nothing costs less than %d; the best costs %d", got.least, best)
		}
		for _, c := range got.choices {
			covered := make([]bool, len(p.own))
			cost := 0
			for _, s := range c.sets {
				cost += p.cost[s]
				for _, t := range p.covers[s] {
					covered[t] = true
				}
			}
			if cost != c.cost || slices.Contains(covered, false) {
				t.Fatalf("choice %+v costs %d and covers %v", c, cost, covered)
			}
		}
	})
	if stopped < 10 {
		t.Errorf("only %d searches stopped early", stopped)
	}
}
