package incident

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"slices"
	"strings"

	"fettle/internal/fettle"
	"fettle/internal/judge/diagnose"
)

// conditionChanged writes a condition's turn into the stories that it belongs to
// and wakes them.
func (m *Mind) conditionChanged(before, after fettle.Condition) {
	for _, id := range m.about.sorted(after.ConditionKey) {
		r := m.records[id]
		if !m.isOpen(r) {
			continue
		}
		m.poke(r)
		if after.ConditionKey == r.Cause {
			r.over = after.State == fettle.No
		}
		if before.State == after.State || len(r.Conditions) > apiece && after.ConditionKey != r.Cause {
			continue
		}
		switch after.State {
		case fettle.Yes:
			m.tell(r, fettle.Event{Kind: fettle.EvRaised, Text: m.say(after)})
		case fettle.No:
			m.tell(r, fettle.Event{Kind: fettle.EvCleared, Text: after.String() + " is clear"})
		default:
			m.tell(r, fettle.Event{Kind: fettle.EvUnknown, Text: after.String() + " can no longer be known"})
		}
	}
}

// say is a raised condition in a sentence, with who saw it.
func (m *Mind) say(c fettle.Condition) string {
	var hosts []string
	for _, e := range c.Evidence {
		if e.Says == c.State {
			hosts = append(hosts, e.Observer.Host.Name()+"/"+e.Observer.Probe)
		}
	}
	slices.Sort(hosts)
	s := m.Title(c.ConditionKey) + " (" + c.String() + ")"
	if hosts = slices.Compact(hosts); len(hosts) > 0 {
		s += ", seen by " + strings.Join(hosts, ", ")
	}
	return s
}

// sortedOpen are the incidents that have not ended. The list is read only, and good
// until one is opened or ends.
func (m *Mind) sortedOpen() []string { return m.open }

// opens notes that a cause has an incident that has not ended.
func (m *Mind) opens(cause fettle.ConditionKey, id string) {
	m.byCause[cause] = id
	if i, found := slices.BinarySearch(m.open, id); !found {
		m.open = slices.Insert(m.open, i, id)
	}
	r := m.records[id]
	m.about.move(id, nil, r.Conditions)
	m.rest(r)
	m.stale[id] = true
}

// closes notes that it has none any more.
func (m *Mind) closes(cause fettle.ConditionKey) {
	id := m.byCause[cause]
	delete(m.byCause, cause)
	if i, found := slices.BinarySearch(m.open, id); found {
		m.open = slices.Delete(m.open, i, i+1)
	}
	m.stale[id] = true
}

// follow brings the incidents of a group into line with its diagnosis: one for
// each cause, and none for what a cause explains.
func (m *Mind) follow(g diagnose.Group) {
	causes := map[fettle.ConditionKey]bool{}
	for _, c := range g.Diagnosis.Causes {
		causes[c.ConditionKey] = true
		r := m.recordFor(c.ConditionKey, g)
		m.update(r, c, g)
	}
	for _, key := range g.Members {
		id, ok := m.byCause[key]
		if !ok || causes[key] {
			continue
		}
		m.superseded(m.records[id], g)
	}
}

// recordFor returns the open incident of a cause, opening one where there is
// none.
func (m *Mind) recordFor(key fettle.ConditionKey, g diagnose.Group) *Record {
	if id, ok := m.byCause[key]; ok {
		return m.records[id]
	}
	r := &Record{Incident: fettle.Incident{
		Schema: 1, ID: m.mint(key), Opened: m.now, State: fettle.Open, Cause: key,
	}, Progress: Progress{Phase: PhaseIdle, Since: m.now}}
	m.remember(r)
	m.opens(key, r.ID)
	raised := 0
	for _, k := range g.Members {
		if c, ok := m.world.Condition(k); ok && c.Raised() {
			if raised++; raised <= namesMost || k == key {
				m.tell(r, fettle.Event{Kind: fettle.EvRaised, Text: m.say(c), At: m.now, Took: m.now.Sub(c.FirstSeen)})
			}
		}
	}
	if raised > namesMost {
		m.tell(r, fettle.Event{Kind: fettle.EvRaised, Text: fmt.Sprintf("in all %d conditions that may have one cause", raised)})
	}
	return r
}

// mint makes an incident's name: short, the same in a replay, and new for every
// new episode of the same trouble.
func (m *Mind) mint(key fettle.ConditionKey) string {
	for n := 0; ; n++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s|%s|%d|%d", key.Code, key.Subject, m.now.UnixNano(), n))
		id := strings.ToLower(base32.StdEncoding.EncodeToString(sum[:5]))
		if m.records[id] == nil {
			return id
		}
	}
}

// update puts a cause's present explanation into its incident.
func (m *Mind) update(r *Record, c fettle.Cause, g diagnose.Group) {
	conds := append([]fettle.ConditionKey{c.ConditionKey}, c.Explains...)
	slices.SortFunc(conds, fettle.ConditionKey.Compare)
	conds = slices.Compact(conds)
	effects := !r.about(len(c.Explains)) // each of them counts
	same := sameCauses(r.Diagnosis.Causes, g.Diagnosis.Causes, effects) && (!effects || slices.Equal(conds, r.Conditions))
	m.explains(r, conds)
	r.Diagnosis = g.Diagnosis
	m.poke(r)
	if same {
		return
	}
	r.effects = len(c.Explains)
	text := "the cause is " + m.Title(c.ConditionKey) + " (" + c.String() + ")"
	if c.Code == "" {
		text = "what is ill is the observer " + string(c.Subject) + " itself"
	}
	if len(c.Explains) > 0 {
		var names []string
		more := 0
		for _, k := range c.Explains {
			switch {
			case k == c.ConditionKey:
			case len(names) < namesMost:
				names = append(names, k.String())
			default:
				more++
			}
		}
		if len(names) > 0 {
			text += "; it explains " + strings.Join(names, ", ")
		}
		if more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
	}
	if !c.Observed {
		text += "; it is supposed, not seen"
	}
	m.tell(r, fettle.Event{Kind: fettle.EvDiagnosed, Text: text})
}

// A cause that takes a zone away has thousands of effects, that come and go one by one. To
// tell of each, and each time name all, would fill the store.
const (
	// namesMost is how many effects are named at once. Of more the story tells when there
	// are twice or half as many as it said last.
	namesMost = 16
	// apiece is up to how many it tells when one of them comes or goes.
	apiece = 100
)

// about reports whether the story has said that there are about as many effects.
func (r *Record) about(n int) bool {
	return min(n, r.effects) > namesMost && n < 2*r.effects && r.effects < 2*n
}

// sameCauses compares causes, with the effects of each or without.
func sameCauses(a, b []fettle.Cause, effects bool) bool {
	return slices.EqualFunc(a, b, func(x, y fettle.Cause) bool {
		return x.ConditionKey == y.ConditionKey && x.Observed == y.Observed && (!effects || slices.Equal(x.Explains, y.Explains))
	})
}

// superseded ends an incident whose cause turned out to be an effect of another,
// unless it has touched something: then it ends at the next step.
func (m *Mind) superseded(r *Record, g diagnose.Group) {
	if r.Cause.Code == "" {
		return // it ends when its group is gone
	}
	m.poke(r)
	c, ok := m.world.Condition(r.Cause)
	if ok && !c.Raised() || r.begun() || r.inFlight() {
		return
	}
	m.supersede(r, g)
}

func (m *Mind) supersede(r *Record, g diagnose.Group) {
	var by []string
	for _, c := range g.Diagnosis.Causes {
		if slices.Contains(c.Explains, r.Cause) {
			by = append(by, fmt.Sprintf("%s (incident %s)", c.ConditionKey, m.byCause[c.ConditionKey]))
		}
	}
	why := "it is explained by " + strings.Join(by, " and ")
	if len(by) == 0 {
		why = "it is no longer a cause"
	}
	m.tell(r, fettle.Event{Kind: fettle.EvDiagnosed, Text: why + "; what is to be done is done there"})
	m.end(r, fettle.Closed, why)
}

// explained reports whether the present diagnosis explains the incident's cause
// by another.
func (m *Mind) explained(r *Record) (diagnose.Group, bool) {
	key, ok := m.groupOf[r.Cause]
	if !ok {
		return diagnose.Group{}, false
	}
	g := m.groups[key]
	is := func(c fettle.Cause) bool { return c.ConditionKey == r.Cause }
	return g, !slices.ContainsFunc(g.Diagnosis.Causes, is)
}

// trusted ends the incident about an ill observer when it is no longer doubted.
func (m *Mind) trusted(key fettle.ConditionKey) {
	id, ok := m.byCause[key]
	if !ok || key.Code != "" {
		return
	}
	r := m.records[id]
	m.tell(r, fettle.Event{Kind: fettle.EvResolved, Text: "what it sees is confirmed by others again, or no longer bad", Took: m.now.Sub(r.Opened)})
	m.end(r, fettle.Resolved, "it is no longer doubted")
}

// reap wakes those of the incidents about a condition whose cause is not raised: they may
// end now.
func (m *Mind) reap(about fettle.ConditionKey) {
	// any order: each is woken by itself
	for id := range m.about[about] {
		if m.restless[id] {
			m.poke(m.records[id])
		}
	}
}

// suspects are the looks at everything that, by the catalogues, could have
// brought the cause about: asked before the first step, so that no symptom is
// treated while its cause is there to be seen.
func (m *Mind) suspects(key fettle.ConditionKey) []fettle.Look {
	const most = 32
	var looks []fettle.Look
	for _, k := range m.upstream(key) {
		if spec := m.specs[k.Code]; spec.Probe != "" && len(looks) < most {
			looks = append(looks, fettle.Look{Subject: k.Subject, Probe: spec.Probe})
		}
	}
	return looks
}
