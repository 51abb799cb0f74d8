package diagnose

import "slices"

// This file answers who could have brought about whom.
//
// A candidate explains a raised condition directly if a chain of causal edges
// leads from it to that condition such that
//
//   - everything between the two is unknown: what is known clear carries
//     nothing, and what is raised is explained for itself and goes on from there;
//   - no edge into an unseen link is a mere "sometimes": a chain of things that
//     nobody saw is believed only as far as the catalogues are sure of it;
//   - neither the candidate nor a link began surely after the condition.

// mayPrecede reports whether u can have begun before w did, or at once with it.
// Only disjoint intervals say no, widened where different hosts' clocks tell.
func (b *beliefs) mayPrecede(u, w *node) bool {
	if u.after == never || w.before == ever {
		return true
	}
	slack := b.slack
	if u.host != none && u.host == w.host {
		slack = 0
	}
	return u.after <= later(w.before, slack)
}

// causesOf collects what could have brought about the raised condition w
// directly: the raised and the supposed, each sorted by number. The slices are
// used again by the next call.
func (b *beliefs) causesOf(w int32) (observed, supposed []int32) {
	observed, supposed = b.nodesA[:0], b.nodesB[:0]
	b.newMark()
	b.marked(w)
	queue := append(b.queue[:0], w)
	for i := 0; i < len(queue); i++ {
		v := queue[i]
		at := b.nodes[v].subj
		causes := b.specs[b.nodes[v].spec].causes
		for j := range causes {
			e := &causes[j]
			if v != w && e.surely == sometimes {
				continue
			}
			b.walked = b.walk(b.walked[:0], at, e.hops)
			kind := b.specs[e.spec].kind
			for _, s := range b.walked {
				if b.subjects[s].kind != kind {
					continue
				}
				u := b.ensure(s, e.spec)
				n := &b.nodes[u]
				if n.state == clear_ || !b.mayPrecede(n, &b.nodes[w]) || b.marked(u) {
					continue
				}
				if n.state == raised {
					observed = append(observed, u)
				} else {
					supposed = append(supposed, u)
					queue = append(queue, u)
				}
			}
		}
	}
	slices.Sort(observed)
	slices.Sort(supposed)
	b.queue, b.nodesA, b.nodesB = queue, observed, supposed
	return observed, supposed
}

// below calls visit with every raised condition that x leads to through unseen
// links only, whatever x is itself and whenever anything began: all whose causes
// can have changed because x did.
func (b *beliefs) below(x int32, visit func(w int32)) {
	b.newMark()
	b.marked(x)
	queue := append(b.queue[:0], x)
	for i := 0; i < len(queue); i++ {
		at := b.nodes[queue[i]].subj
		effects := b.specs[b.nodes[queue[i]].spec].effects
		for j := range effects {
			e := &effects[j]
			b.walked = b.walk(b.walked[:0], at, e.hops)
			kind := b.specs[e.spec].kind
			for _, s := range b.walked {
				if b.subjects[s].kind != kind {
					continue
				}
				// What was never met leads to nothing raised: causesOf meets
				// all that does.
				t := b.find(s, e.spec)
				if t == none {
					continue
				}
				switch b.nodes[t].state {
				case raised:
					if !b.marked(t) {
						visit(t)
					}
				case unknown:
					if e.surely != sometimes && !b.marked(t) {
						queue = append(queue, t)
					}
				case clear_: // carries nothing
				}
			}
		}
	}
	b.queue = queue
}

// stirAbove stirs the candidates that bring x about by one edge, however surely:
// their evidence speaks of x.
func (b *beliefs) stirAbove(x int32) {
	causes := b.specs[b.nodes[x].spec].causes
	for j := range causes {
		e := &causes[j]
		b.walked = b.walk(b.walked[:0], b.nodes[x].subj, e.hops)
		for _, s := range b.walked {
			if u := b.find(s, e.spec); u != none && b.subjects[s].kind == b.specs[e.spec].kind {
				b.stir(u)
			}
		}
	}
}

// relink looks up again what could have brought about w, if it is raised, and
// keeps both ends of that in step.
func (b *beliefs) relink(w int32) {
	var observed, supposed []int32
	if b.nodes[w].state == raised {
		b.candidate(w)
		observed, supposed = b.causesOf(w)
	} else if b.nodes[w].cand == none {
		return
	}
	b.stir(w)
	// In one go: what was supposed may be observed by now.
	c := b.candOf(w)
	b.old = merged(b.old[:0], c.raisedBy, c.supposedBy)
	b.now = merged(b.now[:0], observed, supposed)
	b.rewire(w, b.old, b.now)
	c = b.candOf(w)
	c.raisedBy = append(c.raisedBy[:0], observed...)
	c.supposedBy = append(c.supposedBy[:0], supposed...)
	// When w began bounds when these began.
	for _, p := range c.supposedBy {
		b.stir(p)
	}
}

// rewire takes w out of what the old causes explain and puts it into what the
// new ones do. Both lists are sorted.
func (b *beliefs) rewire(w int32, old, now []int32) {
	i, j := 0, 0
	for i < len(old) || j < len(now) {
		switch {
		case j == len(now) || i < len(old) && old[i] < now[j]:
			if c := b.nodes[old[i]].cand; c != none {
				removeSorted(&b.cands[c].explains, w)
				b.stir(old[i])
			}
			i++
		case i == len(old) || now[j] < old[i]:
			c := b.candidate(now[j])
			insertSorted(&b.cands[c].explains, w)
			b.stir(now[j])
			j++
		default:
			i++
			j++
		}
	}
}

// merged appends two sorted lists that have nothing in common, as one.
func merged(to, a, b []int32) []int32 {
	for len(a) > 0 && len(b) > 0 {
		if a[0] < b[0] {
			to, a = append(to, a[0]), a[1:]
		} else {
			to, b = append(to, b[0]), b[1:]
		}
	}
	return append(append(to, a...), b...)
}
