package sim

import (
	"time"

	"fettle/internal/fettle"
)

// told is an observation as a server was told it, and when it was made in truth.
type told struct {
	o      fettle.Observation
	round  int
	made   time.Time
	by     string // the agent's process
	theirs int64  // when it was asked for, on that one's clock
}

// place puts what an agent saw onto the server's clock and keeps it.
func (sp *serverProcess) place(l *link, theirs int64, list []fettle.Observation) []fettle.Observation {
	c := sp.contact(l.host)
	if sp.dead || c.link != l {
		return nil
	}
	now := sp.now()
	c.clocks.Heard(now, theirs)
	if !l.timed { // it waited for the welcome
		l.timed = true
		c.clocks.Answered(now, now.Sub(l.since))
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	out := make([]fettle.Observation, 0, len(list))
	for _, o := range list {
		key := sight{o.Subject, o.Probe}
		age := time.Duration(theirs - o.Asked.UnixNano())
		made := sp.s.e.now().Add(-age)
		if asked := c.clocks.Ours(o.Asked.UnixNano()); asked.After(now) {
			o.Asked = now
		} else {
			o.Asked = asked
		}
		before, had := c.seen[key]
		if had && o.Asked.Before(before.o.Asked) && (before.by != l.p.name || before.theirs <= theirs-int64(age)) {
			o.Asked = before.o.Asked
		}
		switch {
		case o.Gone:
			delete(c.seen, key)
		case had && before.o.Asked.After(o.Asked): // it came late
		default:
			c.seen[key] = told{o: o, round: c.round, made: made, by: l.p.name, theirs: theirs - int64(age)}
		}
		out = append(out, o)
	}
	return out
}
