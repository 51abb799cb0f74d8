package diagnose

import "slices"

// clump is a set of raised conditions that hang together because one could have
// brought about another. Whatever explains its elements explains all of it: an
// explained effect explains its own effects, at no further cost.
type clump struct {
	members  []int32 // raised conditions
	elements []element
	group    int32
	room     []int32 // where the elements keep their candidates
}

// element is what has to be explained: a raised condition that nothing raised
// explains, or a loop of such, in which each explains all the others and none of
// them the first: one of them, or something outside, must be the cause.
type element struct {
	members  []int32 // sorted by key if there are several
	own      int     // what it costs to have its cheapest member as its own cause
	first    int32   // that member; the first by key of equals
	supposed []int32 // candidates that nobody saw and that could have brought a member about, sorted
}

// rebuildClumps builds again every clump that something changed in, and keeps what the
// supposed candidates are worth in step.
func (d *Diagnoser) rebuildClumps() {
	d.unsayAbove()
	loose := d.loose[:0]
	for i := 0; i < len(d.stale); i++ {
		n := d.stale[i]
		c := d.nodes[n].cand
		if c == none {
			continue
		}
		d.cands[c].stale = false
		if k := d.cands[c].clump; k != none {
			loose = d.release(loose, k)
		} else if d.nodes[n].state == raised {
			loose = append(loose, n)
		}
	}
	d.stale = d.stale[:0]
	for i := 0; i < len(loose); i++ {
		n := loose[i]
		if d.nodes[n].state == raised && d.candOf(n).clump == none {
			loose = d.gather(loose, n)
		}
	}
	d.loose = loose
}

// unsayAbove has everything said again about the causes of what changed, and
// about their causes: what they explain may be another.
func (d *Diagnoser) unsayAbove() {
	d.newMark()
	queue := d.chain[:0]
	for _, n := range d.stale {
		if !d.marked(n) {
			queue = append(queue, n)
		}
	}
	for i := 0; i < len(queue); i++ {
		c := d.nodes[queue[i]].cand
		if c == none {
			continue
		}
		d.cands[c].said = nil
		for _, u := range d.cands[c].raisedBy {
			if !d.marked(u) {
				queue = append(queue, u)
			}
		}
	}
	d.chain = queue
}

// release takes a clump apart and appends its members to loose.
func (d *Diagnoser) release(loose []int32, k int32) []int32 {
	c := &d.clumps[k]
	d.appraise(c, -1)
	for _, n := range c.members {
		r := d.candOf(n)
		r.clump, r.element = none, none
	}
	loose = append(loose, c.members...)
	d.disturb(c.group)
	*c = clump{members: c.members[:0], elements: c.elements[:0], room: c.room[:0], group: none}
	d.freeClumps = append(d.freeClumps, k)
	return loose
}

// appraise adds what the elements cost by themselves to the worth of those who
// could explain them, or takes it away again.
func (d *Diagnoser) appraise(c *clump, sign int) {
	for i := range c.elements {
		for _, s := range c.elements[i].supposed {
			d.cands[s].worth += sign * c.elements[i].own
			d.touch(s)
		}
	}
}

// gather builds the clump that n is in.
func (d *Diagnoser) gather(loose []int32, n int32) []int32 {
	var k int32
	if last := len(d.freeClumps) - 1; last >= 0 {
		k, d.freeClumps = d.freeClumps[last], d.freeClumps[:last]
	} else {
		k = int32(len(d.clumps))
		d.clumps = append(d.clumps, clump{group: none})
	}
	members := append(d.clumps[k].members[:0], n)
	d.candOf(n).clump = k
	for i := 0; i < len(members); i++ {
		c := d.candOf(members[i])
		for _, list := range [2][]int32{c.raisedBy, c.explains} {
			for _, m := range list {
				r := d.candOf(m)
				if r.clump == k {
					continue
				}
				if r.clump != none {
					loose = d.release(loose, r.clump)
				}
				r.clump = k
				members = append(members, m)
			}
		}
	}
	c := &d.clumps[k]
	c.members = members
	d.findElements(c)
	d.appraise(c, 1)
	d.newClumps = append(d.newClumps, k)
	return loose
}

// findElements finds the elements of a clump. Whatever can be reached from a
// member that nothing raised explains is explained; only loops that nothing
// raised leads into are left, and those are rare.
func (d *Diagnoser) findElements(c *clump) {
	d.newMark()
	queue := d.chain[:0]
	for i, n := range c.members {
		if len(d.candOf(n).raisedBy) == 0 {
			d.marked(n)
			queue = append(queue, n)
			d.addElement(c, c.members[i:i+1:i+1])
		}
	}
	for i := 0; i < len(queue); i++ {
		for _, m := range d.candOf(queue[i]).explains {
			if !d.marked(m) {
				queue = append(queue, m)
			}
		}
	}
	d.chain = queue
	if len(queue) == len(c.members) {
		return
	}
	var left []int32
	for _, n := range c.members {
		if d.marks[n] != d.mark {
			left = append(left, n)
		}
	}
	for _, loop := range d.rootLoops(left) {
		slices.SortFunc(loop, d.compare)
		d.addElement(c, loop)
	}
}

func (d *Diagnoser) addElement(c *clump, members []int32) {
	e := element{members: members, first: none}
	for _, n := range members {
		r := d.candOf(n)
		r.element = int32(len(c.elements))
		d.countOf(n)
		if price := d.price(d.candOf(n)); e.first == none || price < e.own {
			e.own, e.first = price, n
		}
	}
	at := len(c.room)
	for _, n := range members {
		for _, s := range d.candOf(n).supposedBy {
			c.room = append(c.room, d.nodes[s].cand)
		}
	}
	e.supposed = c.room[at:len(c.room):len(c.room)]
	slices.Sort(e.supposed)
	e.supposed = slices.Compact(e.supposed)
	c.elements = append(c.elements, e)
}

// countOf counts the absent effects of a raised condition where it can have any.
func (d *Diagnoser) countOf(n int32) {
	if d.specs[d.nodes[n].spec].carries {
		d.count(d.nodes[n].cand, nil)
	}
}

// rootLoops returns the strongly connected sets among these raised conditions
// that nothing raised outside of them explains (Tarjan 1972, without recursion).
// All causes of a given condition are given too.
func (d *Diagnoser) rootLoops(left []int32) [][]int32 {
	type visit struct {
		n    int32
		next int // index into what it explains
	}
	index := make(map[int32]int, len(left)) // 1 and up, in the order of discovery
	low := make(map[int32]int, len(left))
	loopOf := make(map[int32]int, len(left))
	var loops [][]int32
	var stack []int32
	for _, root := range left {
		if index[root] != 0 {
			continue
		}
		path := []visit{{n: root}}
		for len(path) > 0 {
			v := &path[len(path)-1]
			if v.next == 0 {
				index[v.n] = len(index) + 1
				low[v.n] = index[v.n]
				stack = append(stack, v.n)
			}
			explains := d.candOf(v.n).explains
			deeper := false
			for v.next < len(explains) {
				m := explains[v.next]
				v.next++
				if d.marks[m] == d.mark { // explained from elsewhere
					continue
				}
				if index[m] == 0 {
					path = append(path, visit{n: m})
					deeper = true
					break
				}
				if loopOf[m] == 0 {
					low[v.n] = min(low[v.n], index[m])
				}
			}
			if deeper {
				continue
			}
			n := v.n
			path = path[:len(path)-1]
			if len(path) > 0 {
				p := path[len(path)-1].n
				low[p] = min(low[p], low[n])
			}
			if low[n] != index[n] {
				continue
			}
			at := slices.Index(stack, n)
			loop := slices.Clone(stack[at:])
			stack = stack[:at]
			loops = append(loops, loop)
			for _, m := range loop {
				loopOf[m] = len(loops)
			}
		}
	}
	roots := loops[:0]
	for i, loop := range loops {
		isRoot := true
		for _, n := range loop {
			for _, by := range d.candOf(n).raisedBy {
				isRoot = isRoot && loopOf[by] == i+1
			}
		}
		if isRoot {
			roots = append(roots, loop)
		}
	}
	return roots
}
