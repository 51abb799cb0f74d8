package diagnose

import (
	"slices"

	"fettle/internal/fettle"
	"fettle/internal/judge/world"
)

// change is a condition whose reading is to be taken over.
type change struct {
	node int32
	reading
}

// intake is what one Update read from the world and has not taken over yet.
type intake struct {
	changes        []change
	removed, added []link
	read           []seen

	links []link  // scratch
	nodes []int32 // scratch
}

// seen is a subject with what the world knows of it by observation.
type seen struct {
	id           int32
	observations []fettle.Observation
	conditions   []fettle.Condition
}

// readEdges notes which edges the observations of a subject show no longer, and
// which they show now.
func (d *Diagnoser) readEdges(w *world.World, s fettle.Subject) {
	observations, conditions := w.Observations(s), w.ConditionsOf(s)
	id, known := d.ids[s]
	if !known {
		if len(observations)+len(conditions) == 0 {
			return
		}
		id = d.intern(s, d.kinds)
	}
	if d.seen[id] == d.walks { // named twice
		return
	}
	d.seen[id] = d.walks
	d.in.read = append(d.in.read, seen{id, observations, conditions})
	links := d.in.links[:0]
	for i := range observations {
		for _, e := range observations[i].Edges {
			if rel, ok := arcMask(e.Rel, false); ok {
				links = append(links, link{d.intern(e.From, d.kinds), d.intern(e.To, d.kinds), rel})
			}
		}
	}
	if len(links) > 1 {
		slices.SortFunc(links, compareLinks)
		links = slices.Compact(links)
	}
	d.in.links = links
	old := d.subjects[id].shown
	if slices.Equal(old, links) {
		return
	}
	for i, j := 0, 0; i < len(old) || j < len(links); {
		switch {
		case j == len(links) || i < len(old) && compareLinks(old[i], links[j]) < 0:
			d.in.removed = append(d.in.removed, old[i])
			i++
		case i == len(old) || compareLinks(old[i], links[j]) > 0:
			d.in.added = append(d.in.added, links[j])
			j++
		default:
			i++
			j++
		}
	}
	d.subjects[id].shown = slices.Clone(links)
}

// readConditions notes what the world says of a subject's conditions.
func (d *Diagnoser) readConditions(id int32, conditions []fettle.Condition) {
	judged := d.in.nodes[:0]
	for i := range conditions {
		c := &conditions[i]
		n := d.ensure(id, d.specOf(c.Code))
		judged = append(judged, n)
		d.in.changes = append(d.in.changes, change{n, d.readingOf(id, c)})
	}
	d.in.nodes = judged
	for _, n := range d.subjects[id].nodes {
		if d.nodes[n].judged && !slices.Contains(judged, n) {
			d.in.changes = append(d.in.changes, change{n, unjudged()})
		}
	}
}

// readingOf reduces a condition to what the diagnosis needs of it.
func (d *Diagnoser) readingOf(id int32, c *fettle.Condition) reading {
	r := unjudged()
	r.judged = true
	r.after = instant(c.LastClear, never)
	switch c.State {
	case fettle.Yes:
		r.said = raised
		r.before = instant(c.FirstSeen, instant(c.Since, ever))
	case fettle.No:
		r.said = clear_
		r.clear = r.after
	}
	several := false
	for i := range c.Evidence {
		e := &c.Evidence[i]
		h := d.watch.host(e.Observer.Host)
		switch {
		case r.host == none && !several:
			r.host = h
		case r.host != h:
			r.host, several = none, true
		}
		switch {
		case e.Says == fettle.No && r.said == clear_:
			r.clear = max(r.clear, instant(e.Asked, never))
		case e.Says == fettle.Yes && r.said == raised:
			if d.standsOn(id, d.watch.hosts[h].root) {
				r.own = true
			} else if !slices.Contains(r.yes, h) {
				r.yes = append(r.yes, h)
			}
		}
	}
	return r
}

// takeOver applies what was read of the conditions and appends those that
// changed.
func (d *Diagnoser) takeOver(changed []int32) []int32 {
	for i := range d.in.changes {
		c := &d.in.changes[i]
		if d.take(c.node, c.reading) {
			changed = append(changed, c.node)
		}
	}
	return changed
}

// reconsider takes the conditions again that rest on somebody's word, now that
// some observers turned ill or well.
func (d *Diagnoser) reconsider(changed []int32) []int32 {
	for n := range d.nodes {
		if r := d.nodes[n].reading; r.said == raised && len(r.yes) > 0 && d.take(int32(n), r) {
			changed = append(changed, int32(n))
		}
	}
	return changed
}

// take gives a condition its reading, and reports whether anything changed that
// others depend on.
func (d *Diagnoser) take(x int32, r reading) bool {
	n := &d.nodes[x]
	st := r.said
	if st == raised && d.watch.doubted(&r) {
		st = unknown
	}
	if d.watch.note(x, r.said != st, &n.reading, &r) {
		d.doubtsStale = true
	}
	if n.state == st && n.judged == r.judged && n.after == r.after && n.before == r.before && n.clear == r.clear && n.host == r.host {
		if n.own != r.own || !slices.Equal(n.yes, r.yes) {
			d.stir(x) // who sees it is part of the evidence
		}
		n.reading = r
		return false
	}
	// A clear condition that was looked at again changes only what is known to
	// be absent.
	still := n.state == clear_ && st == clear_
	d.become(x, r, st)
	return !still
}

// takeEdges changes the graph, and returns the conditions that a causal edge may
// have gained or lost. Nothing depends on the graph while there is no candidate.
func (d *Diagnoser) takeEdges(first bool) (changed []int32) {
	if !first {
		for _, l := range d.in.removed {
			changed = d.endsOf(changed, l)
		}
	}
	for _, l := range d.in.removed {
		d.unlink(l)
	}
	for _, l := range d.in.added {
		d.link(l)
	}
	if !first {
		for _, l := range d.in.added {
			changed = d.endsOf(changed, l)
		}
	}
	return changed
}

// endsOf appends the effects of all causal edges whose path has the link in it,
// and has the absent effects of their causes counted again.
func (d *Diagnoser) endsOf(to []int32, l link) []int32 {
	for s := range d.specs {
		for j := range d.specs[s].effects {
			e := &d.specs[s].effects[j]
			for i, h := range e.hops {
				if h&^backwards != l.rel {
					continue
				}
				from, dest := l.from, l.to
				if h&backwards != 0 {
					from, dest = dest, from
				}
				back := make([]uint32, 0, i)
				for k := i - 1; k >= 0; k-- {
					back = append(back, e.hops[k]^backwards)
				}
				for _, c := range d.walk(nil, from, back) {
					if n := d.find(c, int32(s)); n != none {
						d.uncount(n)
					}
				}
				for _, t := range d.walk(nil, dest, e.hops[i+1:]) {
					if n := d.find(t, e.spec); n != none {
						to = append(to, n)
					}
				}
			}
		}
	}
	return to
}
