// Package incident is the mind: the pure state machine that takes in what was
// observed, answered and done, keeps every incident's story, and says what is to
// be done next.
//
// It does nothing itself. The loop feeds it inputs, one after the other, each
// with its time, and carries out the decisions that come back: gather facts,
// make an intent durable and dispatch the step, ask what became of a key, keep a
// record. The same inputs give the same decisions, bit for bit; that is what
// `fettle replay` and the simulator rest on.
//
// Its invariants: no dispatch without an Intend decision before it, none without
// every guard's yes on facts gathered for that very step; one dispatch in flight
// an incident; a key is never reused; what is not known to have happened is asked
// for, never assumed; a record handed out by Save is enough to go on from after a
// crash at any point.
package incident

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/condition"
	"fettle/internal/judge/diagnose"
	"fettle/internal/judge/expr"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/runbook"
	"fettle/internal/judge/world"
)

// Options is what a Mind judges with.
type Options struct {
	Catalogues []fettle.Catalogue
	Books      func(*expr.Env, []fettle.Catalogue) (*runbook.Set, error) // called with the joined catalogues
	Policy     fettle.Policy
	// Evaluates lists the scopes of the conditions judged here; those of other
	// scopes arrive judged, from the agents. None: all.
	Evaluates []fettle.Scope
	// Permit is the standing permit under which an agent that is cut off judges by
	// itself (S12). nil: this is a server's mind, or a person is there.
	Permit *fettle.Permit
}

// Mind holds the world and the incidents. Not safe for concurrent use.
type Mind struct {
	cats    []fettle.Catalogue
	specs   map[fettle.Code]*fettle.ConditionSpec
	acts    map[string]*fettle.ActionSpec
	causes  map[fettle.Code][]upstream // what can bring this about
	env     *expr.Env
	books   *runbook.Set
	world   *world.World
	cond    *condition.Evaluator
	diag    *diagnose.Diagnoser
	policy  fettle.Policy
	pins    fettle.Pins
	leader  bool
	permit  *fettle.Permit
	freeze  *guard.Freeze
	windows []guard.Window // of maintenance, sorted by ID
	turn    time.Time      // when the next of them opens or closes; zero: none does

	groups  map[fettle.ConditionKey]diagnose.Group
	groupOf map[fettle.ConditionKey]fettle.ConditionKey // from a member to its group's key
	leads   map[fettle.Code][]fettle.Path               // from a critical condition to what can bring it about, in one or two hops
	waiting
	records   map[string]*Record
	byCause   map[fettle.ConditionKey]string // of incidents that have not ended; see opens
	open      []string                       // their IDs, sorted
	attempts  []guard.Attempt
	programs  map[string]*expr.Program
	decisions []Decision
	dirty     map[string]bool         // records to save
	spokenOf  map[fettle.Subject]bool // room for absorb
	now       time.Time
	began     time.Time       // the first input's
	waived    map[string]bool // set by a test: what these guards refuse is allowed
}

type upstream struct {
	code fettle.Code
	path fettle.Path // from the effect's subject back to the cause's
}

// New returns a Mind that knows nothing yet. It checks catalogues and runbooks
// against each other; the error names every mistake.
func New(o Options) (*Mind, error) {
	cats := fettle.Join(o.Catalogues)
	env, err := expr.New(cats)
	if err != nil {
		return nil, err
	}
	books, err := o.Books(env, cats)
	if err != nil {
		return nil, err
	}
	cond, err := condition.New(cats, env, o.Evaluates...)
	if err != nil {
		return nil, err
	}
	diag, err := diagnose.New(cats, diagnose.DefaultWeights())
	if err != nil {
		return nil, err
	}
	m := &Mind{
		cats: cats, env: env, books: books, cond: cond, diag: diag,
		policy: o.Policy, pins: pins(cats, books, o.Policy), world: world.New(), leader: true, permit: o.Permit,
		specs: map[fettle.Code]*fettle.ConditionSpec{}, acts: map[string]*fettle.ActionSpec{},
		causes: map[fettle.Code][]upstream{}, groups: map[fettle.ConditionKey]diagnose.Group{}, groupOf: map[fettle.ConditionKey]fettle.ConditionKey{},
		records: map[string]*Record{}, byCause: map[fettle.ConditionKey]string{},
		spokenOf: map[fettle.Subject]bool{},
		programs: map[string]*expr.Program{}, dirty: map[string]bool{}, waiting: newWaiting(), leads: map[fettle.Code][]fettle.Path{},
	}
	m.index()
	m.world.Follow()
	return m, nil
}

// Version is the judge's: it changes when the same inputs may lead to another
// decision, so that a replay can tell a changed judge from a changed world.
const Version = "1"

// pins are the hashes of what this mind judges with.
func pins(cats []fettle.Catalogue, books *runbook.Set, policy fettle.Policy) fettle.Pins {
	data, err := json.Marshal(cats)
	if err != nil {
		data = nil // catalogues are plain data; there is nothing that could fail
	}
	sum := sha256.Sum256(data)
	return fettle.Pins{Judge: Version, Catalogue: hex.EncodeToString(sum[:]), Runbooks: books.Hash(), Policy: policy.Hash}
}

// Pins returns the hashes of what this mind judges with.
func (m *Mind) Pins() fettle.Pins { return m.pins }

func (m *Mind) index() {
	for i := range m.cats {
		for j := range m.cats[i].Conditions {
			spec := &m.cats[i].Conditions[j]
			m.specs[spec.Code] = spec
			for _, e := range spec.Effects {
				m.causes[e.Condition] = append(m.causes[e.Condition], upstream{spec.Code, e.Path.Reverse()})
			}
		}
		for j := range m.cats[i].Actions {
			m.acts[m.cats[i].Actions[j].Name] = &m.cats[i].Actions[j]
		}
	}
	// any order: each has a list of its own
	for code, spec := range m.specs {
		if spec.Severity != fettle.Critical {
			continue
		}
		for _, up := range m.causes[code] {
			m.leads[code] = append(m.leads[code], up.path)
			for _, up2 := range m.causes[up.code] {
				m.leads[code] = append(m.leads[code], join2(up.path, up2.path))
			}
		}
		slices.Sort(m.leads[code])
		m.leads[code] = slices.Compact(m.leads[code])
	}
}

// Take takes one input in and returns what is to be done, in order.
func (m *Mind) Take(in Input) []Decision {
	m.now = in.At
	if m.began.IsZero() {
		m.began = in.At
	}
	m.decisions = nil
	touched := m.absorb(in)
	m.judge(touched)
	m.answer(in)
	if in.Merged != nil {
		m.merge(*in.Merged)
	}
	m.advanceAll(in)
	m.forget(in.Forget)
	for _, id := range slices.Sorted(maps.Keys(m.dirty)) {
		m.decisions = append(m.decisions, Decision{Kind: Save, Incident: id, Record: m.records[id].clone()})
	}
	clear(m.dirty)
	out := m.decisions
	m.decisions = nil
	return order(out)
}

// order puts Save first: what a decision rests on is kept before it is carried
// out.
func order(list []Decision) []Decision {
	slices.SortStableFunc(list, func(a, b Decision) int { return rank(a) - rank(b) })
	return list
}

func rank(d Decision) int {
	if d.Kind == Save {
		return 0
	}
	return 1
}

// absorb puts facts and states where they belong and returns the subjects that
// they speak of.
func (m *Mind) absorb(in Input) []fettle.Subject {
	seen := m.spokenOf
	clear(seen)
	for _, o := range in.Observations {
		as := m.world.Shows(o.Subject, o.Observer(), o.Edges)
		if !m.world.Observe(o) {
			continue
		}
		seen[o.Subject] = true
		if as { // of what it hangs on nothing is new
			continue
		}
		for _, e := range o.Edges {
			seen[e.From], seen[e.To] = true, true
		}
	}
	touched := slices.Sorted(maps.Keys(seen))
	for _, c := range m.cond.Touch(m.world, m.now, touched...) {
		m.conditionChanged(c.Before, c.After)
		seen[c.After.Subject] = true
	}
	for _, c := range m.cond.Tick(m.world, m.now) {
		m.conditionChanged(c.Before, c.After)
		seen[c.After.Subject] = true
	}
	for _, c := range in.Conditions {
		before, _ := m.world.Condition(c.ConditionKey)
		m.world.SetCondition(c)
		m.conditionChanged(before, c)
		seen[c.Subject] = true
	}
	if in.Policy != nil {
		m.policy, m.pins.Policy = *in.Policy, in.Policy.Hash
	}
	if in.Leader != nil {
		m.leader = *in.Leader
	}
	switch {
	case in.Freeze != nil:
		m.freeze = in.Freeze
	case in.Thaw:
		m.freeze = nil
	}
	m.maintain(in)
	m.notice()
	return slices.Sorted(maps.Keys(seen))
}

// judge diagnoses what changed and lets incidents follow their causes.
func (m *Mind) judge(touched []fettle.Subject) {
	if len(touched) == 0 {
		return
	}
	changed := m.diag.Update(m.world, m.now, touched...)
	var doubted, regrouped []fettle.ConditionKey
	for _, g := range changed {
		regrouped = append(append(regrouped, allOf(m.groups[g.Key])...), allOf(g)...)
		for _, c := range m.groups[g.Key].Diagnosis.Causes {
			if c.Code == "" {
				doubted = append(doubted, c.ConditionKey)
			}
		}
		m.ungroup(m.groups[g.Key])
		if g.Gone {
			delete(m.groups, g.Key)
		}
	}
	for _, g := range changed {
		if g.Gone {
			continue
		}
		m.groups[g.Key] = g
		for _, key := range allOf(g) {
			m.groupOf[key] = g.Key
		}
	}
	for _, g := range changed {
		if !g.Gone {
			m.follow(g)
		}
	}
	for _, key := range doubted {
		if _, still := m.groupOf[key]; !still {
			m.trusted(key)
		}
	}
	for _, key := range regrouped {
		m.reap(key)
	}
}

// ungroup forgets whose the members of a group are, as far as they are not another's
// by now.
func (m *Mind) ungroup(g diagnose.Group) {
	for _, key := range allOf(g) {
		if m.groupOf[key] == g.Key {
			delete(m.groupOf, key)
		}
	}
}

// allOf are a group's members and its causes, which an observer that is ill itself
// can be without being a member.
func allOf(g diagnose.Group) []fettle.ConditionKey {
	keys := slices.Clone(g.Members)
	for _, c := range g.Diagnosis.Causes {
		keys = append(keys, c.ConditionKey)
	}
	return keys
}

// Next returns when Take must be called with a bare time at the latest.
func (m *Mind) Next() (time.Time, bool) {
	at, ok := m.cond.Next()
	m.armStale()
	if len(m.due) > 0 && (!ok || m.due[0].at.Before(at)) {
		at, ok = m.due[0].at, true
	}
	if turn, turns := m.windowTurns(); turns && (!ok || turn.Before(at)) {
		at, ok = turn, true
	}
	return at, ok
}

// View returns the facts, for reading between two calls of Take.
func (m *Mind) View() *world.World { return m.world }

// Groups returns the present diagnoses, sorted by key.
func (m *Mind) Groups() []diagnose.Group {
	return m.diag.Groups()
}

// Incidents returns all incidents that are remembered, oldest first.
func (m *Mind) Incidents() []fettle.Incident {
	var list []fettle.Incident
	// any order: they are sorted below
	for _, r := range m.records {
		list = append(list, r.clone().Incident)
	}
	slices.SortFunc(list, func(a, b fettle.Incident) int {
		if c := a.Opened.Compare(b.Opened); c != 0 {
			return c
		}
		return cmpText(a.ID, b.ID)
	})
	return list
}

// Incident returns one incident.
func (m *Mind) Incident(id string) (fettle.Incident, bool) {
	r, ok := m.records[id]
	if !ok {
		return fettle.Incident{}, false
	}
	return r.clone().Incident, true
}

// Frozen returns the freeze in effect, nil when there is none.
func (m *Mind) Frozen() *guard.Freeze { return m.freeze }

// Env is the expression environment, for showing and testing runbooks.
func (m *Mind) Env() *expr.Env { return m.env }

// Books are the runbooks that it judges with.
func (m *Mind) Books() *runbook.Set { return m.books }

// Catalogues are the joined catalogues.
func (m *Mind) Catalogues() []fettle.Catalogue { return m.cats }

// Title returns the condition's title where it is known, else its code.
func (m *Mind) Title(k fettle.ConditionKey) string {
	if c, ok := m.world.Condition(k); ok && c.Title != "" {
		return c.Title
	}
	if s := m.specs[k.Code]; s != nil {
		return s.Title
	}
	return string(k.Code)
}

func cmpText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (m *Mind) spec(code fettle.Code) (*fettle.ConditionSpec, error) {
	s := m.specs[code]
	if s == nil {
		return nil, fmt.Errorf("condition %s: no catalogue here has it", code)
	}
	return s, nil
}
