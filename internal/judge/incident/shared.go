package incident

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/diagnose"
)

// This file keeps a member from being touched while what it shares with others may
// be what is wrong, and an effect from being treated while its cause is only not to
// be seen for a moment. Each wait has an end: then what is known is acted upon, or a
// person is called.

// burstWait is how long a rung that takes something waits, from the first sign of the
// trouble, for others to fall ill too, where something that many hosts share could
// bring it about: the first victim of a burst looks like any other. Agents tell within
// two seconds, a silent session is ended after eight, and what is polled is polled
// every five to ten.
const burstWait = 10 * time.Second

// candidate is what, by the catalogues, could have brought a condition about, with the
// way from the effect's subject to its own.
type candidate struct {
	fettle.ConditionKey
	path fettle.Path
}

// upstream lists what could have brought a condition about, in at most three steps, the
// nearest first. Bounded: a fault has few roots.
func (m *Mind) upstream(key fettle.ConditionKey) []candidate {
	const most, depth = 128, 3
	seen := map[fettle.ConditionKey]bool{key: true}
	var all []candidate
	at := []candidate{{key, fettle.Self}}
	for range depth {
		var next []candidate
		for _, k := range at {
			for _, up := range m.causes[k.Code] {
				for _, s := range m.world.Related(k.Subject, up.path) {
					c := candidate{fettle.ConditionKey{Code: up.code, Subject: s}, join2(k.path, up.path)}
					if seen[c.ConditionKey] || s.Kind() != m.specs[up.code].Kind || len(all)+len(next) >= most {
						continue
					}
					seen[c.ConditionKey] = true
					next = append(next, c)
				}
			}
		}
		all = append(all, next...)
		at = next
	}
	return all
}

// join2 is the way along one path and then another.
func join2(a, b fettle.Path) fettle.Path {
	switch {
	case a == fettle.Self:
		return b
	case b == fettle.Self:
		return a
	}
	return a + " " + b
}

// lostSight finds a cause that was known to be there a moment ago and cannot be seen
// at present, and until when its return is waited for: to be unknown is not to be
// absent. It is what was raised and became unknown, or what an open incident, of
// before a restart perhaps, is about and calls its effect.
func (m *Mind) lostSight(r *Record) (cause fettle.ConditionKey, until time.Time) {
	wait := func(k fettle.ConditionKey, since time.Time) {
		if since.Before(m.began) { // known to those before us, and not yet to us
			since = m.began
		}
		if end := since.Add(returnWait); m.now.Before(end) && (until.IsZero() || end.Before(until)) {
			cause, until = k, end
		}
	}
	for _, k := range m.upstream(r.Cause) {
		if c, ok := m.world.Condition(k.ConditionKey); ok && c.State == fettle.Unknown && !c.FirstSeen.IsZero() {
			wait(k.ConditionKey, c.Since)
		}
	}
	for _, id := range m.about.sorted(r.Cause) {
		o := m.records[id]
		if o == r || !m.isOpen(o) || !o.restored || o.Cause.Code == "" {
			continue
		}
		if _, ok := m.world.Condition(o.Cause); !ok && !o.over {
			wait(o.Cause, m.began)
		}
	}
	return cause, until
}

// waitsForSight waits for a cause that was lost sight of, having looked at it, and
// reports whether it still does.
func (m *Mind) waitsForSight(r *Record) bool {
	k, until := m.lostSight(r)
	if until.IsZero() {
		return false
	}
	why := fmt.Sprintf("%s explained it and cannot be seen at present; that is not to be absent, so it is waited for", k)
	told := r.State == fettle.Held && r.Why == why
	m.hold(r, why, until.Sub(m.now))
	if spec := m.specs[k.Code]; !told && spec.Probe != "" {
		m.decisions = append(m.decisions, Decision{Kind: Look, Incident: r.ID, Looks: []fettle.Look{{Subject: k.Subject, Probe: spec.Probe}}, Within: settleWait})
	}
	return true
}

// sharedOpen holds a plan that takes something back while what its subject shares
// with others is an open question, and reports whether it does. It has said so, or
// asked for what would settle it. What a person approved, a person has looked at.
func (m *Mind) sharedOpen(r *Record, p fettle.Plan, cond fettle.Condition) bool {
	if len(p.Takes) == 0 || r.Progress.Approval != nil && r.Progress.Approval.Plan == p.Hash {
		return false
	}
	if o, until := m.aftermath(r); o != nil {
		m.hold(r, fmt.Sprintf("%s brought it about and has ended (incident %s); it is given %v to end too, before anything is taken", o.Cause, o.ID, aftermathWait), until.Sub(m.now))
		return true
	}
	age := m.now.Sub(cond.FirstSeen)
	var unseen []string
	for _, k := range m.upstream(r.Cause) {
		c, _ := m.world.Condition(k.ConditionKey)
		switch {
		case c.State == fettle.Yes && age < burstWait: // what lies between may not have been looked at since
			m.hold(r, fmt.Sprintf("%s is there and could bring it about; nothing is taken before it is seen whether it did", k), burstWait-age)
			return true
		case c.State == fettle.Yes || k.Subject == r.Cause.Subject:
		case pending(c) && age < returnWait:
			m.hold(r, fmt.Sprintf("%s may be what brought it about, and is about to be known; nothing is taken before", k), time.Second)
			return true
		case c.State == fettle.Unknown && m.inGroup(r, k.ConditionKey):
			unseen = append(unseen, k.String())
		case age < burstWait && m.mayBeBurst(r.Cause, k):
			m.hold(r, fmt.Sprintf("%s could bring it about on many at once; nothing is taken before it is seen whether others fall ill too", k), burstWait-age)
			return true
		}
	}
	if len(unseen) == 0 {
		return false
	}
	m.lookOr(r, func() {
		m.callOnce(r, "what it shares with others that fell ill may be what is wrong, and nobody could see it: "+strings.Join(unseen, ", ")+"; nothing is taken from any of them, and a person must look there")
	})
	return true
}

// aftermathWait is how long an effect may outlast its cause before a rung that takes
// something is tried on it: what only waited for room, for the network or for the time
// comes back by itself within its own retries. A rung that takes nothing waits for
// nothing.
const aftermathWait = 30 * time.Second

// aftermath finds the incident about what brought r's cause about, where that ended a
// moment ago, and until when its effects may take to end too.
func (m *Mind) aftermath(r *Record) (of *Record, until time.Time) {
	ids := append(m.about.sorted(r.Cause), m.late(r.Cause)...)
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		o := m.records[id]
		if o == r || o.Cause == r.Cause || !slices.Contains(o.Conditions, r.Cause) {
			continue
		}
		ended := o.Ended
		if !o.State.Ended() && m.clear(o) { // it ends with the next look at it
			ended = m.now
		} else if o.State != fettle.Resolved {
			continue
		}
		if end := ended.Add(aftermathWait); m.now.Before(end) && end.After(until) {
			of, until = o, end
		}
	}
	return of, until
}

// callOnce calls a person about what several incidents have in common: for the first
// of them that says it.
func (m *Mind) callOnce(r *Record, why string) {
	m.armStale()
	for _, id := range m.said.sorted(why) {
		if o := m.records[id]; o != r && o.State == fettle.Escalated && o.Why == why {
			m.tell(r, fettle.Event{Kind: fettle.EvHeld, Text: why + " (a person was called by incident " + o.ID + ")"})
			r.State, r.Why = fettle.Escalated, why
			m.phase(r, PhaseIdle, time.Time{})
			return
		}
	}
	m.escalate(r, why)
}

// pending reports whether somebody says that a condition is there which has not held
// for its delay yet.
func pending(c fettle.Condition) bool {
	return c.State != fettle.Yes && slices.ContainsFunc(c.Evidence, func(e fettle.Evidence) bool { return e.Says == fettle.Yes })
}

// inGroup reports whether the diagnosis of r's group takes a supposed cause for
// possible: it would account for others as well.
func (m *Mind) inGroup(r *Record, k fettle.ConditionKey) bool {
	mine, ok := m.groupOf[r.Cause]
	return ok && m.groupOf[k] == mine
}

// mayBeBurst reports whether an effect may be the first of many: what could have
// brought it about could strike subjects of as many hosts as a burst has. That it was
// seen clear just now does not settle it: a session with a host that is cut off ends
// seconds later. A whole is nothing that its parts share: what they may lose at once,
// the guards count.
func (m *Mind) mayBeBurst(effect fettle.ConditionKey, cause candidate) bool {
	if strings.Contains(string(cause.path), string(fettle.PartOf)) {
		return false
	}
	hosts := map[fettle.Subject]bool{}
	for _, s := range m.world.Related(cause.Subject, cause.path.Reverse()) {
		if s.Kind() != effect.Subject.Kind() {
			continue
		}
		at := s
		if on := m.world.Related(s, ">runs-on"); len(on) > 0 {
			at = on[0]
		}
		hosts[at] = true
	}
	return len(hosts) >= diagnose.DefaultWeights().Burst
}
