package condition

import (
	"container/heap"
	"errors"
	"fmt"
	"slices"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/world"
)

// Evaluator judges the conditions of one World. It is not safe for concurrent
// use; the World's owner calls it. The zero value is not usable; call New.
type Evaluator struct {
	specs   map[fettle.Kind][]*spec // sorted by code
	readers readers
	records map[fettle.ConditionKey]*record
	resumed map[fettle.ConditionKey]time.Time // Since of what was raised before this evaluator began, until it is judged
	edges   map[fettle.Subject][]fettle.Edge  // of the observations of a subject, as they were when it was last touched
	agenda  agenda
	picks   picks

	// Room that is used again with every touch: most of what a fleet tells is that all is
	// as it was.
	room  []fettle.Observation
	keys  map[fettle.ConditionKey]job
	order []fettle.ConditionKey
}

// readers says which relations any rule reads along at all.
type readers struct{ peers, parts, whole, host bool }

// Change is a condition whose State or Flapping changed, was judged for the first
// time and is known, or ended with its subject. New evidence for the same state
// is in the World and is not a Change.
type Change struct{ Before, After fettle.Condition }

// New compiles the rules of all conditions of these scopes; of both, where none
// is given. The error names everything that is wrong with the catalogues.
func New(catalogues []fettle.Catalogue, env *expr.Env, scopes ...fettle.Scope) (*Evaluator, error) {
	e := &Evaluator{
		specs:   map[fettle.Kind][]*spec{},
		records: map[fettle.ConditionKey]*record{},
		resumed: map[fettle.ConditionKey]time.Time{},
		edges:   map[fettle.Subject][]fettle.Edge{},
		picks:   picks{},
		keys:    map[fettle.ConditionKey]job{},
	}
	probes := map[string]*fettle.ProbeSpec{}
	for i := range catalogues {
		for j := range catalogues[i].Probes {
			probes[catalogues[i].Probes[j].Name] = &catalogues[i].Probes[j]
		}
	}
	var errs []error
	codes := map[fettle.Code]bool{}
	for _, cat := range catalogues {
		for _, c := range cat.Conditions {
			if c.Code == "" || codes[c.Code] {
				errs = append(errs, fmt.Errorf("catalogue %s: condition %q is declared twice or has no code", cat.Adapter, c.Code))
				continue
			}
			codes[c.Code] = true
			if len(scopes) > 0 && !slices.Contains(scopes, c.Scope) {
				continue
			}
			s, err := compile(c, probes[c.Probe], env)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			e.add(s)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return e, nil
}

// Fresh returns an evaluator of the same conditions that has judged nothing yet.
// The compiled rules are shared; the two may be used at the same time.
func (e *Evaluator) Fresh() *Evaluator {
	return &Evaluator{
		specs: e.specs, readers: e.readers, records: map[fettle.ConditionKey]*record{},
		resumed: map[fettle.ConditionKey]time.Time{}, edges: map[fettle.Subject][]fettle.Edge{}, picks: picks{},
		keys: map[fettle.ConditionKey]job{},
	}
}

func (e *Evaluator) add(s *spec) {
	list := append(e.specs[s.Kind], s)
	slices.SortFunc(list, func(a, b *spec) int {
		return fettle.ConditionKey{Code: a.Code}.Compare(fettle.ConditionKey{Code: b.Code})
	})
	e.specs[s.Kind] = list
	e.readers.peers = e.readers.peers || s.readsPeers()
	e.readers.parts = e.readers.parts || s.readsParts()
	e.readers.whole = e.readers.whole || s.readsWhole()
	e.readers.host = e.readers.host || s.readsHost()
}

// Touch judges again whatever new observations of these subjects, which are in w
// already, can have changed: their own conditions, and those of their neighbours
// whose rules read them. It writes the conditions to w and returns what changed,
// sorted by key.
func (e *Evaluator) Touch(w *world.World, now time.Time, subjects ...fettle.Subject) []Change {
	clear(e.keys)
	t := toJudge{e: e, w: w, keys: e.keys}
	if !slices.IsSorted(subjects) {
		subjects = slices.Sorted(slices.Values(subjects))
	}
	for i, s := range subjects {
		if i == 0 || s != subjects[i-1] {
			t.touched(s)
		}
	}
	return e.judge(w, now, t.keys)
}

// Tick judges again what is due: delays and clear holds that are over,
// observations that have become too old, flapping that has ended.
func (e *Evaluator) Tick(w *world.World, now time.Time) []Change {
	keys := map[fettle.ConditionKey]job{}
	for len(e.agenda) > 0 && !now.Before(e.agenda[0].due) {
		r := heap.Pop(&e.agenda).(*record)
		keys[r.cond.ConditionKey] = job{spec: r.spec}
	}
	return e.judge(w, now, keys)
}

// Next returns when Tick next has work, and false when nothing is due unless
// something is observed.
func (e *Evaluator) Next() (time.Time, bool) {
	if len(e.agenda) == 0 {
		return time.Time{}, false
	}
	return e.agenda[0].due, true
}

func (e *Evaluator) judge(w *world.World, now time.Time, keys map[fettle.ConditionKey]job) []Change {
	order := e.order[:0]
	// any order: the keys are sorted below, and no two are equal
	for key := range keys {
		order = append(order, key)
	}
	slices.SortFunc(order, fettle.ConditionKey.Compare)
	e.order = order
	around := &surroundings{w: w, now: now, picks: e.picks}
	var changes []Change
	for i, key := range order {
		if i == 0 || key.Subject != order[i-1].Subject {
			e.room = w.AppendObservations(e.room[:0], key.Subject)
		}
		if c, changed := e.one(around, keys[key], key, e.room); changed {
			changes = append(changes, c)
		}
	}
	return changes
}

// one judges one condition.
func (e *Evaluator) one(around *surroundings, todo job, key fettle.ConditionKey, seen []fettle.Observation) (Change, bool) {
	w, now, sp := around.w, around.now, todo.spec
	r := e.records[key]
	looked := slices.ContainsFunc(seen, func(o fettle.Observation) bool { return o.Probe == sp.Probe })
	if !looked {
		return e.gone(w, todo, key, r, now)
	}
	if r == nil {
		past, restored := w.Condition(key)
		r = newRecord(sp, key, past, restored, now)
		r.resumed = e.resumed[key]
		delete(e.resumed, key)
		e.records[key] = r
	}
	before := r.cond
	words, until := around.listen(sp, r, seen)
	next := r.take(words, now)
	e.agenda.set(r, earliest(next, until))
	w.SetCondition(r.cond)
	return Change{before, r.cond}, before.State != r.cond.State || before.Flapping != r.cond.Flapping
}

// gone ends a condition whose subject the condition's probe no longer sees
// anywhere. One that was restored, and not judged since, ends only when its
// subject was touched and nothing sees it at all: else its probe may just not
// have looked yet.
func (e *Evaluator) gone(w *world.World, todo job, key fettle.ConditionKey, r *record, now time.Time) (Change, bool) {
	if r == nil {
		past, restored := w.Condition(key)
		if !restored || !todo.named || w.Known(key.Subject) {
			return Change{}, false
		}
		r = newRecord(todo.spec, key, past, true, now)
	}
	after := r.end(now)
	e.agenda.set(r, time.Time{})
	delete(e.records, key)
	delete(e.resumed, key)
	w.SetCondition(after)
	w.DropCondition(key)
	return Change{r.cond, after}, true
}
