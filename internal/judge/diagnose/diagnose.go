package diagnose

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/world"
)

// Diagnoser keeps the diagnosis of a world up to date. It is not safe for
// concurrent use.
type Diagnoser struct {
	beliefs
	watch watch
	in    intake
	looks []look // scratch

	clumps     []clump
	freeClumps []int32
	newClumps  []int32
	loose      []int32 // scratch
	chain      []int32 // scratch

	groups      []group
	freeGroups  []int32
	dirtyGroups []int32
	before      []Group          // what the groups were that are built again
	solved      map[uint64]*knot // their knots
	place       []int32          // by node: its place in the order of its group

	doubtsStale bool
	doubts      []Group

	all []Group // sorted; nil if it has to be put together
}

// New returns a diagnoser that knows of nothing yet. It reports every fault in
// the catalogues' causal knowledge and in the weights.
func New(catalogues []fettle.Catalogue, w Weights) (*Diagnoser, error) {
	if err := w.check(); err != nil {
		return nil, fmt.Errorf("diagnose: %w", err)
	}
	k, err := newKnowledge(catalogues)
	if err != nil {
		return nil, fmt.Errorf("diagnose: %w", err)
	}
	return made(k, w), nil
}

// Fresh returns a diagnoser with the same knowledge and weights that knows of
// nothing yet. The two may be used at the same time.
func (d *Diagnoser) Fresh() *Diagnoser {
	// A code that no catalogue has is added when it is met: each to its own.
	k := &knowledge{specs: slices.Clone(d.specs), codes: maps.Clone(d.codes), kinds: d.kinds}
	return made(k, d.beliefs.weights)
}

func made(k *knowledge, w Weights) *Diagnoser {
	return &Diagnoser{
		beliefs: beliefs{
			knowledge: k, graph: &graph{ids: map[fettle.Subject]int32{}},
			weights: w, slack: int64(w.ClockError),
		},
		watch:  watch{weights: w, ids: map[fettle.Subject]int32{}, doubts: map[int32]bool{}},
		solved: map[uint64]*knot{},
	}
}

// Load reads all that the world knows and returns the groups that changed. On a
// new Diagnoser that is the diagnosis from scratch.
func (d *Diagnoser) Load(w *world.World, _ time.Time) []Group {
	if len(d.ids) == 0 {
		d.readWorld(w)
		return d.digest()
	}
	all := slices.Collect(maps.Keys(d.ids)) // any order: the groups do not depend on it
	w.EachObservation(func(o *fettle.Observation) { all = append(all, o.Subject) })
	w.EachCondition(func(c *fettle.Condition) { all = append(all, c.Subject) })
	d.readSome(w, all)
	return d.digest()
}

// Update reads these subjects again and returns the groups that changed, sorted
// by key; those that are no more have nothing but Key and Gone. The subjects are
// those of every observation that the world took in since, and of every condition
// that was set or dropped: also when it only was seen clear once more, since that
// is how an effect is known to be absent.
//
// The answer follows from what was observed and when that was asked for. It does
// not depend on now, so that a replay comes to the same one.
func (d *Diagnoser) Update(w *world.World, _ time.Time, changed ...fettle.Subject) []Group {
	d.readSome(w, changed)
	return d.digest()
}

// digest takes over what was read.
func (d *Diagnoser) digest() []Group {
	first := len(d.cands) == len(d.freeCands)
	nodes := d.takeEdges(first)
	d.noteAllLooks()
	turned, shown := d.watch.settle()
	d.doubtsStale = d.doubtsStale || shown
	nodes = d.takeOver(nodes)
	if turned {
		nodes = d.reconsider(nodes)
	}
	if first {
		d.cands = slices.Grow(d.cands, 2*d.raisedAmong(nodes)) // most have something that nobody sees above them
	}
	d.relinkAll(nodes, first)
	d.rebuildClumps()
	d.judgeSupposed()
	made := d.regroup()
	for _, g := range made {
		d.groups[g].out = d.diagnose(g)
	}
	out := d.differences(made)
	d.tidy()
	return out
}

func (d *Diagnoser) raisedAmong(nodes []int32) (n int) {
	for _, x := range nodes {
		n += int(one(d.nodes[x].state == raised))
	}
	return n
}

// relinkAll looks up again the causes of every raised condition that can have
// others because of what changed.
func (d *Diagnoser) relinkAll(changed []int32, first bool) {
	var dirty []int32
	for _, x := range changed {
		dirty = append(dirty, x)
		if first {
			continue // whatever is raised has changed itself
		}
		d.below(x, func(w int32) { dirty = append(dirty, w) })
		d.stirAbove(x)
	}
	slices.Sort(dirty)
	for _, w := range slices.Compact(dirty) {
		d.relink(w)
	}
}

// differences compares the new groups with those that they come from.
func (d *Diagnoser) differences(made []int32) []Group {
	old := make(map[fettle.ConditionKey]*Group, len(d.before))
	for i := range d.before {
		old[d.before[i].Key] = &d.before[i]
	}
	var out []Group
	for _, g := range made {
		now := &d.groups[g].out
		was := old[now.Key]
		if was == nil || !was.equal(now) {
			out = append(out, *now)
		}
		delete(old, now.Key)
	}
	if d.doubtsStale {
		d.doubtsStale = false
		was := d.doubts
		d.doubts = d.doubtGroups()
		for i := range d.doubts {
			j, found := slices.BinarySearchFunc(was, d.doubts[i].Key, compareGroup)
			if !found || !was[j].equal(&d.doubts[i]) {
				out = append(out, d.doubts[i])
			}
		}
		for i := range was {
			if _, found := slices.BinarySearchFunc(d.doubts, was[i].Key, compareGroup); !found {
				out = append(out, Group{Key: was[i].Key, Gone: true})
			}
		}
	}
	for i := range d.before {
		if old[d.before[i].Key] != nil {
			out = append(out, Group{Key: d.before[i].Key, Gone: true})
		}
	}
	slices.SortFunc(out, func(a, b Group) int { return a.Key.Compare(b.Key) })
	if len(out) > 0 {
		d.all = nil
	}
	return out
}

func compareGroup(g Group, k fettle.ConditionKey) int { return g.Key.Compare(k) }

// Groups returns the present diagnosis: all groups, sorted by key. The slice and
// what is in it are shared: read only.
func (d *Diagnoser) Groups() []Group {
	if d.all == nil {
		d.all = append([]Group{}, d.doubts...)
		for i := range d.groups {
			if len(d.groups[i].clumps) > 0 {
				d.all = append(d.all, d.groups[i].out)
			}
		}
		slices.SortFunc(d.all, func(a, b Group) int { return a.Key.Compare(b.Key) })
	}
	return d.all
}

// tidy forgets what one Update needed, and subjects that nothing knows of.
func (d *Diagnoser) tidy() {
	for _, id := range d.in.read {
		d.forgetSubject(id)
	}
	for _, l := range d.in.removed {
		d.forgetSubject(l.from)
		d.forgetSubject(l.to)
	}
	clear(d.in.changes)
	clear(d.before)
	clear(d.solved)
	d.in.read, d.in.changes, d.in.sights, d.before = d.in.read[:0], d.in.changes[:0], d.in.sights[:0], d.before[:0]
	d.in.removed, d.in.added = d.in.removed[:0], d.in.added[:0]
}

func (d *Diagnoser) forgetSubject(id int32) {
	s := &d.subjects[id]
	for _, at := range s.nodes {
		if d.nodes[at.node].judged || d.nodes[at.node].cand != none {
			return
		}
	}
	nodes := s.nodes
	if d.forget(id) {
		for _, at := range nodes {
			d.freeNodes = append(d.freeNodes, at.node)
		}
	}
}
