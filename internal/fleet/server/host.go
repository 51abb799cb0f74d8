package server

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/incident"
)

// host is what the server knows of one machine's agent.
type host struct {
	subject fettle.Subject
	s       *Server
	edges   []fettle.Edge // of what is observed of the agent: it is the server's

	mu        sync.Mutex // guards what follows; inputs are fed while it is held, so that they stay in order
	label     string
	placed    *placed  // as the loop was told; nil: it was not
	session   *session // nil: not connected
	round     uint64   // of the present session, or the last one
	last      about    // of the agent that was heard of last
	heard     time.Time
	lost      time.Time // when the last session ended; zero while there is one
	returned  time.Time // when it was last in contact again after more than LostAfter without
	unsaid    bool      // the conditions of the lost agent were made unknown
	frozen    freezeState
	permit    permitState
	authority authorityState
	refuses   string // why the agent takes no steps of this server; "": it does
	seen      map[look]*seen
	judged    map[fettle.ConditionKey]judged
}

// about is who an agent is.
type about struct {
	executor, // the incarnation that a dispatch names
	incarnation, bootID, version, address string
}

type freezeState struct {
	fleet, local bool
	why          string
}

// seen is the latest observation of one subject by one probe of this host.
type seen struct {
	incarnation string
	theirs      int64 // asked for, on the agent's clock
	round       uint64
	observation fettle.Observation // Asked is on ours
}

type judged struct {
	round     uint64
	condition fettle.Condition
}

// host returns a host, making it when it is new. mu is held, or nobody else has s.
func (s *Server) host(subject fettle.Subject) *host {
	h := s.hosts[subject]
	if h == nil {
		h = &host{subject: subject, s: s, edges: []fettle.Edge{{From: subject, Rel: fettle.Uses, To: s.self}}, seen: map[look]*seen{}, judged: map[fettle.ConditionKey]judged{}}
		s.hosts[subject] = h
	}
	return h
}

// known returns the hosts, sorted.
func (s *Server) known() []*host {
	list := s.all()
	slices.SortFunc(list, func(a, b *host) int { return strings.Compare(string(a.subject), string(b.subject)) })
	return list
}

// all are the same in any order, for those who ask often.
func (s *Server) all() []*host {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.hosts))
}

func (s *Server) find(subject fettle.Subject) *host {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hosts[subject]
}

// indexed keeps the table of who observes what.
func (s *Server) indexed(l look, h *host, observes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.observers[l]
	i := slices.Index(list, h)
	switch {
	case observes && i < 0:
		s.observers[l] = append(list, h)
	case !observes && i >= 0 && len(list) == 1:
		delete(s.observers, l)
	case !observes && i >= 0:
		s.observers[l] = slices.Delete(list, i, i+1)
	}
}

// current returns the present session, nil when there is none.
func (h *host) current() *session {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.session
}

// attach makes x the host's session. The one before, if there is one, ends.
func (h *host) attach(x *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.session != nil {
		h.session.end(errReplaced)
	}
	h.round++
	x.began = h.s.o.Clock.Now()
	if h.heard.IsZero() {
		h.s.came(x.began)
	}
	if !h.lost.IsZero() && x.began.Sub(h.lost) >= h.s.o.LostAfter {
		h.returned = x.began
	}
	h.session, h.lost, h.unsaid = x, time.Time{}, false
	h.last, h.label, h.frozen, h.refuses = x.about, x.label, freezeState{}, ""
	if x.about.executor == wire.ExecutorAway {
		h.refuses = "its executor does not answer (start fettle-executor.service on that host)"
	}
	h.heard = h.s.o.Clock.Now()
	h.s.feed(incident.Input{Observations: append(h.place(), h.agent())})
}

// detach ends a session, unless it was replaced already.
func (h *host) detach(x *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.session != x {
		return
	}
	h.session, h.lost = nil, h.s.o.Clock.Now()
	h.s.feed(incident.Input{Observations: []fettle.Observation{h.agent()}})
}

// agent is the observation that the agent is connected or not. mu is held.
func (h *host) agent() fettle.Observation {
	facts := fettle.Facts{"label": h.label}
	if h.session != nil || !h.heard.IsZero() || !h.s.gathering() {
		facts["connected"] = h.session != nil
	}
	if h.label == "" {
		facts["label"] = h.subject.Name()
	}
	if h.session != nil {
		facts["settled"] = h.session.settled || h.s.o.Clock.Now().Sub(h.session.began) >= settledAfter
		if h.session.about.executor == wire.ExecutorAway { // no step is begun there meanwhile
			facts["settled"] = false
		}
	}
	if h.last.incarnation != "" {
		facts["incarnation"], facts["boot_id"], facts["version"] = h.last.incarnation, h.last.bootID, h.last.version
	}
	return fettle.Observation{Subject: h.subject, Host: h.s.self, Probe: AgentProbe, Asked: h.s.o.Clock.Now(), Facts: facts, Edges: h.edges}
}

// feedAgents says of every host whether its agent is connected, and makes
// unknown what one that has been away for too long had judged.
func (s *Server) feedAgents() {
	var domains tally
	for _, h := range s.known() {
		h.mu.Lock()
		in := incident.Input{Observations: append(h.place(), h.agent())}
		now := s.o.Clock.Now()
		domains.count(h)
		if h.session == nil && !h.unsaid && !h.lost.IsZero() && now.Sub(h.lost) >= s.o.LostAfter {
			h.unsaid = true
			in.Conditions = h.unknown(now, func(judged) bool { return true })
		}
		s.feed(in)
		h.mu.Unlock()
	}
	if list := append(domains.observations(s.self, s.o.Clock.Now()), s.holds()...); len(list) > 0 {
		s.feed(incident.Input{Observations: list})
	}
}

// unknown makes conditions of this host's agent unknown, those that are not
// already and that which picks, and forgets them. mu is held.
func (h *host) unknown(now time.Time, which func(judged) bool) []fettle.Condition {
	var out []fettle.Condition
	for _, key := range slices.SortedFunc(maps.Keys(h.judged), fettle.ConditionKey.Compare) {
		j := h.judged[key]
		if !which(j) {
			continue
		}
		delete(h.judged, key)
		if c := j.condition; c.State != fettle.Unknown {
			c.State, c.Since, c.Evidence = fettle.Unknown, now, nil
			out = append(out, c)
		}
	}
	return out
}
