package condition

import (
	"slices"
	"time"

	"fettle/internal/fettle"
)

// record is one condition of one subject, with what its rules need of the past.
type record struct {
	spec *spec
	cond fettle.Condition

	known     fettle.Tri // the last State that was not unknown; Yes: the episode is open
	streak    fettle.Tri // what the observers say together …
	from      time.Time  // … and since when
	firstSeen time.Time  // in this episode, also while Delay still runs
	resumed   time.Time  // since when it is raised if the first judgement finds it so; zero: since that
	words     []lastWord // by observer's host, sorted

	changes []time.Time // raised or cleared: the last ones, as many as make it flap
	quiet   time.Time   // when it has been quiet long enough not to flap; zero: it does not flap

	due   time.Time // when it is to be judged again
	place int       // on the agenda; -1: not there
}

// lastWord is what an observer said when it last knew.
type lastWord struct {
	host fettle.Subject
	says fettle.Tri
}

// newRecord begins with what the world remembers of the condition, if anything:
// after a restart it goes on as the same episode.
func newRecord(sp *spec, key fettle.ConditionKey, past fettle.Condition, restored bool, now time.Time) *record {
	r := &record{spec: sp, place: -1, cond: fettle.Condition{ConditionKey: key, Since: now}}
	if !restored {
		return r
	}
	r.cond, r.known, r.firstSeen = past, past.State, past.FirstSeen
	if past.State == fettle.Unknown && !past.FirstSeen.IsZero() {
		r.known = fettle.Yes
	}
	for _, e := range past.Evidence {
		if e.Says != fettle.Unknown {
			r.remember(e.Observer.Host, e.Says)
		}
	}
	if past.Flapping {
		r.quiet = now.Add(sp.Flap.Window)
	}
	return r
}

func (r *record) lastWord(host fettle.Subject) fettle.Tri {
	for _, w := range r.words {
		if w.host == host {
			return w.says
		}
	}
	return fettle.Unknown
}

func (r *record) remember(host fettle.Subject, says fettle.Tri) {
	for i := range r.words {
		if r.words[i].host == host {
			r.words[i].says = says
			return
		}
	}
	r.words = append(r.words, lastWord{host, says})
}

// take moves the record on to what the observers say now. It returns when it is
// to be judged again although nothing is observed; zero: never.
func (r *record) take(words []word, now time.Time) (next time.Time) {
	a := agree(r.spec.Observers, words)
	if a.says != r.streak {
		r.streak, r.from = a.says, a.from
		if now.Before(r.from) { // an observer's clock is ahead
			r.from = now
		}
	}
	r.damp(now)
	var state fettle.Tri
	switch a.says {
	case fettle.Yes:
		if r.firstSeen.IsZero() {
			r.firstSeen = r.from
			if r.firstSeen.Before(r.cond.LastClear) { // another observer still saw it clear then
				r.firstSeen = r.cond.LastClear
			}
		}
		state, next = r.held(fettle.Yes, fettle.No, r.spec.Delay, now)
	case fettle.No:
		state, next = r.held(fettle.No, fettle.Yes, r.spec.ClearHold, now)
	default:
		state = fettle.Unknown
	}
	r.enter(state, now)
	if state == fettle.Yes && !r.resumed.IsZero() {
		r.cond.Since = r.resumed
	}
	r.resumed = time.Time{}
	if state == fettle.No && a.says == fettle.No {
		r.firstSeen = time.Time{}
		if a.clear.After(r.cond.LastClear) {
			r.cond.LastClear = a.clear
		}
	}
	r.cond.FirstSeen = time.Time{}
	if r.known == fettle.Yes {
		r.cond.FirstSeen = r.firstSeen
	}
	r.write(words)
	return earliest(next, r.damp(now))
}

// held returns the state to be in when the observers say `to`: `to` itself once
// they have said so for long enough, or at once when the condition was not last
// known to be in the opposite state; else the present one, and when to look again.
func (r *record) held(to, opposite fettle.Tri, long time.Duration, now time.Time) (fettle.Tri, time.Time) {
	ready := r.from.Add(long)
	pending := r.known == opposite || to == fettle.Yes && r.known != fettle.Yes // to be raised needs its delay also the first time
	if pending && now.Before(ready) {
		return r.cond.State, ready
	}
	return to, time.Time{}
}

// enter changes the state, and counts the change when the condition came or went.
func (r *record) enter(state fettle.Tri, now time.Time) {
	if state != r.cond.State {
		r.cond.State, r.cond.Since = state, now
	}
	if state == fettle.Unknown || state == r.known {
		return
	}
	first := r.known == fettle.Unknown && state == fettle.No
	r.known = state
	if first { // never to have been ill is not a change
		return
	}
	r.changes = append(r.changes, now)
	if extra := len(r.changes) - r.spec.Flap.Changes; extra > 0 {
		r.changes = slices.Delete(r.changes, 0, extra)
	}
	if len(r.changes) == r.spec.Flap.Changes && now.Sub(r.changes[0]) <= r.spec.Flap.Window || !r.quiet.IsZero() {
		r.quiet = now.Add(r.spec.Flap.Window)
	}
}

// damp says whether it flaps, and returns when that ends if nothing changes.
func (r *record) damp(now time.Time) time.Time {
	if !r.quiet.IsZero() && !now.Before(r.quiet) {
		r.quiet, r.changes = time.Time{}, nil
	}
	r.cond.Flapping = !r.quiet.IsZero()
	return r.quiet
}

// write puts the evidence and the title down.
func (r *record) write(words []word) {
	var facts fettle.Facts
	r.words = slices.DeleteFunc(r.words, func(l lastWord) bool {
		return !slices.ContainsFunc(words, func(w word) bool { return w.Observer.Host == l.host })
	})
	r.cond.Evidence = make([]fettle.Evidence, 0, len(words))
	decided := false
	for _, w := range words {
		r.cond.Evidence = append(r.cond.Evidence, w.Evidence)
		if w.Says != fettle.Unknown {
			r.remember(w.Observer.Host, w.Says)
		}
		if w.seen != nil && (facts == nil || !decided && w.Says == r.streak) {
			facts, decided = w.seen, w.Says == r.streak
		}
	}
	if facts != nil || r.cond.Title == "" {
		r.cond.Title = r.spec.title.fill(facts)
	}
}

// GoneReason is the Reason in the evidence of a condition that ended because
// nobody sees its subject any more.
const GoneReason fettle.Reason = "the subject is gone"

// end is the condition's last state, when its subject is gone.
func (r *record) end(now time.Time) fettle.Condition {
	c := r.cond
	if c.State != fettle.No {
		c.State, c.Since = fettle.No, now
	}
	c.Flapping, c.FirstSeen = false, time.Time{}
	c.Evidence = make([]fettle.Evidence, 0, len(r.cond.Evidence))
	for _, e := range r.cond.Evidence {
		c.Evidence = append(c.Evidence, fettle.Evidence{Observer: e.Observer, Asked: now, Says: fettle.No, Reason: GoneReason})
	}
	return c
}
