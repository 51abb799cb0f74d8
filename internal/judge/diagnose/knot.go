package diagnose

import (
	"cmp"
	"slices"
)

// knot is a part of a group that has to be decided together: elements and the
// supposed causes that they share. Everything else in a group is its own cause.
type knot struct {
	problem problem
	sets    []set // what the problem's sets stand for
	answer  answer
}

// set is a choice of causes: supposed candidates of equal reach, of which one is
// enough, or elements of which each is its own cause.
type set struct {
	twins    []int32 // nodes, the cheapest first; others within the margin behind it
	prices   []int
	elements []*element
	rank     int32 // the place of its first cause in the group
}

// class is the elements that the same viable candidates could explain.
type class struct {
	elements   []*element
	candidates []int32 // indices into the group's candidates, sorted
	rank       int32
}

// candidate is one viable candidate of a group while its knots are tied.
type candidate struct {
	node   int32
	price  int
	covers []int32 // classes
}

// tie finds the knots of a group, and solves those that it cannot take from
// before. own are the elements that only they themselves can explain.
func (d *Diagnoser) tie(g *group) (own []*element) {
	candidates := d.candidatesOf(g)
	classes, own := d.classesOf(g)
	for i := range classes {
		for _, c := range classes[i].candidates {
			candidates[c].covers = append(candidates[c].covers, int32(i))
		}
	}
	knotOf, knots := tieClasses(classes, candidates)
	sets, covers := make([][]set, knots), make([][][]int32, knots)
	things := make([]int32, knots)
	thing := make([]int32, len(classes)) // a class's number within its knot
	for i := range classes {
		k := knotOf[i]
		thing[i] = things[k]
		things[k]++
		sets[k] = append(sets[k], set{elements: classes[i].elements, rank: classes[i].rank})
		covers[k] = append(covers[k], []int32{thing[i]})
	}
	for _, twins := range d.twinsOf(candidates) {
		first := &candidates[twins[0]]
		one := set{rank: d.place[first.node]}
		for _, t := range twins {
			one.twins, one.prices = append(one.twins, candidates[t].node), append(one.prices, candidates[t].price)
		}
		local := make([]int32, len(first.covers))
		for i, c := range first.covers {
			local[i] = thing[c]
		}
		k := knotOf[first.covers[0]]
		sets[k], covers[k] = append(sets[k], one), append(covers[k], local)
	}
	for k := range sets {
		g.knots = append(g.knots, d.solveKnot(sets[k], covers[k], int(things[k])))
	}
	return own
}

// tieClasses numbers the knots: classes that share a candidate are in one.
func tieClasses(classes []class, candidates []candidate) (knotOf []int32, knots int32) {
	at := make([]int32, len(classes)) // union-find; the first of a knot is its root
	for i := range at {
		at[i] = int32(i)
	}
	root := func(i int32) int32 {
		for at[i] != i {
			at[i] = at[at[i]]
			i = at[i]
		}
		return i
	}
	for i := range candidates {
		for _, c := range candidates[i].covers[1:] {
			a, b := root(candidates[i].covers[0]), root(c)
			at[max(a, b)] = min(a, b)
		}
	}
	knotOf = make([]int32, len(classes))
	for i := range classes {
		if r := root(int32(i)); int(r) == i {
			knotOf[i] = knots
			knots++
		} else {
			knotOf[i] = knotOf[r]
		}
	}
	return knotOf, knots
}

// candidatesOf lists the viable candidates of a group, in the order of their
// keys, and remembers their places.
func (d *Diagnoser) candidatesOf(g *group) []candidate {
	for len(d.place) < len(d.nodes) {
		d.place = append(d.place, 0)
	}
	for i, n := range g.order {
		d.place[n] = int32(i)
	}
	candidates := make([]candidate, 0, len(g.supposed))
	for _, s := range g.supposed {
		c := &d.cands[s]
		candidates = append(candidates, candidate{node: c.node, price: d.price(c)})
	}
	slices.SortFunc(candidates, func(a, b candidate) int { return cmp.Compare(d.place[a.node], d.place[b.node]) })
	for i := range candidates {
		d.candOf(candidates[i].node).local = int32(i)
	}
	return candidates
}

// classesOf sorts the elements of a group by who could explain them.
func (d *Diagnoser) classesOf(g *group) (classes []class, own []*element) {
	byHash := map[uint64][]int32{}
	sign := make([]int32, 0, 16)
	for _, k := range g.clumps {
		for i := range d.clumps[k].elements {
			e := &d.clumps[k].elements[i]
			sign = sign[:0]
			for _, s := range e.supposed {
				if d.cands[s].viable {
					sign = append(sign, d.cands[s].local)
				}
			}
			if len(sign) == 0 {
				own = append(own, e)
				continue
			}
			slices.Sort(sign)
			h := hash(sign)
			at := none
			for _, c := range byHash[h] {
				if slices.Equal(classes[c].candidates, sign) {
					at = c
				}
			}
			rank := d.place[e.first]
			if at == none {
				at = int32(len(classes))
				byHash[h] = append(byHash[h], at)
				classes = append(classes, class{candidates: slices.Clone(sign), rank: rank})
			}
			c := &classes[at]
			c.elements, c.rank = append(c.elements, e), min(c.rank, rank)
		}
	}
	slices.SortFunc(classes, func(a, b class) int { return cmp.Compare(a.rank, b.rank) })
	return classes, own
}

// twinsOf puts candidates of equal reach together, the cheapest first, and
// leaves out those that cost more than the margin above it.
func (d *Diagnoser) twinsOf(candidates []candidate) [][]int32 {
	byHash := map[uint64][]int{}
	var all [][]int32
	for i := range candidates {
		h := hash(candidates[i].covers)
		at := -1
		for _, j := range byHash[h] {
			if slices.Equal(candidates[all[j][0]].covers, candidates[i].covers) {
				at = j
			}
		}
		if at < 0 {
			byHash[h] = append(byHash[h], len(all))
			all = append(all, []int32{int32(i)})
			continue
		}
		all[at] = append(all[at], int32(i))
	}
	for j, twins := range all {
		slices.SortStableFunc(twins, func(a, b int32) int { return cmp.Compare(candidates[a].price, candidates[b].price) })
		most := candidates[twins[0]].price + d.weights.Margin
		end, _ := slices.BinarySearchFunc(twins, most+1, func(t int32, price int) int { return cmp.Compare(candidates[t].price, price) })
		all[j] = twins[:end]
	}
	return all
}

// solveKnot states the problem of a knot, and solves it unless the same problem
// was solved in one of the groups that this one comes from.
func (d *Diagnoser) solveKnot(sets []set, covers [][]int32, things int) knot {
	order := make([]int32, len(sets))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { return cmp.Compare(sets[a].rank, sets[b].rank) })
	k := knot{problem: problem{own: make([]int32, things)}}
	for at, i := range order {
		s := sets[i]
		cost, count := 0, 1
		if s.elements != nil {
			count = len(s.elements)
			for _, e := range s.elements {
				cost += e.own
			}
			k.problem.own[covers[i][0]] = int32(at)
		} else {
			cost = s.prices[0]
		}
		k.sets = append(k.sets, s)
		k.problem.cost, k.problem.count = append(k.problem.cost, cost), append(k.problem.count, count)
		k.problem.covers = append(k.problem.covers, covers[i])
	}
	h := k.problem.hash()
	if old := d.solved[h]; old != nil && old.problem.equal(&k.problem) {
		k.answer = old.answer
		return k
	}
	k.answer = solve(&k.problem, d.weights.Margin, d.weights.Alternatives+1, d.weights.Work)
	return k
}

// hash is FNV-1a over whole numbers.
func hash(list []int32) uint64 {
	h := uint64(14695981039346656037)
	for _, n := range list {
		h = (h ^ uint64(uint32(n))) * 1099511628211
	}
	return h
}

func (p *problem) hash() uint64 {
	h := hash(p.own)
	for i, c := range p.cost {
		h = (h ^ uint64(c) ^ hash(p.covers[i])) * 1099511628211
	}
	return h
}
