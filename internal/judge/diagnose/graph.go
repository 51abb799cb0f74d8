package diagnose

import (
	"cmp"
	"slices"
	"strings"

	"fettle/internal/fettle"
)

// graph mirrors the world's subject graph with small numbers for subjects, so
// that walking a path costs nanoseconds. Every edge is kept as often as there
// are subjects whose observations show it.
type graph struct {
	ids      map[fettle.Subject]int32
	subjects []subject
	free     []int32 // ids that are no longer used

	seen  []uint32 // by subject: the walk that met it last
	walks uint32
	a, b  []int32 // the subjects at the present and the next hop of a walk

	// Room for the lists of many subjects at once, while the world is loaded.
	arcRoom  []uint32
	slotRoom []slot
	linkRoom []link
	lookRoom []look
}

// carve takes a list of this capacity from room, or makes one if there is none
// left.
func carve[T any](room *[]T, capacity int) []T {
	if len(*room) < capacity {
		return make([]T, 0, capacity)
	}
	list := (*room)[:0:capacity]
	*room = (*room)[capacity:]
	return list
}

// subject is one subject with its arcs, as a sorted list of direction and
// relation (see arcMask) joined with the subject at the other end.
type subject struct {
	name  fettle.Subject
	root  string // the escaped first segment of its name: what it belongs to
	kind  int32
	arcs  []uint32
	nodes []slot // its conditions
	shown []link // the edges that its own observations show, sorted
	looks []look // who looks at it from another host
	host  int32  // who was met last as its observer
}

// slot is a condition of a subject: what it is, and its place in beliefs.nodes.
type slot struct{ spec, node int32 }

// link is an edge between subjects.
type link struct {
	from, to int32
	rel      uint32 // arcMask, forwards
}

const (
	backwards = uint32(1) << 31
	relShift  = 29
	idMask    = uint32(1)<<relShift - 1
)

// arcMask is the part of an arc above the subject's number; false for a relation
// that no path can name.
func arcMask(rel fettle.Relation, back bool) (uint32, bool) {
	var m uint32
	switch rel {
	case fettle.RunsOn:
	case fettle.PartOf:
		m = 1 << relShift
	case fettle.Uses:
		m = 2 << relShift
	case fettle.In:
		m = 3 << relShift
	default:
		return 0, false
	}
	if back {
		m |= backwards
	}
	return m, true
}

func (g *graph) intern(s fettle.Subject, kinds map[fettle.Kind]int32) int32 {
	if id, ok := g.ids[s]; ok {
		return id
	}
	kind, ok := kinds[s.Kind()]
	if !ok {
		kind = none - 1 // no condition is of this kind
	}
	var id int32
	if n := len(g.free); n > 0 {
		id, g.free = g.free[n-1], g.free[:n-1]
	} else {
		id = int32(len(g.subjects))
		g.subjects = append(g.subjects, subject{})
		g.seen = append(g.seen, 0)
	}
	g.subjects[id] = subject{name: s, root: rootText(s), kind: kind}
	g.ids[s] = id
	return id
}

// forget gives a subject's number back if nothing refers to it any more.
func (g *graph) forget(id int32) bool {
	s := &g.subjects[id]
	if s.name == "" || len(s.arcs)+len(s.shown)+len(s.looks) > 0 {
		return false
	}
	delete(g.ids, s.name)
	*s = subject{}
	g.free = append(g.free, id)
	return true
}

func (g *graph) link(l link) {
	g.insertArc(&g.subjects[l.from].arcs, l.rel|uint32(l.to))
	g.insertArc(&g.subjects[l.to].arcs, l.rel|backwards|uint32(l.from))
}

// linkAll links much at once: shared things have thousands of arcs, and to put
// each in its place would move all that come after it.
func (g *graph) linkAll(links []link) {
	if len(links) < len(g.subjects) {
		for _, l := range links {
			g.link(l)
		}
		return
	}
	for _, l := range links {
		from, to := &g.subjects[l.from], &g.subjects[l.to]
		if from.arcs == nil {
			from.arcs = carve(&g.arcRoom, 4)
		}
		from.arcs = append(from.arcs, l.rel|uint32(l.to))
		if to.arcs == nil {
			to.arcs = carve(&g.arcRoom, 4)
		}
		to.arcs = append(to.arcs, l.rel|backwards|uint32(l.from))
	}
	for i := range g.subjects {
		slices.Sort(g.subjects[i].arcs)
	}
}

func (g *graph) unlink(l link) {
	removeArc(&g.subjects[l.from].arcs, l.rel|uint32(l.to))
	removeArc(&g.subjects[l.to].arcs, l.rel|backwards|uint32(l.from))
}

func (g *graph) insertArc(arcs *[]uint32, a uint32) {
	if *arcs == nil {
		*arcs = carve(&g.arcRoom, 4)
	}
	i, _ := slices.BinarySearch(*arcs, a)
	*arcs = slices.Insert(*arcs, i, a)
}

func removeArc(arcs *[]uint32, a uint32) {
	if i, ok := slices.BinarySearch(*arcs, a); ok {
		*arcs = slices.Delete(*arcs, i, i+1)
	}
}

// hop appends the subjects one hop away, each once.
func (g *graph) hop(to []int32, from int32, mask uint32) []int32 {
	arcs := g.subjects[from].arcs
	i := 0
	if len(arcs) > 16 {
		i, _ = slices.BinarySearch(arcs, mask)
	}
	last := ^uint32(0)
	for ; i < len(arcs); i++ {
		switch a := arcs[i]; {
		case a&^idMask < mask || a == last:
		case a&^idMask > mask:
			return to
		default:
			last = a
			to = append(to, int32(a&idMask))
		}
	}
	return to
}

// walk appends the subjects at the end of a path, each once. They come in the
// order of their numbers along the way, which is not an order to show.
func (g *graph) walk(to []int32, from int32, hops []uint32) []int32 {
	switch len(hops) {
	case 0:
		return append(to, from)
	case 1:
		return g.hop(to, from, hops[0])
	}
	at, next := g.hop(g.a[:0], from, hops[0]), g.b[:0]
	for _, h := range hops[1:] {
		g.nextWalk()
		next = next[:0]
		for _, s := range at {
			fresh := len(next)
			next = g.hop(next, s, h)
			kept := next[:fresh]
			for _, t := range next[fresh:] {
				if g.seen[t] != g.walks {
					g.seen[t] = g.walks
					kept = append(kept, t)
				}
			}
			next = kept
		}
		at, next = next, at
	}
	g.a, g.b = at, next
	return append(to, at...)
}

func (g *graph) nextWalk() {
	g.walks++
	if g.walks == 0 { // four thousand million walks later
		clear(g.seen)
		g.walks = 1
	}
}

func compareLinks(a, b link) int {
	return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.rel, b.rel), cmp.Compare(a.to, b.to))
}

// standsOn reports whether a subject belongs to the machine with this root, or
// runs on a part of it.
func (g *graph) standsOn(id int32, root string) bool {
	s := &g.subjects[id]
	if s.root == root {
		return true
	}
	for _, a := range s.arcs {
		if a&^idMask != 0 { // runs-on comes first
			return false
		}
		if g.subjects[a].root == root {
			return true
		}
	}
	return false
}

func rootText(s fettle.Subject) string {
	_, rest, _ := strings.Cut(string(s), ":")
	root, _, _ := strings.Cut(rest, "/")
	return root
}
