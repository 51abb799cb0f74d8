package diagnose

import (
	"slices"

	"fettle/internal/fettle"
)

// Group is what must be diagnosed together: raised conditions, and the candidate
// causes that could have a part in explaining them. Its slices are shared with
// the Diagnoser: read only.
type Group struct {
	// Key is the first of the raised members, or the first observer of a group
	// that is about observers.
	Key       fettle.ConditionKey
	Members   []fettle.ConditionKey // sorted; the supposed candidates too
	Diagnosis fettle.Diagnosis
	Gone      bool // there is no such group any more
}

// group is the same with numbers: clumps that are joined by supposed causes
// which are viable for more than one of them.
type group struct {
	clumps   []int32
	supposed []int32 // viable candidates, in no particular order
	order    []int32 // the nodes of its members, sorted by key
	starts   []int32 // while order is put together: where its sorted runs start
	run      int32   // and which run the last one came from
	knots    []knot
	dirty    bool
	out      Group
}

// disturb says that a group has to be built again.
func (d *Diagnoser) disturb(g int32) {
	if g != none && !d.groups[g].dirty {
		d.groups[g].dirty = true
		d.dirtyGroups = append(d.dirtyGroups, g)
	}
}

// judgeSupposed looks at every supposed candidate that something changed about.
//
// One is viable if it can be part of an explanation within the margin of the
// best. If it costs more, by more than the margin, than all that it could
// explain costs by itself, then every explanation with it is out: what it alone
// explains could be said to be its own cause for less. Such a candidate joins
// nothing, which is what keeps a thing that everything shares, and that nobody
// looks at, from making one group of the whole fleet.
func (d *Diagnoser) judgeSupposed() {
	for _, i := range d.touched {
		c := &d.cands[i]
		c.touched = false
		supposed := d.nodes[c.node].state == unknown
		viable := false
		if supposed && len(c.explains) > 0 {
			viable = d.viable(i)
			c = &d.cands[i]
		}
		if viable || c.viable {
			for _, w := range c.explains {
				if r := d.candOf(w); r.element != none {
					d.disturbClump(r.clump)
				}
			}
		}
		c.viable = viable
		if !viable {
			c.group = none
		}
		if d.nodes[c.node].state != raised && len(c.explains) == 0 {
			d.dropCandidate(i)
		}
	}
	d.touched = d.touched[:0]
}

func (d *Diagnoser) viable(i int32) bool {
	c := &d.cands[i]
	if c.worth == 0 {
		return false
	}
	least := d.price(&cand{node: c.node})
	if least-c.worth > d.weights.Margin {
		return false // whatever its effects say
	}
	d.count(i, nil)
	c = &d.cands[i]
	return d.price(c)-c.worth <= d.weights.Margin
}

func (d *Diagnoser) disturbClump(k int32) {
	if g := d.clumps[k].group; g != none {
		d.disturb(g)
	}
}

// regroup builds all groups that were disturbed, and those of new clumps.
func (d *Diagnoser) regroup() (made []int32) {
	var seeds []int32
	for i := 0; i < len(d.dirtyGroups); i++ {
		seeds = d.dissolve(seeds, d.dirtyGroups[i])
	}
	for _, k := range d.newClumps {
		if d.clumps[k].group == none && len(d.clumps[k].members) > 0 {
			seeds = append(seeds, k)
		}
	}
	d.newClumps = d.newClumps[:0]
	for i := 0; i < len(seeds); i++ {
		k := seeds[i]
		if len(d.clumps[k].members) > 0 && d.clumps[k].group == none {
			var g int32
			g, seeds = d.join(k, seeds)
			made = append(made, g)
		}
	}
	d.sortMembers(made)
	for _, g := range d.dirtyGroups {
		old := &d.groups[g]
		d.before = append(d.before, old.out)
		for i := range old.knots {
			d.solved[old.knots[i].problem.hash()] = &old.knots[i]
		}
		*old = group{clumps: old.clumps[:0], supposed: old.supposed[:0], order: old.order[:0], starts: old.starts[:0]}
		d.freeGroups = append(d.freeGroups, g)
	}
	d.dirtyGroups = d.dirtyGroups[:0]
	return made
}

// dissolve takes the clumps of a group out of it.
func (d *Diagnoser) dissolve(seeds []int32, g int32) []int32 {
	for _, k := range d.groups[g].clumps {
		// The number of a clump that is gone may be in use again.
		if d.clumps[k].group == g {
			d.clumps[k].group = none
			seeds = append(seeds, k)
		}
	}
	return seeds
}

// join makes the group that clump k is in.
func (d *Diagnoser) join(k int32, seeds []int32) (int32, []int32) {
	g := int32(len(d.groups))
	if last := len(d.freeGroups) - 1; last >= 0 {
		g, d.freeGroups = d.freeGroups[last], d.freeGroups[:last]
	} else {
		d.groups = append(d.groups, group{})
	}
	d.groups[g].dirty = false
	clumps, supposed := append(d.groups[g].clumps[:0], k), d.groups[g].supposed[:0]
	d.clumps[k].group = g
	for i := 0; i < len(clumps); i++ {
		for j := range d.clumps[clumps[i]].elements {
			for _, s := range d.clumps[clumps[i]].elements[j].supposed {
				c := &d.cands[s]
				if !c.viable || c.group == g {
					continue
				}
				c.group = g
				supposed = append(supposed, s)
				for _, w := range c.explains {
					r := d.candOf(w)
					if r.element == none || d.clumps[r.clump].group == g {
						continue
					}
					if old := d.clumps[r.clump].group; old != none {
						d.disturb(old)
						seeds = d.dissolve(seeds, old)
					}
					d.clumps[r.clump].group = g
					clumps = append(clumps, r.clump)
				}
			}
		}
	}
	d.groups[g].clumps, d.groups[g].supposed = clumps, supposed
	return g, seeds
}

// sortMembers puts the members of new groups in the order of their keys. Most of
// them come out of the old groups in order already; only what is new is sorted.
func (d *Diagnoser) sortMembers(made []int32) {
	d.newMark()
	place := func(n, g, run int32) {
		if g == none || d.marked(n) {
			return
		}
		r := &d.groups[g]
		if r.run != run || len(r.starts) == 0 {
			r.run, r.starts = run, append(r.starts, int32(len(r.order)))
		}
		r.order = append(r.order, n)
	}
	for i, old := range d.dirtyGroups {
		for _, n := range d.groups[old].order {
			place(n, d.groupOf(n), int32(i))
		}
	}
	var fresh []int32
	for _, g := range made {
		for _, k := range d.groups[g].clumps {
			for _, n := range d.clumps[k].members {
				if d.marks[n] != d.mark {
					fresh = append(fresh, n)
				}
			}
		}
		for _, s := range d.groups[g].supposed {
			if n := d.cands[s].node; d.marks[n] != d.mark {
				fresh = append(fresh, n)
			}
		}
	}
	slices.SortFunc(fresh, d.compare)
	for _, n := range fresh {
		place(n, d.groupOf(n), int32(len(d.dirtyGroups)))
	}
	for _, g := range made {
		r := &d.groups[g]
		for i := 1; i < len(r.starts); i++ {
			end := len(r.order)
			if i+1 < len(r.starts) {
				end = int(r.starts[i+1])
			}
			d.merge(r.order[:end], int(r.starts[i]))
		}
		r.starts = r.starts[:0]
	}
}

// groupOf returns the group that a node is a member of.
func (d *Diagnoser) groupOf(n int32) int32 {
	c := d.nodes[n].cand
	switch {
	case c == none:
		return none
	case d.nodes[n].state == raised:
		return d.clumps[d.cands[c].clump].group
	case d.cands[c].viable:
		return d.cands[c].group
	}
	return none
}

// merge merges two sorted parts of a list. The second is usually short.
func (d *Diagnoser) merge(list []int32, at int) {
	tail := append(d.chain[:0], list[at:]...)
	d.chain = tail
	end := at
	for i := len(tail) - 1; i >= 0; i-- {
		j, _ := slices.BinarySearchFunc(list[:end], tail[i], d.compare)
		copy(list[j+i+1:], list[j:end])
		list[j+i] = tail[i]
		end = j
	}
}
