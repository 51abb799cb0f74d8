package diagnose

import (
	"cmp"
	"slices"

	"fettle/internal/fettle"
)

// swap is another explanation: these causes instead of those, for so much more.
type swap struct {
	more    int
	in, out []int32
}

// swapsOf lists the other explanations within the margin, the cheapest first, as
// far as they differ from the best in one place.
func (d *Diagnoser) swapsOf(g *group, own []*element) []swap {
	var swaps []swap
	for _, e := range own {
		swaps = d.loopSwaps(swaps, e, swap{})
	}
	for i := range g.knots {
		k := &g.knots[i]
		best := k.causes(nil, k.answer.choices[0])
		for j, c := range k.answer.choices {
			s := swap{more: c.cost - k.answer.choices[0].cost}
			if j > 0 {
				s.in, s.out = difference(k.causes(nil, c), best)
				swaps = append(swaps, s)
			}
			for _, at := range c.sets {
				swaps = d.twinSwaps(swaps, &k.sets[at], s)
			}
		}
	}
	for i := range swaps {
		d.sortByPlace(swaps[i].in)
		d.sortByPlace(swaps[i].out)
	}
	slices.SortFunc(swaps, func(a, b swap) int {
		return cmp.Or(cmp.Compare(a.more, b.more), cmp.Compare(len(a.in)-len(a.out), len(b.in)-len(b.out)),
			d.comparePlaces(a.in, b.in), d.comparePlaces(a.out, b.out))
	})
	return slices.Clip(swaps[:min(len(swaps), d.weights.Alternatives)])
}

func (d *Diagnoser) comparePlaces(a, b []int32) int {
	return slices.CompareFunc(a, b, func(m, n int32) int { return cmp.Compare(d.place[m], d.place[n]) })
}

// twinSwaps adds what differs from s by one cause of the set for another that
// explains the same.
func (d *Diagnoser) twinSwaps(swaps []swap, of *set, s swap) []swap {
	for i := 1; i < len(of.twins); i++ {
		if more := s.more + of.prices[i] - of.prices[0]; more <= d.weights.Margin {
			swaps = append(swaps, replace(s, of.twins[0], of.twins[i], more))
		}
	}
	for _, e := range of.elements {
		swaps = d.loopSwaps(swaps, e, s)
	}
	return swaps
}

func (d *Diagnoser) loopSwaps(swaps []swap, e *element, s swap) []swap {
	for _, n := range e.members {
		if more := s.more + d.price(d.candOf(n)) - e.own; n != e.first && more <= d.weights.Margin {
			swaps = append(swaps, replace(s, e.first, n, more))
		}
	}
	return swaps
}

// replace puts one cause in the place of another that is in the best explanation
// or came in by the swap.
func replace(s swap, old, now int32, more int) swap {
	r := swap{more: more, in: append(slices.Clone(s.in), now), out: slices.Clone(s.out)}
	if i := slices.Index(r.in, old); i >= 0 {
		r.in = slices.Delete(r.in, i, i+1)
	} else {
		r.out = append(r.out, old)
	}
	return r
}

// difference returns what is only in a, and only in b.
func difference(a, b []int32) (onlyA, onlyB []int32) {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	for _, n := range a {
		if _, both := slices.BinarySearch(b, n); !both {
			onlyA = append(onlyA, n)
		}
	}
	for _, n := range b {
		if _, both := slices.BinarySearch(a, n); !both {
			onlyB = append(onlyB, n)
		}
	}
	return onlyA, onlyB
}

func (d *Diagnoser) alternative(cost int, chosen []int32, s swap) fettle.Alternative {
	nodes := make([]int32, 0, len(chosen)+len(s.in))
	for _, n := range chosen {
		if !slices.Contains(s.out, n) {
			nodes = append(nodes, n)
		}
	}
	nodes = append(nodes, s.in...)
	d.sortByPlace(nodes)
	a := fettle.Alternative{Cost: cost + s.more, Causes: make([]fettle.ConditionKey, len(nodes))}
	for i, n := range nodes {
		a.Causes[i] = d.key(n)
	}
	return a
}

// looksOf names what would settle it: a fresh look at every cause that is only
// supposed, chosen or able to account for a burst, and at what the explanations
// that are too close to call do not agree about.
func (d *Diagnoser) looksOf(g *group, chosen []int32, swaps []swap) []fettle.Look {
	var nodes []int32
	for _, n := range chosen {
		if d.nodes[n].state != raised {
			nodes = append(nodes, n)
		}
	}
	var burst []int32
	for _, s := range g.supposed {
		if d.subjectsAt(s) >= d.weights.Burst {
			burst = append(burst, d.cands[s].node)
		}
	}
	d.sortByPlace(burst)
	nodes = append(nodes, burst...)
	for _, s := range swaps {
		nodes = append(append(nodes, s.in...), s.out...)
	}
	return d.looksAt(nodes, true)
}

// subjectsAt is how many subjects a supposed cause would account for.
func (d *Diagnoser) subjectsAt(s int32) int {
	d.nextWalk()
	n := 0
	for _, w := range d.cands[s].explains {
		if at := d.nodes[w].subj; d.candOf(w).element != none && d.seen[at] != d.walks {
			d.seen[at] = d.walks
			n++
		}
	}
	return n
}

// looksAt turns conditions into looks, the first ones first if there are too
// many, sorted; below says whether to look at the effects of what no probe sees.
func (d *Diagnoser) looksAt(nodes []int32, below bool) []fettle.Look {
	var looks []fettle.Look
	known := map[fettle.Look]bool{}
	add := func(l fettle.Look) {
		if l.Probe != "" && !known[l] && len(looks) < d.weights.Looks {
			known[l] = true
			looks = append(looks, l)
		}
	}
	for _, n := range nodes {
		k := d.key(n)
		if probe := d.specs[d.nodes[n].spec].probe; probe != "" {
			add(fettle.Look{Subject: k.Subject, Probe: probe})
		} else if below {
			for _, l := range d.looksBelow(n) {
				add(l)
			}
		}
	}
	slices.SortFunc(looks, func(a, b fettle.Look) int {
		return cmp.Or(cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Probe, b.Probe))
	})
	return looks
}

// looksBelow returns looks at up to three unknown effects, none of them a mere
// sometimes.
func (d *Diagnoser) looksBelow(n int32) []fettle.Look {
	var looks []fettle.Look
	for _, e := range d.specs[d.nodes[n].spec].effects {
		to := &d.specs[e.spec]
		if e.surely == sometimes || to.probe == "" {
			continue
		}
		for _, s := range d.walk(nil, d.nodes[n].subj, e.hops) {
			if z := d.find(s, e.spec); d.subjects[s].kind == to.kind && (z == none || d.nodes[z].state == unknown) {
				looks = append(looks, fettle.Look{Subject: d.subjects[s].name, Probe: to.probe})
			}
		}
	}
	slices.SortFunc(looks, func(a, b fettle.Look) int {
		return cmp.Or(cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Probe, b.Probe))
	})
	return looks[:min(3, len(looks))]
}
