package incident

import (
	"container/heap"
	"maps"
	"slices"
	"time"

	"fettle/internal/fettle"
)

// This file keeps what each open incident waits for, so that an input costs what it
// touches, however many incidents are open. What advance reads of the world and of the
// other incidents, by phase:
//
//   - idle: nothing but Due and whether it was poked. Who pokes is wherever something
//     happens that an incident depends on; see reap for one whose cause is not raised.
//   - settle, gather, intent, recover: Due, and the answer to its key.
//   - verify, hold: Due, its key, the two times that check goes by, whether harm came,
//     and what the expectation and the prediction are held against: see reads.
//   - clear: Due, its key, Deadline, and its cause.
//
// An incident that a look at it changed is looked at again with the next input, until
// a look changes nothing: then only these can.

// waiter is what one open incident waits for.
type waiter struct {
	r          *Record
	due, limit alarm
	gathered   string // the look that it waits for; "": none
	outcome    string // the dispatch
	target     fettle.Subject
	reads      []fettle.Subject // what its step's success was last held against; sorted
	always     bool             // that hangs on more than subjects
	works      []fettle.Subject // what its plan is at work on; see atWork
	plan       *fettle.Plan     // that works is of
	said       string           // why a person was called; "": none was
}

// waiting is an index of the open incidents, by what they wait for.
type waiting struct {
	waits    map[string]*waiter
	stale    map[string]bool // to be armed anew
	woken    map[string]bool // to be looked at with this input, or the next
	due      agenda
	limits   agenda // times that decide with the next input, and need none of their own
	gathers  map[string]string
	outcomes map[string]string
	reads    index[fettle.Subject]
	always   map[string]bool
	targets  index[fettle.Subject] // of steps whose success is awaited
	works    index[fettle.Subject]
	said     index[string]
	about    index[fettle.ConditionKey]       // by what they explain
	restless map[string]bool                  // whose cause is not raised
	past     map[fettle.ConditionKey][]string // all that ever were, by cause
	resolved []string                         // of late
	earlier  map[fettle.ConditionKey]bool     // that open incidents were about before this mind began, and of which nothing was heard since
	rises    []fettle.ConditionKey            // critical conditions that were raised while success was awaited
	distinct int                              // of rises, when they were folded last
	before   map[string]int                   // of an incident: how many of rises are from before its step
	unheard  map[fettle.Subject]bool          // hosts that have not told everything
	thorough bool                             // set by a test: everything is looked at with every input
}

func newWaiting() waiting {
	return waiting{
		waits: map[string]*waiter{}, stale: map[string]bool{}, woken: map[string]bool{}, gathers: map[string]string{}, outcomes: map[string]string{},
		reads: index[fettle.Subject]{}, always: map[string]bool{}, targets: index[fettle.Subject]{}, works: index[fettle.Subject]{},
		said: index[string]{}, about: index[fettle.ConditionKey]{}, restless: map[string]bool{}, past: map[fettle.ConditionKey][]string{},
		earlier: map[fettle.ConditionKey]bool{}, before: map[string]int{}, unheard: map[fettle.Subject]bool{},
	}
}

// index says of each key which incidents hang on it.
type index[K comparable] map[K]map[string]bool

func (x index[K]) add(k K, id string) {
	if x[k] == nil {
		x[k] = map[string]bool{}
	}
	x[k][id] = true
}

func (x index[K]) remove(k K, id string) {
	delete(x[k], id)
	if len(x[k]) == 0 {
		delete(x, k)
	}
}

// sorted are the incidents of a key.
func (x index[K]) sorted(k K) []string { return slices.Sorted(maps.Keys(x[k])) }

// move puts an incident under other keys than before.
func (x index[K]) move(id string, before, after []K) {
	for _, k := range before {
		x.remove(k, id)
	}
	for _, k := range after {
		x.add(k, id)
	}
}

// alarm is a time at which an incident is to be looked at.
type alarm struct {
	at    time.Time
	id    string
	place int // on the agenda, from 1; 0: it is not there
}

// agenda is alarms, the earliest first.
type agenda []*alarm

func (a *agenda) set(x *alarm, at time.Time) {
	switch {
	case at.IsZero() && x.place == 0:
	case at.IsZero():
		heap.Remove(a, x.place-1)
	case x.place == 0:
		x.at = at
		heap.Push(a, x)
	default:
		x.at = at
		heap.Fix(a, x.place-1)
	}
}

// ring takes those off whose time has come.
func (a *agenda) ring(now time.Time, each func(id string)) {
	for len(*a) > 0 && !now.Before((*a)[0].at) {
		each(heap.Pop(a).(*alarm).id)
	}
}

// The methods of heap.Interface; nobody else calls them. What rings together is put in
// order by who looks.

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].at.Before(a[j].at) }
func (a agenda) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].place, a[j].place = i+1, j+1
}

func (a *agenda) Push(x any) {
	e := x.(*alarm)
	*a = append(*a, e)
	e.place = len(*a)
}

func (a *agenda) Pop() any {
	e := (*a)[len(*a)-1]
	(*a)[len(*a)-1] = nil
	*a = (*a)[:len(*a)-1]
	e.place = 0
	return e
}

// isOpen reports whether an incident has not ended.
func (m *Mind) isOpen(r *Record) bool { return m.byCause[r.Cause] == r.ID }

// arm puts an incident under what it waits for now.
func (m *Mind) arm(r *Record) {
	delete(m.stale, r.ID)
	w := m.waits[r.ID]
	if !m.isOpen(r) {
		if w != nil {
			m.disarm(w)
		}
		return
	}
	if w == nil {
		w = &waiter{due: alarm{id: r.ID}, limit: alarm{id: r.ID}}
		m.waits[r.ID] = w
	}
	w.r = r
	p := &r.Progress
	m.due.set(&w.due, p.Due)
	m.limits.set(&w.limit, r.limit(m.now))
	gathered, outcome := r.awaited()
	m.await(w, gathered, outcome)
	target := fettle.Subject("")
	switch p.Phase {
	case PhaseVerify, PhaseHold:
		if n := len(p.Done); n > 0 {
			target = p.Done[n-1].Step.Target
		}
	case PhaseIntent, PhaseRecover:
		m.hangs(r, nil, false)
	case PhaseIdle, PhaseSettle, PhaseGather, PhaseClear:
		m.hangs(r, nil, false)
		delete(m.before, r.ID)
	}
	m.harken(w, target)
	m.occupies(w)
	said := ""
	if r.State == fettle.Escalated {
		said = r.Why
	}
	if said != w.said {
		m.said.move(r.ID, some(w.said), some(said))
		w.said = said
	}
	if p.Phase == PhaseIdle && r.poked {
		m.woken[r.ID] = true
	}
}

// some is a list of what there is.
func some[K comparable](k K) []K {
	var none K
	if k == none {
		return nil
	}
	return []K{k}
}

// disarm forgets what an incident waited for that has ended.
func (m *Mind) disarm(w *waiter) {
	id := w.r.ID
	m.due.set(&w.due, time.Time{})
	m.limits.set(&w.limit, time.Time{})
	m.await(w, "", "")
	m.hangs(w.r, nil, false)
	m.harken(w, "")
	m.works.move(id, w.works, nil)
	m.said.move(id, some(w.said), nil)
	m.about.move(id, w.r.Conditions, nil)
	delete(m.before, id)
	delete(m.restless, id)
	delete(m.woken, id)
	delete(m.waits, id)
}

// await says which answers an incident waits for.
func (m *Mind) await(w *waiter, gathered, outcome string) {
	if gathered != w.gathered {
		delete(m.gathers, w.gathered)
		if w.gathered = gathered; gathered != "" {
			m.gathers[gathered] = w.r.ID
		}
	}
	if outcome != w.outcome {
		delete(m.outcomes, w.outcome)
		if w.outcome = outcome; outcome != "" {
			m.outcomes[outcome] = w.r.ID
		}
	}
}

// awaited is the look, and the dispatch, whose answer moves an incident on.
func (r *Record) awaited() (gathered, outcome string) {
	switch p := &r.Progress; p.Phase {
	case PhaseSettle, PhaseGather:
		return p.Key, ""
	case PhaseIntent, PhaseRecover:
		return "", p.Key
	case PhaseVerify, PhaseHold, PhaseClear:
		return p.Key + "!", ""
	case PhaseIdle:
	}
	return "", ""
}

// limit is the next time by which check and awaitClear decide otherwise; zero: none.
func (r *Record) limit(now time.Time) time.Time {
	p := &r.Progress
	switch p.Phase {
	case PhaseVerify, PhaseHold, PhaseClear:
		if now.Before(p.Deadline) {
			return p.Deadline
		}
		if again := p.Deadline.Add(returnWait); p.Phase == PhaseVerify && now.Before(again) {
			return again
		}
	case PhaseIdle, PhaseSettle, PhaseGather, PhaseIntent, PhaseRecover:
	}
	return time.Time{}
}

// hangs says what the success of an incident's step was held against.
func (m *Mind) hangs(r *Record, reads []fettle.Subject, always bool) {
	w := m.waits[r.ID]
	if w == nil {
		return
	}
	if !slices.Equal(w.reads, reads) {
		m.reads.move(r.ID, w.reads, reads)
		w.reads = slices.Clone(reads)
	}
	if w.always = always; always {
		m.always[r.ID] = true
	} else {
		delete(m.always, r.ID)
	}
}

// harken says on what an incident's step was done whose harm is looked out for.
func (m *Mind) harken(w *waiter, target fettle.Subject) {
	if target == w.target {
		return
	}
	m.targets.move(w.r.ID, some(w.target), some(target))
	w.target = target
}

// occupies says what an incident's plan is at work on.
func (m *Mind) occupies(w *waiter) {
	switch {
	case !w.r.atWork():
		if w.works != nil {
			m.works.move(w.r.ID, w.works, nil)
			w.works, w.plan = nil, nil
		}
	case w.plan != w.r.Plan:
		works := subjects(w.r)
		m.works.move(w.r.ID, w.works, works)
		w.works, w.plan = works, w.r.Plan
	}
}

// armStale arms those of which something was changed since.
func (m *Mind) armStale() {
	// any order: each is armed by itself
	for id := range m.stale {
		m.arm(m.records[id])
	}
}

// poke has an incident considered, as soon as it waits for nothing else.
func (m *Mind) poke(r *Record) {
	r.poked = true
	m.woken[r.ID] = true
	m.stale[r.ID] = true
}

// remember puts a record among all.
func (m *Mind) remember(r *Record) {
	if m.records[r.ID] == nil {
		m.past[r.Cause] = append(m.past[r.Cause], r.ID)
	}
	m.records[r.ID] = r
	if r.State == fettle.Resolved {
		m.resolved = append(m.resolved, r.ID)
	}
}

// unremember takes a record that has ended out of all.
func (m *Mind) unremember(r *Record) {
	if w := m.waits[r.ID]; w != nil {
		m.disarm(w)
	}
	delete(m.stale, r.ID)
	delete(m.records, r.ID)
	if past := slices.DeleteFunc(m.past[r.Cause], func(id string) bool { return id == r.ID }); len(past) > 0 {
		m.past[r.Cause] = past
	} else {
		delete(m.past, r.Cause)
	}
	m.resolved = slices.DeleteFunc(m.resolved, func(id string) bool { return id == r.ID })
}

// late are the incidents that were resolved a moment ago, and that hold what is about
// this condition.
func (m *Mind) late(about fettle.ConditionKey) []string {
	m.resolved = slices.DeleteFunc(m.resolved, func(id string) bool {
		r := m.records[id]
		return r.State != fettle.Resolved || m.now.Sub(r.Ended) > 10*aftermathWait
	})
	var list []string
	for _, id := range m.resolved {
		if slices.Contains(m.records[id].Conditions, about) {
			list = append(list, id)
		}
	}
	return list
}

// explains puts other conditions into an incident.
func (m *Mind) explains(r *Record, conds []fettle.ConditionKey) {
	if m.isOpen(r) {
		m.about.move(r.ID, r.Conditions, conds)
	}
	r.Conditions = conds
}
