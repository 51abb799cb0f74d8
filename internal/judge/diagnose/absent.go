package diagnose

// This file counts what speaks against a cause: effects that it should have had
// and that were seen to be absent.
//
// An effect is seen to be absent if it is known clear and what showed it clear
// was asked for after the cause had begun, the effect had had its time to show,
// and the clocks' error was over. To be clear since before proves nothing: in the
// first seconds of a burst most of its victims have not been looked at again.
//
// What an unseen link would bring about counts for what brings the link about,
// as surely as the weakest edge between them, and in the sum of their times. Each
// effect counts once, as always if any chain says so.

// label is how soon a node follows another: by a chain of always effects only,
// and by one with an often among them; ever where there is no such chain.
type label struct {
	mark          uint32
	always, often int64
}

func (b *beliefs) newLabels() {
	b.label++
	if b.label == 0 {
		clear(b.labels)
		b.label = 1
	}
}

// reached takes a chain to a node into account and reports whether it is the
// first to the node, and whether it is sooner than those before.
func (b *beliefs) reached(n int32, byAlways, byOften int64) (first, sooner bool) {
	l := &b.labels[n]
	if l.mark != b.label {
		*l = label{b.label, byAlways, byOften}
		return true, true
	}
	if byAlways < l.always {
		l.always, sooner = byAlways, true
	}
	if byOften < l.often {
		l.often, sooner = byOften, true
	}
	return false, sooner
}

// follow adds one edge to the chains that lead to its beginning.
func (l label) follow(e *effect) (byAlways, byOften int64) {
	if e.surely == always {
		return later(l.always, e.within), later(l.often, e.within)
	}
	return ever, later(min(l.always, l.often), e.within)
}

// absence says how an effect that is clear speaks against a cause.
type absence int8

const (
	notAbsent absence = iota
	oftenAbsent
	alwaysAbsent
)

// absentFrom says whether the effect n, which is labelled with how soon it
// follows, was seen to be absent after a cause that began at onset.
func (b *beliefs) absentFrom(onset int64, l label, st state, seen int64) absence {
	switch {
	case st != clear_ || onset == ever || onset == never:
		return notAbsent
	case l.always != ever && seen >= later(later(onset, l.always), b.slack):
		return alwaysAbsent
	case l.often != ever && seen >= later(later(onset, l.often), b.slack):
		return oftenAbsent
	}
	return notAbsent
}

// began is the latest that a candidate can have begun: when it was first seen,
// or else when the first of what it would explain was.
func (b *beliefs) began(c *cand) int64 {
	if b.nodes[c.node].state == raised {
		return b.nodes[c.node].before
	}
	onset := ever
	for _, w := range c.explains {
		onset = min(onset, b.nodes[w].before)
	}
	return onset
}

// count counts the absent effects of a candidate, unless that is done. visit, if
// not nil, is called with each of them, in no particular order.
func (b *beliefs) count(c int32, visit func(n int32, a absence)) {
	onset := b.began(&b.cands[c])
	if b.cands[c].counted && b.cands[c].onset == onset && visit == nil {
		return
	}
	var n [alwaysAbsent + 1]int32
	for _, z := range b.followers(b.cands[c].node) {
		a := b.absentFrom(onset, b.labels[z], b.nodes[z].state, b.nodes[z].clear)
		n[a]++
		if visit != nil && a != notAbsent {
			visit(z, a)
		}
	}
	r := &b.cands[c]
	r.counted, r.onset, r.often, r.always = true, onset, n[oftenAbsent], n[alwaysAbsent]
}

// followers labels and returns the clear conditions that should follow from s,
// by itself or through unseen links. The slice is used again by the next call.
func (b *beliefs) followers(s int32) []int32 {
	b.newLabels()
	b.reached(s, 0, ever)
	found := b.nodesA[:0]
	queue := append(b.queue[:0], s)
	for i := 0; i < len(queue); i++ {
		from := b.labels[queue[i]]
		at := b.nodes[queue[i]].subj
		effects := b.specs[b.nodes[queue[i]].spec].effects
		for j := range effects {
			e := &effects[j]
			if e.surely == sometimes {
				continue
			}
			byAlways, byOften := from.follow(e)
			to := &b.specs[e.spec]
			b.walked = b.walk(b.walked[:0], at, e.hops)
			for _, t := range b.walked {
				if b.subjects[t].kind != to.kind {
					continue
				}
				z := b.find(t, e.spec)
				if z == none {
					if !to.carries {
						continue
					}
					// A link that nobody ever judged.
					z = b.ensure(t, e.spec)
				}
				st := b.nodes[z].state
				if z == s || st == raised {
					continue
				}
				first, sooner := b.reached(z, byAlways, byOften)
				if st == clear_ && first {
					found = append(found, z)
				}
				if st == unknown && sooner && to.carries {
					queue = append(queue, z)
				}
			}
		}
	}
	b.queue, b.nodesA = queue, found
	return found
}

// leaders labels and returns the candidates whose absent effects are counted and
// that x should follow. The slice is used again by the next call.
func (b *beliefs) leaders(x int32) []int32 {
	b.newLabels()
	b.reached(x, 0, ever)
	found := b.nodesA[:0]
	queue := append(b.queue[:0], x)
	for i := 0; i < len(queue); i++ {
		from := b.labels[queue[i]]
		at := b.nodes[queue[i]].subj
		causes := b.specs[b.nodes[queue[i]].spec].causes
		for j := range causes {
			e := &causes[j]
			if e.surely == sometimes {
				continue
			}
			byAlways, byOften := from.follow(e)
			kind := b.specs[e.spec].kind
			b.walked = b.walk(b.walked[:0], at, e.hops)
			for _, s := range b.walked {
				if b.subjects[s].kind != kind {
					continue
				}
				// What was never met leads from nothing that is counted.
				u := b.find(s, e.spec)
				if u == none || u == x || b.nodes[u].state == clear_ {
					continue
				}
				first, sooner := b.reached(u, byAlways, byOften)
				if c := b.nodes[u].cand; first && c != none && b.cands[c].counted {
					found = append(found, u)
				}
				if sooner && b.nodes[u].state == unknown {
					queue = append(queue, u)
				}
			}
		}
	}
	b.queue, b.nodesA = queue, found
	return found
}

// become gives x a new reading and state, and keeps the counts of those right
// that it should follow.
func (b *beliefs) become(x int32, r reading, st state) {
	old := b.nodes[x]
	n := &b.nodes[x]
	n.reading, n.state = r, st
	if len(b.cands) == len(b.freeCands) {
		return // nobody counts
	}
	// Only an unseen condition passes effects on.
	opened := (old.state == unknown) != (st == unknown) && b.specs[old.spec].carries
	if old.state != clear_ && st != clear_ && !opened {
		return
	}
	for _, u := range b.leaders(x) {
		c := b.candOf(u)
		before := b.absentFrom(c.onset, b.labels[u], old.state, old.clear)
		after := b.absentFrom(c.onset, b.labels[u], st, r.clear)
		switch {
		case opened:
			c.counted = false
		case before == after:
			continue
		default:
			c.always += one(after == alwaysAbsent) - one(before == alwaysAbsent)
			c.often += one(after == oftenAbsent) - one(before == oftenAbsent)
		}
		b.stir(u)
	}
}

func one(yes bool) int32 {
	if yes {
		return 1
	}
	return 0
}

// uncount has the absent effects of everything that x should follow counted
// again, its own too.
func (b *beliefs) uncount(x int32) {
	for _, u := range b.leaders(x) {
		b.candOf(u).counted = false
		b.stir(u)
	}
	if c := b.nodes[x].cand; c != none {
		b.cands[c].counted = false
		b.stir(x)
	}
}
