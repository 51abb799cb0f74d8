package member

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// table is what a node knows of the others. memberlist calls into it while it holds
// its own lock, so nothing here calls memberlist or blocks.
type table struct {
	self string
	wake chan struct{} // somebody is to be looked at
	news chan Event

	mu      sync.Mutex
	members map[string]*entry
	missed  int // events that found no room, since the last that did
	dropped int // of them all
}

// entry is one member with what is nobody else's business.
type entry struct {
	Member
	node       memberlist.Node // to send to; memberlist itself forgets the dead
	inRing     bool            // memberlist says that it is there
	beat       uint64
	theirDelay time.Duration
	trips      *samples // round trips to it

	looking bool
	looks   int       // without an answer, one after the other
	due     time.Time // the next one
}

func newTable(self string, events int) *table {
	return &table{self: self, wake: make(chan struct{}, 1), news: make(chan Event, events), members: map[string]*entry{}}
}

// tell hands an event to its reader, or counts it as missed.
func (t *table) tell(kind EventKind, e *entry, now time.Time) {
	select {
	case t.news <- Event{Kind: kind, Member: e.Member, At: now, Missed: t.missed}:
		t.missed = 0
	default:
		t.missed++
		t.dropped++
	}
}

func (e *entry) enter(s State, now time.Time) { e.State, e.Since = s, now }

// joined: memberlist says that a member is there.
func (t *table) joined(n *memberlist.Node, w wireLabel, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.members[n.Name]
	kind := Returned
	if e == nil {
		kind = Joined
		e = &entry{trips: newSamples(16)}
		t.members[n.Name] = e
	}
	e.describe(n, w)
	e.inRing, e.looks = true, 0
	e.Saw, e.SawSince, e.Looked = SawNothing, time.Time{}, time.Time{}
	e.enter(Here, now)
	t.tell(kind, e, now)
}

// updated: a member says something else of itself. It returns whether that was only a
// new beat, to be answered.
func (t *table) updated(n *memberlist.Node, w wireLabel, now time.Time) (beat bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.members[n.Name]
	if e == nil {
		return false
	}
	before, had := e.Label, e.beat
	e.describe(n, w)
	switch {
	case w.Leaving && e.State != Left:
		e.enter(Left, now)
		t.tell(Departed, e, now)
	case !w.Leaving && e.State == Left && e.inRing: // started again before it was missed
		e.enter(Here, now)
		t.tell(Returned, e, now)
	case e.Label != before:
		t.tell(Changed, e, now)
	}
	return w.Beat != had && w.Beat > 0
}

func (e *entry) describe(n *memberlist.Node, w wireLabel) {
	e.node = *n
	e.Label, e.beat = w.label(), w.Beat
	if ip, ok := netip.AddrFromSlice(n.Addr); ok {
		e.Addr = netip.AddrPortFrom(ip.Unmap(), n.Port)
	}
}

// departed: memberlist says that a member is dead, or left.
func (t *table) departed(name string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.members[name]
	if e == nil {
		return
	}
	e.inRing = false
	if e.State == Left {
		return
	}
	e.enter(Suspect, now)
	e.due, e.looks = now, 0
	t.tell(Suspected, e, now)
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// heard: a member answered this node itself. trip is 0 where it was not measured.
func (t *table) heard(name string, delay, trip time.Duration, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.members[name]; e != nil {
		e.Heard, e.theirDelay = now, delay
		if trip > 0 {
			e.trips.add(trip)
		}
	}
}

// looksMost is how many members are looked at at once. When more are suspected, most
// often the observer is ill or its machine overloaded, and each look costs packets: 200
// nodes that look at each other all at once never recover from what made them do it.
const looksMost = 8

// toLook returns whom to look at now, those first who have waited longest, marks them as
// being looked at, and says when the next one is due. It forgets whom it is time to
// forget.
func (t *table) toLook(now time.Time, forget time.Duration) (names, forgotten []string, next time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	looking := 0
	for name, e := range t.members { // any order: what is due is sorted below
		switch {
		case e.looking:
			looking++
		case e.inRing:
		case (e.State == Gone || e.State == Left) && now.Sub(e.Since) >= forget:
			t.tell(Forgotten, e, now)
			delete(t.members, name)
			forgotten = append(forgotten, name)
		case e.State == Left:
		case !e.due.After(now):
			names = append(names, name)
		case next.IsZero() || e.due.Before(next):
			next = e.due
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(t.members[a].due.Compare(t.members[b].due), cmp.Compare(a, b))
	})
	// The end of a look wakes who asks here again.
	names = names[:min(len(names), max(looksMost-looking, 0))]
	for _, name := range names {
		t.members[name].looking = true
	}
	return names, forgotten, next
}

// looked: this node has looked at a member that memberlist holds for dead. again is how
// long to wait before the next look, and answered how often it answered all the same.
func (t *table) looked(name string, saw Saw, from, now time.Time, again func(looks int) time.Duration) (looks int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.members[name]
	if e == nil {
		return 0
	}
	e.looking = false
	if e.inRing || e.State == Left {
		return 0
	}
	e.looks++
	e.due = now.Add(again(e.looks))
	before := e.Saw
	if saw == SawNothing {
		return e.looks
	}
	if saw != before {
		e.SawSince = from
	}
	e.Saw, e.Looked = saw, now
	switch {
	case saw == SawAnswer && e.State == Gone:
		e.enter(Suspect, now)
		t.tell(Changed, e, now)
	case saw == SawAnswer:
	case e.State != Gone:
		e.enter(Gone, now)
		t.tell(Lost, e, now)
	case saw != before:
		t.tell(Changed, e, now)
	}
	return e.looks
}

// find copies a member, with how to reach it.
func (t *table) find(name string) (entry, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.members[name]; e != nil {
		return *e, true
	}
	return entry{}, false
}

// here copies the members that are there, in no order.
func (t *table) here() []entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []entry
	for _, e := range t.members {
		if e.State == Here {
			all = append(all, *e)
		}
	}
	return all
}

// all copies every member, by host.
func (t *table) all() []Member {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Member, 0, len(t.members))
	for _, e := range t.members {
		all = append(all, e.Member)
	}
	slices.SortFunc(all, func(a, b Member) int { return cmp.Compare(a.Label.Host, b.Label.Host) })
	return all
}

// doubt is Doubt of what this node looks at. A member that is only suspected counts as
// gone: when all go at once, the first must not be believed before the last is lost.
func (t *table) doubt() (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	looks, gone := 0, 0
	for _, e := range t.members { // any order: they are counted
		switch e.State {
		case Here:
			looks++
		case Suspect, Gone:
			looks++
			if e.Saw != SawAnswer && e.Saw != SawRefusal {
				gone++
			}
		case Left, StateUnknown:
		}
	}
	return Doubt(looks, gone)
}

func (t *table) missedEvents() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dropped
}
