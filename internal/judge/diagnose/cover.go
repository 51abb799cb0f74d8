package diagnose

import (
	"cmp"
	"slices"
)

// problem is the heart of a diagnosis: sets with prices, and things that must be
// covered by the cheapest choice of sets (weighted set cover). A thing is a class
// of elements that the same supposed causes could explain; its own set, which
// covers nothing else, is to say that each of them is its own cause.
//
// The sets are numbered in the order in which ties are broken.
type problem struct {
	cost   []int     // by set
	count  []int     // by set: how many causes it stands for
	covers [][]int32 // by set: the things it covers, sorted
	own    []int32   // by thing: the set that covers it alone
}

func (p *problem) equal(q *problem) bool {
	return slices.Equal(p.cost, q.cost) && slices.Equal(p.count, q.count) && slices.Equal(p.own, q.own) &&
		slices.EqualFunc(p.covers, q.covers, slices.Equal[[]int32])
}

// choice is a choice of sets that covers everything.
type choice struct {
	cost, count int
	sets        []int32 // sorted
}

// compareChoices orders by price, then by the number of causes, then by which
// has the first cause that the other does not have. All three hold for a whole
// when they hold for its parts, so parts can be solved one by one.
func compareChoices(a, b choice) int {
	return cmp.Or(cmp.Compare(a.cost, b.cost), cmp.Compare(a.count, b.count), slices.Compare(a.sets, b.sets))
}

// answer is what the search found: the best choice, then others within the
// margin, in order.
type answer struct {
	choices []choice
	stopped bool
	least   int // no choice costs less; the price of the best unless the search stopped
}

// solver searches by branch and bound. Every rule by which it leaves something
// out keeps all choices within the margin, so it finds the others too.
type solver struct {
	*problem
	margin    int
	keep      int       // how many choices are kept
	work      int       // elementary steps left
	coveredBy [][]int32 // by thing: the sets that cover it
	// By thing, for the part of the problem in hand.
	alive []bool
	sole  []int32 // the one set besides its own that covers it; none, or several
	value []int   // by set: what the things alive that it covers cost by themselves
	isIn  []bool  // by set: it is in that part of the problem
	share []int   // by thing, scratch
	left  []int   // by set, scratch
}

const several = int32(-2)

func solve(p *problem, margin, keep, work int) answer {
	s := &solver{
		problem: p, margin: margin, keep: keep, work: work,
		alive: make([]bool, len(p.own)), sole: make([]int32, len(p.own)), value: make([]int, len(p.cost)),
		isIn: make([]bool, len(p.cost)), share: make([]int, len(p.own)), left: make([]int, len(p.cost)),
	}
	sets, things := make([]int32, len(p.cost)), make([]int32, len(p.own))
	for i := range sets {
		sets[i] = int32(i)
	}
	for i := range things {
		things[i] = int32(i)
	}
	s.coveredBy = make([][]int32, len(things))
	for i, covers := range p.covers {
		for _, t := range covers {
			s.coveredBy[t] = append(s.coveredBy[t], int32(i))
		}
	}
	quick := s.greedy(sets, things)
	s.measure(sets, things)
	least := s.bound(sets, things)
	found := s.search(sets, things, quick.cost+margin)
	if len(found) == 0 || compareChoices(quick, found[0]) < 0 {
		found = s.trim(append(found, quick))
	}
	a := answer{choices: found, stopped: s.work <= 0, least: found[0].cost}
	if a.stopped {
		a.least = least
	}
	return a
}

// isOwn reports whether a set is the own set of a thing.
func (s *solver) isOwn(set int32) bool {
	c := s.covers[set]
	return len(c) == 1 && s.own[c[0]] == set
}

// reduce takes what is certain out of the problem: sets that no choice within
// the margin has, and sets that all have.
func (s *solver) reduce(sets, things []int32) (leftSets, leftThings, forced []int32) {
	for {
		s.measure(sets, things)
		kept := make([]int32, 0, len(sets))
		for _, i := range sets {
			if s.value[i] > 0 && (s.isOwn(i) || s.cost[i]-s.value[i] <= s.margin) {
				kept = append(kept, i)
			}
		}
		kept = s.undominated(kept)
		for _, i := range kept {
			if s.isOwn(i) {
				continue
			}
			for _, t := range s.covers[i] {
				if s.sole[t] == none {
					s.sole[t] = i
				} else {
					s.sole[t] = several
				}
			}
		}
		// What a set alone could explain, against what it costs.
		alone := map[int32]int{}
		for _, t := range things {
			if s.sole[t] >= 0 {
				alone[s.sole[t]] += s.cost[s.own[t]]
			}
		}
		before := len(forced)
		for _, i := range kept {
			switch {
			case s.isOwn(i):
				if s.sole[s.covers[i][0]] == none {
					forced = append(forced, i)
				}
			case alone[i] > s.cost[i]+s.margin:
				forced = append(forced, i)
			}
		}
		if before == len(forced) {
			return kept, things, forced
		}
		sets, things = s.without(kept, things, forced[before:])
	}
}

// without takes chosen sets, and what they cover, out of a problem.
func (s *solver) without(sets, things, chosen []int32) (leftSets, leftThings []int32) {
	gone := make([]bool, len(s.own))
	for _, i := range chosen {
		for _, t := range s.covers[i] {
			gone[t] = true
		}
	}
	for _, t := range things {
		if !gone[t] {
			leftThings = append(leftThings, t)
		}
	}
	for _, i := range sets {
		if !slices.Contains(chosen, i) {
			leftSets = append(leftSets, i)
		}
	}
	s.work -= len(s.own) + len(sets)*len(chosen)
	return leftSets, leftThings
}

// undominated leaves out every set that another one can stand in for, at a price
// that is lower by more than the margin.
func (s *solver) undominated(sets []int32) []int32 {
	const most = 64 // pairs cost time; past this, branching has to do
	if len(sets) > 2*most {
		return sets
	}
	kept := sets[:0:0]
	for _, i := range sets {
		dominated := false
		for _, j := range sets {
			if dominated = i != j && !s.isOwn(i) && s.cost[i] > s.cost[j]+s.margin && s.within(i, j); dominated {
				break
			}
		}
		if !dominated {
			kept = append(kept, i)
		}
	}
	s.work -= len(sets) * len(sets)
	return kept
}

// within reports whether set j covers all that is alive of set i.
func (s *solver) within(i, j int32) bool {
	b := s.covers[j]
	s.work -= len(s.covers[i]) + len(b)
	for _, t := range s.covers[i] {
		if !s.alive[t] {
			continue
		}
		at, found := slices.BinarySearch(b, t)
		if !found {
			return false
		}
		b = b[at:]
	}
	return true
}

// search returns the choices that cost at most limit and are within the margin
// of the best of them, in order.
func (s *solver) search(sets, things []int32, limit int) []choice {
	if s.work <= 0 {
		return []choice{s.greedy(sets, things)}
	}
	sets, things, forced := s.reduce(sets, things)
	base := choice{}
	for _, i := range forced {
		base = s.with(base, i)
	}
	if len(things) == 0 {
		return []choice{base}
	}
	if base.cost+s.bound(sets, things) > limit {
		return nil
	}
	parts := s.split(sets, things)
	if len(parts) == 1 {
		return s.both(base, s.branch(sets, things, limit-base.cost))
	}
	least := make([]int, len(parts))
	rest := base.cost
	for i, p := range parts {
		s.measure(p.sets, p.things)
		least[i] = s.bound(p.sets, p.things)
		rest += least[i]
	}
	found := []choice{base}
	for i, p := range parts {
		best := s.search(p.sets, p.things, limit-rest+least[i])
		if len(best) == 0 {
			return nil
		}
		found = s.product(found, best)
	}
	return found
}

// branch decides one set: with it, and without it.
func (s *solver) branch(sets, things []int32, limit int) []choice {
	pivot, gain := none, 0
	for _, i := range sets {
		if g := s.value[i] - s.cost[i]; !s.isOwn(i) && (pivot == none || g > gain) {
			pivot, gain = i, g
		}
	}
	restSets, restThings := s.without(sets, things, []int32{pivot})
	found := s.search(restSets, restThings, limit-s.cost[pivot])
	for i := range found {
		found[i] = s.with(found[i], pivot)
	}
	if len(found) > 0 {
		if s.work <= 0 {
			return found
		}
		limit = min(limit, found[0].cost+s.margin)
	}
	return s.trim(append(found, s.search(restSets, things, limit)...))
}

// with adds a set to a choice.
func (s *solver) with(c choice, set int32) choice {
	at, _ := slices.BinarySearch(c.sets, set)
	return choice{c.cost + s.cost[set], c.count + s.count[set], slices.Insert(slices.Clone(c.sets), at, set)}
}

func (s *solver) both(base choice, list []choice) []choice {
	if base.count == 0 {
		return list
	}
	return s.product([]choice{base}, list)
}

// product combines the choices for two parts that have nothing in common.
func (s *solver) product(a, b []choice) []choice {
	all := make([]choice, 0, len(a)*len(b))
	for _, x := range a {
		for _, y := range b {
			sets := slices.Concat(x.sets, y.sets)
			slices.Sort(sets)
			s.work -= len(sets)
			all = append(all, choice{x.cost + y.cost, x.count + y.count, sets})
		}
	}
	return s.trim(all)
}

func (s *solver) trim(list []choice) []choice {
	slices.SortFunc(list, compareChoices)
	list = slices.CompactFunc(list, func(a, b choice) bool { return compareChoices(a, b) == 0 })
	for i := range list {
		if i == s.keep || list[i].cost > list[0].cost+s.margin {
			return list[:i]
		}
	}
	return list
}

// part is a piece of a problem that shares nothing with the rest.
type part struct{ sets, things []int32 }

// split takes a problem apart where nothing holds it together.
func (s *solver) split(sets, things []int32) []part {
	at := make([]int32, len(s.own)) // union-find over things
	for _, t := range things {
		at[t] = t
	}
	root := func(t int32) int32 {
		for at[t] != t {
			at[t] = at[at[t]]
			t = at[t]
		}
		return t
	}
	first := func(set int32) int32 {
		for _, t := range s.covers[set] {
			if s.alive[t] {
				return t
			}
		}
		return none
	}
	for _, i := range sets {
		f := root(first(i))
		for _, t := range s.covers[i] {
			if s.alive[t] {
				at[root(t)] = f
			}
		}
		s.work -= len(s.covers[i])
	}
	place := map[int32]int{}
	var parts []part
	for _, t := range things {
		r := root(t)
		i, ok := place[r]
		if !ok {
			i = len(parts)
			place[r] = i
			parts = append(parts, part{})
		}
		parts[i].things = append(parts[i].things, t)
	}
	for _, i := range sets {
		p := &parts[place[root(first(i))]]
		p.sets = append(p.sets, i)
	}
	return parts
}
