package server

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/condition"
	"fettle/internal/judge/incident"
)

// report takes in what an agent observed and judged, and feeds it to the loop.
// What cannot be read is passed over and told to the log: one adapter's defect
// must not silence the others.
func (h *host) report(x *session, at time.Time, now int64, r *wire.Report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.session != x {
		return
	}
	in := incident.Input{Observations: h.observations(x, at, now, r.GetObservations())}
	for _, data := range r.GetConditions() {
		c, err := wire.Unpack[fettle.Condition](data)
		if err == nil && !h.s.hostCode[c.Code] {
			err = fmt.Errorf("%s is not a condition that an agent judges (do agent and server have the same adapters?)", c.Code)
		}
		if err == nil {
			_, err = fettle.ParseSubject(string(c.Subject))
		}
		if err != nil {
			x.complain("a condition was not taken", err)
			continue
		}
		c = shift(&x.clocks, c)
		h.judged[c.ConditionKey] = judged{round: h.round, condition: c}
		if ended(c) {
			delete(h.judged, c.ConditionKey)
		}
		in.Conditions = append(in.Conditions, c)
	}
	if len(in.Observations)+len(in.Conditions) > 0 {
		h.s.feed(in)
	}
}

// ended reports whether a condition ended because its subject is gone.
func ended(c fettle.Condition) bool {
	return c.State == fettle.No && len(c.Evidence) == 1 && c.Evidence[0].Reason == condition.GoneReason
}

// shift puts the times of a condition on our clock.
func shift(c *wire.Clocks, cond fettle.Condition) fettle.Condition {
	cond.Since, cond.LastClear, cond.FirstSeen = c.Shift(cond.Since), c.Shift(cond.LastClear), c.Shift(cond.FirstSeen)
	for i := range cond.Evidence {
		cond.Evidence[i].Asked = c.Shift(cond.Evidence[i].Asked)
	}
	return cond
}

// answers is report for a look's answer, which the caller feeds.
func (h *host) answers(x *session, at time.Time, now int64, list []*wire.Observation) []fettle.Observation {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.session != x {
		return nil
	}
	return h.observations(x, at, now, list)
}

// observations reads observations and keeps them as the latest. mu is held.
func (h *host) observations(x *session, at time.Time, now int64, list []*wire.Observation) []fettle.Observation {
	var out []fettle.Observation
	for _, w := range list {
		o, err := wire.Unpack[fettle.Observation](w.GetJson())
		if err == nil {
			err = plausible(o)
		}
		if err != nil {
			x.complain("an observation was not taken", err)
			continue
		}
		o.Probe, o.Facts = h.s.words.name(o.Probe), h.s.words.facts(o.Facts)
		before := h.seen[look{o.Subject, o.Probe}]
		if before != nil { // texts that are there already
			o.Subject = before.observation.Subject
			if slices.Equal(o.Edges, before.observation.Edges) {
				o.Edges = before.observation.Edges
			}
		} else {
			o.Edges = sharing(o.Edges, o.Subject, h.subject)
		}
		key := look{o.Subject, o.Probe}
		o.Host = h.subject // an agent speaks for its own host
		theirs := now - max(0, w.GetAgeNs())
		o.Asked = x.place(before, at, theirs)
		out = append(out, o)
		switch {
		case o.Gone:
			delete(h.seen, key)
			h.s.indexed(key, h, false)
		case before != nil && before.observation.Asked.After(o.Asked): // it came late
		default:
			h.seen[key] = &seen{incarnation: x.about.incarnation, theirs: theirs, round: h.round, observation: o}
			if before == nil {
				h.s.indexed(key, h, true)
			}
		}
	}
	return out
}

// sharing lets edges name these subjects by the texts that are there already.
func sharing(edges []fettle.Edge, known ...fettle.Subject) []fettle.Edge {
	for i := range edges {
		for _, end := range []*fettle.Subject{&edges[i].From, &edges[i].To} {
			for _, s := range known {
				if *end == s {
					*end = s
				}
			}
		}
	}
	return slices.Clip(edges)
}

func plausible(o fettle.Observation) error {
	if o.Probe == "" || o.Probe == AgentProbe || o.Probe == WitnessProbe || o.Probe == SightProbe || o.Probe == StoreProbe || o.Probe == RoomProbe || o.Probe == PlaceProbe || strings.HasPrefix(o.Probe, DomainProbe) {
		return fmt.Errorf("probe %q cannot be an agent's", o.Probe)
	}
	if _, err := fettle.ParseSubject(string(o.Subject)); err != nil {
		return err
	}
	for _, e := range o.Edges {
		for _, end := range []fettle.Subject{e.From, e.To} {
			if _, err := fettle.ParseSubject(string(end)); err != nil {
				return err
			}
		}
	}
	return nil
}

// place puts the time at which an observation was asked for on our clock: not
// later than it was, and not before an earlier observation of the same, whatever
// the estimate of the clocks was then.
func (x *session) place(before *seen, at time.Time, theirs int64) time.Time {
	asked := x.clocks.Ours(theirs)
	if asked.After(at) {
		asked = at
	}
	if before != nil && asked.Before(before.observation.Asked) &&
		(before.incarnation != x.about.incarnation || theirs >= before.theirs) {
		asked = before.observation.Asked
	}
	return asked
}

// errDigest ends a session whose digest names what was not sent in it: the next
// begins with everything.
var errDigest = errors.New("the digest names what was not sent in this session (the agent connects anew and sends everything)")

// digest takes in what was observed again and is as it was.
func (h *host) digest(x *session, at time.Time, now int64, list []*wire.Seen) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.session != x {
		return nil
	}
	again := make([]fettle.Observation, 0, len(list))
	for _, w := range list {
		before := h.seen[look{fettle.Subject(w.GetSubject()), w.GetProbe()}]
		if before == nil || before.round != h.round {
			return errDigest
		}
		theirs := now - max(0, w.GetAgeNs())
		if theirs < before.theirs {
			continue
		}
		before.observation.Asked = x.place(before, at, theirs)
		before.observation.Took = time.Duration(w.GetTookNs())
		before.theirs = theirs
		again = append(again, before.observation)
	}
	if len(again) > 0 {
		h.s.feed(incident.Input{Observations: again})
	}
	return nil
}

// settled forgets what this session did not send: the agent has told everything
// that there is. What a probe that it has did not find, is gone; what a probe that
// it no longer has once found, is unknown.
func (h *host) settled(x *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.session != x {
		return
	}
	now := h.s.o.Clock.Now()
	var in incident.Input
	gone := map[fettle.Subject]bool{}
	for key, e := range h.seen {
		if e.round == h.round {
			gone[key.subject] = false
			continue
		}
		o := fettle.Observation{Subject: key.subject, Host: h.subject, Probe: key.probe, Asked: now}
		if x.probes[key.probe] {
			o.Gone = true
			if _, seen := gone[key.subject]; !seen {
				gone[key.subject] = true
			}
		} else {
			gone[key.subject] = false
			o.Reason, o.Detail = fettle.NotSupported, "the agent does not have this probe any more"
		}
		in.Observations = append(in.Observations, o)
		delete(h.seen, key)
		h.s.indexed(key, h, false)
	}
	slices.SortFunc(in.Observations, func(a, b fettle.Observation) int {
		return strings.Compare(string(a.Subject)+a.Probe, string(b.Subject)+b.Probe)
	})
	in.Conditions = h.unknown(now, func(j judged) bool { return j.round != h.round })
	for i, c := range in.Conditions {
		if gone[c.Subject] { // as the agent's own judge ends it when it sees that
			c.State = fettle.No
			c.Evidence = []fettle.Evidence{{Observer: fettle.Observer{Host: h.subject}, Asked: now, Says: fettle.No, Reason: condition.GoneReason}}
			in.Conditions[i] = c
		}
	}
	x.settled = true
	in.Observations = append(in.Observations, h.agent())
	h.s.feed(in)
}
