package diagnose

import "slices"

// What the search knows about a problem without searching: what each set is worth,
// a choice that is good, and a price that nothing is below.

// measure finds what each set is worth to the things alive.
func (s *solver) measure(sets, things []int32) {
	for i := range s.alive {
		s.alive[i] = false
	}
	for _, t := range things {
		s.alive[t], s.sole[t] = true, none
	}
	for i := range s.isIn {
		s.isIn[i] = false
	}
	for _, i := range sets {
		s.value[i], s.isIn[i] = 0, true
		for _, t := range s.covers[i] {
			if s.alive[t] {
				s.value[i] += s.cost[s.own[t]]
			}
		}
		s.work -= len(s.covers[i]) + 1
	}
	s.work -= len(s.alive) + len(s.isIn)
}

// greedy takes the set that saves most, again and again, and what no set saves
// anything on by itself.
func (s *solver) greedy(sets, things []int32) choice {
	s.measure(sets, things)
	c := choice{}
	take := func(set int32) {
		c.cost, c.count, c.sets = c.cost+s.cost[set], c.count+s.count[set], append(c.sets, set)
		for _, t := range s.covers[set] {
			if s.alive[t] {
				s.alive[t] = false
				for _, i := range s.coveredBy[t] {
					s.value[i] -= s.cost[s.own[t]]
				}
			}
		}
	}
	for {
		best, gain := none, 0
		for _, i := range sets {
			if g := s.value[i] - s.cost[i]; g > gain {
				best, gain = i, g
			}
		}
		if best == none {
			break
		}
		take(best)
	}
	for _, t := range things {
		if s.alive[t] {
			take(s.own[t])
		}
	}
	slices.Sort(c.sets)
	return c
}

// bound is a price that no choice is below. Every thing pays an equal share of
// the set in which that is least; then, one after the other, as much more as is
// left of the price of every set that covers it. Together they pay for no set
// more than it costs, so for no choice either (linear programming duality).
func (s *solver) bound(sets, things []int32) int {
	const parts = 1024
	share, left := s.share, s.left
	for _, t := range things {
		share[t] = -1
	}
	for _, i := range sets {
		n := 0
		for _, t := range s.covers[i] {
			if s.alive[t] {
				n++
			}
		}
		left[i] = s.cost[i] * parts
		for _, t := range s.covers[i] {
			if p := left[i] / max(n, 1); s.alive[t] && (share[t] < 0 || p < share[t]) {
				share[t] = p
			}
		}
		s.work -= 2 * len(s.covers[i])
	}
	total := 0
	for _, i := range sets {
		for _, t := range s.covers[i] {
			if s.alive[t] {
				left[i] -= share[t]
			}
		}
	}
	for _, t := range things {
		more := -1
		for _, i := range s.coveredBy[t] {
			if s.isIn[i] && (more < 0 || left[i] < more) {
				more = left[i]
			}
		}
		more = max(more, 0)
		for _, i := range s.coveredBy[t] {
			left[i] -= more
		}
		total += share[t] + more
		s.work -= 2 * len(s.coveredBy[t])
	}
	return (total + parts - 1) / parts
}
