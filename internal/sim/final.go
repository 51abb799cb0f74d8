package sim

import (
	"context"
	"slices"
	"strings"

	"fettle/internal/fettle"
)

// checkEnd: faults stopped, time passed. What runbooks can mend is mended; what is
// still ill, a person knows of; nothing is left half done; the chain is whole.
func (s *Sim) checkEnd() {
	if _, err := s.depot.kept.Check(context.Background()); err != nil {
		s.e.breaks("S13", "in the end the chain is broken: %v", err)
	}
	for _, c := range s.w.clusters {
		for _, m := range c.members {
			if seat := c.seat(m); (seat == nil || !seat.voter || !m.serves()) && !s.known(c.all()...) {
				s.e.breaks("L", "%s does not vote (its service is %s, stopped by %q), and nobody was called", m.subject(), m.unit.state, m.unit.stoppedBy)
			}
		}
	}
	for _, h := range s.w.hosts {
		for _, u := range h.units {
			about := []string{string(u.subject()), string(h.disk.subject())}
			if u.member != nil {
				about = u.member.c.all()
			}
			if u.state != "active" && !s.known(about...) {
				s.e.breaks("L", "%s is %s (stopped by %q), and nobody was called", u.subject(), u.state, u.stoppedBy)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, r := range s.board {
		if (r.State == fettle.Acting || r.State == fettle.Undoing) && !strings.Contains(r.Why, "it is still not known what became of") {
			s.e.breaks("L", "incident %s on %s is still %s: %s", id, r.Cause, r.State, r.Why)
		}
	}
}

// known reports whether there is an open incident about one of the subjects that a
// person was called about, or that says that a person did it.
func (s *Sim) known(subjects ...string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, r := range s.board {
		// What was given up half-way and cleared behind a person's back is still theirs.
		failed := s.called[id] > 0 && strings.Contains(r.Why, "what was tried for it had failed")
		if r.State.Ended() && !failed || !slices.Contains(subjects, string(r.Cause.Subject)) {
			continue
		}
		if s.called[id] > 0 || strings.Contains(r.Why, "on purpose") || strings.HasPrefix(r.Why, "the condition comes and goes") || r.State == fettle.Escalated || r.State == fettle.Proposed {
			return true
		}
	}
	return false
}

// all are the subjects of which one that is ill may be why another does not serve.
func (c *cluster) all() []string {
	list := []string{string(c.subject())}
	for _, m := range c.members {
		list = append(list, string(m.subject()), string(m.unit.subject()), string(m.unit.host.disk.subject()))
	}
	return list
}
