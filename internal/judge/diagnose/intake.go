package diagnose

import (
	"slices"

	"fettle/internal/fettle"
	"fettle/internal/judge/world"
)

// intake is what was read from the world and has not been taken over yet.
type intake struct {
	changes        []change
	removed, added []link
	read           []int32 // subjects
	sights         []sighting

	links []link // scratch
}

// change is a condition whose reading is to be taken over.
type change struct {
	node int32
	reading
}

// sighting is what one host sees of a subject, by one probe or condition.
type sighting struct {
	subj, host int32
	sees       sight
}

// readWorld reads everything, on a diagnoser that knows of nothing yet.
func (d *Diagnoser) readWorld(w *world.World) {
	d.makeRoom(w.Size())
	id := none
	var name fettle.Subject
	links := d.in.links[:0]
	w.EachObservation(func(o *fettle.Observation) {
		if o.Subject != name || id == none {
			if id != none {
				d.noteLinks(id, links)
			}
			name, id, links = o.Subject, d.intern(o.Subject, d.kinds), links[:0]
		}
		links = d.readObservation(links, id, o)
	})
	if id != none {
		d.noteLinks(id, links)
	}
	d.in.links = links
	w.EachCondition(func(c *fettle.Condition) { d.readCondition(d.intern(c.Subject, d.kinds), c) })
}

// makeRoom makes room at once for what the world knows.
func (d *Diagnoser) makeRoom(subjects, conditions int) {
	d.ids = make(map[fettle.Subject]int32, subjects)
	d.subjects, d.seen = slices.Grow(d.subjects, subjects), slices.Grow(d.seen, subjects)
	all := conditions + conditions/4 // some will be supposed
	d.nodes, d.marks, d.labels = slices.Grow(d.nodes, all), slices.Grow(d.marks, all), slices.Grow(d.labels, all)
	d.arcRoom, d.slotRoom = make([]uint32, 4*subjects), make([]slot, 4*subjects)
	d.linkRoom, d.lookRoom = make([]link, 3*subjects), make([]look, 2*subjects)
	d.in.added = slices.Grow(d.in.added, 3*subjects)
	d.in.changes, d.in.sights = slices.Grow(d.in.changes, conditions), slices.Grow(d.in.sights, subjects)
}

// readSome reads these subjects, and those that an edge begins at which came or
// went: what a subject stands on decides whose word on it can be doubted.
func (d *Diagnoser) readSome(w *world.World, changed []fettle.Subject) {
	d.nextWalk()
	for _, s := range changed {
		d.read(w, d.intern(s, d.kinds))
	}
	for _, list := range [2][]link{d.in.removed, d.in.added} {
		for _, l := range list {
			d.read(w, l.from)
		}
	}
}

// read notes what the world says of a subject.
func (d *Diagnoser) read(w *world.World, id int32) {
	if d.seen[id] == d.walks { // read already
		return
	}
	d.seen[id] = d.walks
	d.in.read = append(d.in.read, id)
	links := d.in.links[:0]
	d.newMark()
	w.Each(d.subjects[id].name, func(o *fettle.Observation) {
		links = d.readObservation(links, id, o)
	}, func(c *fettle.Condition) {
		d.marked(d.readCondition(id, c))
	})
	for _, at := range d.subjects[id].nodes {
		if d.nodes[at.node].judged && d.marks[at.node] != d.mark {
			d.in.changes = append(d.in.changes, change{at.node, unjudged()})
		}
	}
	d.noteLinks(id, links)
	d.in.links = links
}

// readObservation notes who sees a subject, and the edges that it shows.
func (d *Diagnoser) readObservation(links []link, id int32, o *fettle.Observation) []link {
	for _, e := range o.Edges {
		if rel, ok := arcMask(e.Rel, false); ok {
			from := id
			if e.From != o.Subject {
				from = d.intern(e.From, d.kinds)
			}
			links = append(links, link{from, d.intern(e.To, d.kinds), rel})
		}
	}
	d.in.sights = append(d.in.sights, sighting{id, d.watch.host(o.Host, &d.subjects[id].host), sightOf(o.Reason)})
	return links
}

// readCondition notes what the world says of a condition.
func (d *Diagnoser) readCondition(id int32, c *fettle.Condition) int32 {
	spec := d.specOf(c.Code)
	n := d.ensure(id, spec)
	d.in.changes = append(d.in.changes, change{n, d.readingOf(id, c, d.specs[spec].critical)})
	return n
}

// noteLinks notes which edges the observations of a subject show no longer, and
// which they show now.
func (d *Diagnoser) noteLinks(id int32, links []link) {
	if len(links) > 1 {
		slices.SortFunc(links, compareLinks)
		links = slices.Compact(links)
	}
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
	d.subjects[id].shown = append(carve(&d.linkRoom, len(links)), links...)
}

// readingOf reduces a condition to what the diagnosis needs of it, and notes who
// sees the subject dead by it.
func (d *Diagnoser) readingOf(id int32, c *fettle.Condition, critical bool) reading {
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
	default: // unknown, and what a newer peer says that we do not know
	}
	several := false
	for i := range c.Evidence {
		e := &c.Evidence[i]
		h := d.watch.host(e.Observer.Host, &d.subjects[id].host)
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
			insertSorted(&r.yes, h)
		}
		if e.Says == fettle.Yes && critical {
			d.in.sights = append(d.in.sights, sighting{id, h, gone})
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
	if st == raised && d.doubted(n.subj, r.yes) {
		st = unknown
	}
	if d.watch.note(x, r.said != st, n.yes, r.yes) {
		d.doubtsStale = true
	}
	if n.state == st && n.judged == r.judged && n.after == r.after && n.before == r.before && n.clear == r.clear && n.host == r.host {
		if !slices.Equal(n.yes, r.yes) {
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
	if first {
		for _, l := range d.in.removed {
			d.unlink(l)
		}
		d.linkAll(d.in.added)
		return nil
	}
	for _, l := range d.in.removed {
		changed = d.endsOf(changed, l)
	}
	for _, l := range d.in.removed {
		d.unlink(l)
	}
	for _, l := range d.in.added {
		d.link(l)
	}
	for _, l := range d.in.added {
		changed = d.endsOf(changed, l)
	}
	for _, list := range [2][]link{d.in.removed, d.in.added} {
		for _, l := range list {
			for _, at := range d.subjects[l.from].nodes {
				d.stir(at.node) // its own machine may be another
			}
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
				for _, c := range d.walk(nil, from, reversed(e.hops[:i])) {
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

// reversed is the way back.
func reversed(hops []uint32) []uint32 {
	back := make([]uint32, len(hops))
	for i, h := range hops {
		back[len(hops)-1-i] = h ^ backwards
	}
	return back
}
