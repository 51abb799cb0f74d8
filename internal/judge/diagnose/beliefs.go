package diagnose

import (
	"math"
	"slices"
	"strings"
	"time"

	"fettle/internal/fettle"
)

// never and ever stand for bounds in time that nobody knows.
const (
	never = int64(math.MinInt64)
	ever  = int64(math.MaxInt64)
)

// state is what a condition counts as. The zero state is unknown.
type state int8

const (
	clear_  state = -1
	unknown state = 0
	raised  state = 1
)

// node is one condition of one subject, judged or not.
type node struct {
	reading
	spec, subj int32
	cand       int32 // its place in beliefs.cands, none if it is no candidate
	state      state
}

// reading is what the world says about a condition.
type reading struct {
	after  int64   // it began after this: never if it was never seen clear
	before int64   // and no later than this, while it is raised: ever if that is not known
	clear  int64   // when what showed it clear last was asked for, while it is clear
	yes    []int32 // the hosts that say it is there, sorted
	host   int32   // the one host whose observers know of it, none if there are several or no one
	said   state
	judged bool
}

// cand is a condition that can be a cause: raised, or unknown and able to have
// brought about one that is raised.
type cand struct {
	node int32

	// Of a raised one: what could have brought it about directly, that is with
	// nothing but unseen links between them. Sorted.
	raisedBy, supposedBy []int32 // nodes
	// The raised conditions that it could have brought about directly. Sorted.
	explains []int32 // nodes

	onset         int64 // the latest that it can have begun
	counted       bool  // the absent effects below are counted, for that onset
	always, often int32 // effects seen to be absent

	clump   int32 // of a raised one
	element int32 // its place in clump.elements; none if something raised explains it

	worth  int  // of a supposed one: what the elements it could explain cost as their own causes
	viable bool // it may be part of an explanation within the margin
	group  int32
	local  int32 // its number within that group, while it is diagnosed

	said   *fettle.Cause // what was said of it when it was chosen last; nil if something in that changed
	absent []string      // the part of it about absent effects; nil if that changed

	touched bool // its worth, price or reach changed
	stale   bool // its clump is to be built again
}

// beliefs are the conditions as the nodes of the causal graph, and what can be
// read off it: who explains whom, and what speaks against whom.
type beliefs struct {
	*knowledge
	*graph
	weights Weights
	slack   int64 // nanoseconds by which two hosts' clocks may differ

	nodes     []node
	freeNodes []int32
	cands     []cand
	freeCands []int32

	marks  []uint32 // by node
	mark   uint32
	labels []label // by node
	label  uint32

	touched []int32 // supposed candidates whose worth, price or reach changed
	stale   []int32 // raised conditions whose clump is to be built again

	walked, queue []int32 // scratch
	nodesA        []int32
	nodesB        []int32
	old, now      []int32
}

// find returns a subject's condition, none if it was never met.
func (b *beliefs) find(subj, spec int32) int32 {
	for _, s := range b.subjects[subj].nodes {
		if s.spec == spec {
			return s.node
		}
	}
	return none
}

// ensure returns it, unknown if it was never met.
func (b *beliefs) ensure(subj, spec int32) int32 {
	if n := b.find(subj, spec); n != none {
		return n
	}
	var n int32
	if last := len(b.freeNodes) - 1; last >= 0 {
		n, b.freeNodes = b.freeNodes[last], b.freeNodes[:last]
	} else {
		n = int32(len(b.nodes))
		b.nodes = append(b.nodes, node{})
		b.marks = append(b.marks, 0)
		b.labels = append(b.labels, label{})
	}
	b.nodes[n] = node{spec: spec, subj: subj, cand: none, reading: unjudged()}
	s := &b.subjects[subj]
	if s.nodes == nil {
		s.nodes = carve(&b.slotRoom, 4)
	}
	s.nodes = append(s.nodes, slot{spec, n})
	return n
}

// unjudged is the reading of a condition that nobody ever judged.
func unjudged() reading { return reading{after: never, before: ever, clear: never, host: none} }

// candidate returns the candidate record of a node, making one where there is
// none.
func (b *beliefs) candidate(n int32) int32 {
	if c := b.nodes[n].cand; c != none {
		return c
	}
	var c int32
	if last := len(b.freeCands) - 1; last >= 0 {
		c, b.freeCands = b.freeCands[last], b.freeCands[:last]
	} else {
		c = int32(len(b.cands))
		b.cands = append(b.cands, cand{})
	}
	// The slices of a record that is used again keep their room.
	old := &b.cands[c]
	b.cands[c] = cand{
		node: n, clump: none, element: none, group: none,
		raisedBy: old.raisedBy[:0], supposedBy: old.supposedBy[:0], explains: old.explains[:0],
	}
	b.nodes[n].cand = c
	return c
}

func (b *beliefs) dropCandidate(c int32) {
	b.nodes[b.cands[c].node].cand = none
	b.freeCands = append(b.freeCands, c)
}

func (b *beliefs) candOf(n int32) *cand { return &b.cands[b.nodes[n].cand] }

// price is what a cause costs. Absent effects count if they were counted.
func (b *beliefs) price(c *cand) int {
	n := &b.nodes[c.node]
	p := b.weights.Cause + b.weights.Layer*int(b.specs[n.spec].layer-fettle.Hardware)
	absent := b.weights.AbsentAlways*int(c.always) + b.weights.AbsentOften*int(c.often)
	if n.state == raised {
		return p + min(absent, b.weights.AbsentObserved)
	}
	return p + b.weights.Supposed + absent
}

func (b *beliefs) key(n int32) fettle.ConditionKey {
	return fettle.ConditionKey{Code: b.specs[b.nodes[n].spec].code, Subject: b.subjects[b.nodes[n].subj].name}
}

// compare orders nodes as their keys are ordered.
func (b *beliefs) compare(m, n int32) int {
	x, y := &b.nodes[m], &b.nodes[n]
	if x.subj != y.subj {
		return strings.Compare(string(b.subjects[x.subj].name), string(b.subjects[y.subj].name))
	}
	if x.spec == y.spec {
		return 0
	}
	return strings.Compare(string(b.specs[x.spec].code), string(b.specs[y.spec].code))
}

// newMark begins a new marking of nodes.
func (b *beliefs) newMark() {
	b.mark++
	if b.mark == 0 {
		clear(b.marks)
		b.mark = 1
	}
}

// marked marks a node and reports whether it was marked before.
func (b *beliefs) marked(n int32) bool {
	if b.marks[n] == b.mark {
		return true
	}
	b.marks[n] = b.mark
	return false
}

// touch says that what a supposed candidate is worth or costs has to be looked
// at again.
func (b *beliefs) touch(c int32) {
	if !b.cands[c].touched {
		b.cands[c].touched = true
		b.touched = append(b.touched, c)
	}
}

// stir says that something about a candidate changed that its group shows.
func (b *beliefs) stir(n int32) {
	c := b.nodes[n].cand
	if c == none {
		return
	}
	b.cands[c].said, b.cands[c].absent = nil, nil
	if b.nodes[n].state != raised {
		b.touch(c)
	}
	if b.nodes[n].state == raised || b.cands[c].clump != none {
		if !b.cands[c].stale {
			b.cands[c].stale = true
			b.stale = append(b.stale, n)
		}
	}
}

// instant turns a time into a number; the zero time into what stands for it.
func instant(t time.Time, zero int64) int64 {
	if t.IsZero() {
		return zero
	}
	return t.UnixNano()
}

// later adds a span to an instant; what is not known stays so.
func later(t, span int64) int64 {
	if t == ever || t == never {
		return t
	}
	if t > ever-1-span {
		return ever - 1
	}
	return t + span
}

func insertSorted(list *[]int32, n int32) {
	if i, found := slices.BinarySearch(*list, n); !found {
		*list = slices.Insert(*list, i, n)
	}
}

func removeSorted(list *[]int32, n int32) {
	if i, found := slices.BinarySearch(*list, n); found {
		*list = slices.Delete(*list, i, i+1)
	}
}
