package sim

import (
	"maps"
	"slices"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/incident"
)

// byHand is a person at a machine, in the middle of whatever goes on.
func (s *Sim) byHand(h *host, what string) {
	u := h.units[s.e.rng.IntN(len(h.units))]
	if !h.on {
		return
	}
	s.e.tell("a person wants to %s %s", what, u.subject())
	switch what {
	case "stop":
		u.stop("person")
	case "mask":
		u.masked = true
		u.stop("person")
		u.touched = s.e.now()
		s.changed(h)
		after(s, "a person unmasks "+string(u.subject()), spread{10 * time.Second, time.Minute}, func() {
			u.masked, u.touched = false, s.e.now()
			s.changed(h)
		})
	case "start":
		if !u.masked && (u.member == nil || !u.member.lostLog()) {
			_ = u.start()
		}
	}
}

// freezeFleet freezes the fleet, for a while.
func (s *Sim) freezeFleet() {
	sp := s.leader()
	if sp == nil {
		return
	}
	sp.feed(incident.Input{Freeze: &guard.Freeze{By: "ann", Since: sp.now(), Why: "sim"}})
	after(s, "ann thaws", spread{5 * time.Second, 40 * time.Second}, s.thawFleet)
}

// thawFleet ends it; where no server took it in, ann comes again.
func (s *Sim) thawFleet() {
	if sp := s.leader(); sp != nil {
		sp.feed(incident.Input{Thaw: true, ThawBy: "ann"})
	}
	after(s, "ann looks whether it is thawed", spread{5 * time.Second, 10 * time.Second}, func() {
		frozen := false
		s.depot.set(func(d *depot) { frozen = d.frozen })
		if frozen {
			s.thawFleet()
		}
	})
}

// maintain says that people work on a host, for a while; some say when it is over
// before it is.
func (s *Sim) maintain(h *host) {
	sp := s.leader()
	if sp == nil {
		return
	}
	w := guard.Window{ID: "m-" + h.name, By: "ann", Why: "sim", Hosts: []fettle.Subject{h.subject()}, From: sp.now()}
	w.Until = w.From.Add(spread{5 * time.Second, 40 * time.Second}.draw(s.e.rng))
	sp.feed(incident.Input{Window: &w})
	if s.chance(400) {
		after(s, "maintenance of "+h.name+" ends", spread{5 * time.Second, 30 * time.Second}, func() {
			if sp := s.leader(); sp != nil {
				sp.feed(incident.Input{EndWindow: w.ID, EndedBy: "ann"})
			}
		})
	}
}

// freezeHost freezes a machine by the file that its agent looks for.
func (s *Sim) freezeHost(h *host) {
	a := s.agentOf(h)
	if a.frozen {
		return
	}
	a.frozen, a.frozeAt = true, s.e.now()
	after(s, "thaw of "+h.name, spread{5 * time.Second, 30 * time.Second}, func() { a.frozen = false })
}

// leader is the server that people talk to: the one that holds the store, if it is
// there, else one that believes that it leads.
func (s *Sim) leader() *serverProcess {
	if h := s.depot.master(); h != nil && !h.sp.dead {
		return h.sp
	}
	for _, srv := range s.servers {
		if srv.proc != nil && srv.proc.leads {
			return srv.proc
		}
	}
	return nil
}

// persons answer what they are asked: soon, late, for another plan, or never.
func (s *Sim) persons() {
	s.e.post("persons", spread{time.Second, 8 * time.Second}, func() {
		s.answer()
		s.persons()
	})
}

func (s *Sim) answer() {
	sp := s.leader()
	if sp == nil {
		return
	}
	s.mu.Lock()
	var open []incident.Record
	for _, id := range slices.Sorted(maps.Keys(s.board)) {
		if r := s.board[id]; r.State == fettle.Proposed && r.Plan != nil && !r.State.Ended() {
			open = append(open, r)
		}
	}
	s.mu.Unlock()
	if len(open) == 0 {
		return
	}
	r := open[s.e.rng.IntN(len(open))]
	if r.Plan.Runbook == "careless.messy" && s.e.rng.IntN(4) > 0 {
		return
	}
	a := incident.Answer{Incident: r.ID, Say: incident.SayApprove, Plan: r.Plan.Hash, By: "bob", Until: sp.now().Add(spread{time.Second, 2 * time.Minute}.draw(s.e.rng))}
	if s.chance(250) { // it may have ended before the plan can begin
		a.Until = sp.now().Add(spread{50 * time.Millisecond, 800 * time.Millisecond}.draw(s.e.rng))
	}
	calm := s.e.now().After(s.f.until)
	switch n := s.e.rng.IntN(20); {
	case calm:
	case n == 0:
		a.Plan = "another"
	case n == 1:
		a.Say = incident.SayRefuse
	case n < 8:
		return
	}
	if a.Say == incident.SayApprove {
		s.mu.Lock()
		if a.Until.After(s.agreed[a.Plan]) {
			s.agreed[a.Plan] = a.Until
		}
		s.mu.Unlock()
	}
	s.e.tell("bob: %s %.12s of %s", a.Say, a.Plan, a.Incident)
	sp.feed(incident.Input{Answer: &a}) // what cannot be taken is not taken
}

// stepDown tells a server that it does not lead any more.
func (sp *serverProcess) stepDown() {
	no := false
	sp.resigned = sp.s.e.now()
	sp.feed(incident.Input{Leader: &no})
}
