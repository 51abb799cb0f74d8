package server

import (
	"cmp"
	"slices"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/member"
	"fettle/internal/judge/incident"
)

// enter notes a verdict. mu is held.
func (w *witness) enter(h *watched, v member.Verdict, now time.Time) {
	if v.Life != h.verdict.Life {
		h.since = now
		w.s.o.Log.Info("a host is judged anew", "host", h.subject, "label", h.label, "life", v.Life.String(), "why", v.Reasons[0])
	}
	h.verdict = v
}

// say feeds what is new to the loop, and now and then all. mu is held.
func (w *witness) say(now time.Time) {
	var in incident.Input
	routine := 0
	for id, h := range w.hosts { // any order: they are sorted below
		_, ill := w.ill[id]
		changed := h.said.IsZero() || h.fed != h.verdict.Life || h.fedIll != ill
		if !changed && (now.Sub(h.said) < witnessEvery || routine >= witnessMost) {
			continue
		}
		if !changed {
			routine++
		}
		h.fed, h.fedIll, h.said = h.verdict.Life, ill, now
		in.Observations = append(in.Observations, w.observation(h, now))
	}
	slices.SortFunc(in.Observations, func(a, b fettle.Observation) int { return cmp.Compare(a.Subject, b.Subject) })
	_, blind := w.ill[""]
	if blind != w.blind || now.Sub(w.said) >= witnessEvery {
		w.blind, w.said = blind, now
		in.Observations = append(in.Observations, w.ownSight(now))
	}
	if len(in.Observations) > 0 {
		w.s.feed(in)
	}
}

// observation is the verdict on a host as a fact. Where nobody can tell, no rule can say
// yes or no: the facts that they read are not there. mu is held.
func (w *witness) observation(h *watched, now time.Time) fettle.Observation {
	v := h.verdict
	why, ill := w.ill[h.place.Host]
	facts := fettle.Facts{"life": v.Life.String(), "label": cmp.Or(h.label, h.place.Host), "ill": ill}
	if ill {
		facts["ill_why"] = why
	}
	if len(v.Reasons) > 0 {
		facts["why"] = v.Reasons[0]
	}
	if v.Life != member.CannotTell {
		facts["dead"], facts["hung"], facts["agent_dead"] = v.Life == member.Dead, v.Life == member.Hung, v.Life == member.AgentDead
	}
	return fettle.Observation{Subject: h.subject, Host: w.s.self, Probe: WitnessProbe, Asked: now, Facts: facts}
}

// ownSight is whether this server sees well. mu is held.
func (w *witness) ownSight(now time.Time) fettle.Observation {
	why, ill := w.ill[""]
	facts := fettle.Facts{"ill": ill}
	if ill {
		facts["why"] = why
	}
	return fettle.Observation{Subject: w.s.self, Host: w.s.self, Probe: SightProbe, Asked: now, Facts: facts}
}

// look is the verdict on a host, judged now, as an answer to a look.
func (w *witness) look(subject fettle.Subject) (fettle.Observation, bool) {
	now := w.s.o.Clock.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if subject == w.s.self {
		return w.ownSight(now), true
	}
	h := w.hosts[subject.Root()]
	if h == nil || h.subject != subject {
		return fettle.Observation{}, false
	}
	return w.observation(h, now), true
}

// life tells people of a host.
func (w *witness) life(subject fettle.Subject) (v member.Verdict, since time.Time, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.hosts[subject.Root()]
	if h == nil {
		return member.Verdict{}, time.Time{}, false
	}
	v = h.verdict
	v.Reasons = slices.Clone(v.Reasons)
	return v, h.since, true
}
