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
	for _, id := range m.sortedOpen() {
		r := m.records[id]
		if !slices.Contains(r.Conditions, after.ConditionKey) {
			continue
		}
		r.poked = true
		if after.ConditionKey == r.Cause {
			r.over = after.State == fettle.No
		}
		if before.State == after.State {
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

func (m *Mind) sortedOpen() []string {
	ids := make([]string, 0, len(m.byCause))
	// any order: they are sorted below
	for _, id := range m.byCause {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
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
	m.records[r.ID] = r
	m.byCause[key] = r.ID
	for _, k := range g.Members {
		if c, ok := m.world.Condition(k); ok && c.Raised() {
			m.tell(r, fettle.Event{Kind: fettle.EvRaised, Text: m.say(c), At: m.now, Took: m.now.Sub(c.FirstSeen)})
		}
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
	same := slices.Equal(conds, r.Conditions) && sameCauses(r.Diagnosis.Causes, g.Diagnosis.Causes)
	r.Conditions, r.Diagnosis = conds, g.Diagnosis
	r.poked = true
	if same {
		return
	}
	text := "the cause is " + m.Title(c.ConditionKey) + " (" + c.String() + ")"
	if len(c.Explains) > 0 {
		var names []string
		for _, k := range c.Explains {
			if k != c.ConditionKey {
				names = append(names, k.String())
			}
		}
		if len(names) > 0 {
			text += "; it explains " + strings.Join(names, ", ")
		}
	}
	if !c.Observed {
		text += "; it is supposed, not seen"
	}
	m.tell(r, fettle.Event{Kind: fettle.EvDiagnosed, Text: text})
}

func sameCauses(a, b []fettle.Cause) bool {
	return slices.EqualFunc(a, b, func(x, y fettle.Cause) bool {
		return x.ConditionKey == y.ConditionKey && x.Observed == y.Observed && slices.Equal(x.Explains, y.Explains)
	})
}

// superseded ends an incident whose cause turned out to be an effect of another,
// unless it has touched something: then it ends at the next step.
func (m *Mind) superseded(r *Record, g diagnose.Group) {
	if r.Cause.Code == "" {
		return // it ends when its group is gone
	}
	r.poked = true
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

// reap wakes incidents whose cause is no longer raised, so that they can end.
func (m *Mind) reap() {
	for _, id := range m.sortedOpen() {
		r := m.records[id]
		if c, ok := m.world.Condition(r.Cause); !ok || !c.Raised() {
			r.poked = true
		}
	}
}

// suspects are the looks at everything that, by the catalogues, could have
// brought the cause about: asked before the first step, so that no symptom is
// treated while its cause is there to be seen. Bounded: a fault has few roots.
func (m *Mind) suspects(key fettle.ConditionKey) []fettle.Look {
	const most, depth = 32, 3
	var looks []fettle.Look
	seen := map[fettle.ConditionKey]bool{key: true}
	at := []fettle.ConditionKey{key}
	for range depth {
		var next []fettle.ConditionKey
		for _, k := range at {
			for _, up := range m.causes[k.Code] {
				for _, s := range m.world.Related(k.Subject, up.path) {
					c := fettle.ConditionKey{Code: up.code, Subject: s}
					spec := m.specs[up.code]
					if seen[c] || s.Kind() != spec.Kind {
						continue
					}
					seen[c] = true
					next = append(next, c)
					if spec.Probe != "" && len(looks) < most {
						looks = append(looks, fettle.Look{Subject: s, Probe: spec.Probe})
					}
				}
			}
		}
		at = next
	}
	return looks
}
